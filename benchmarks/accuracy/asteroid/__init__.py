"""ASTEROID's two-stage training against standard training."""
