"""torch, torch-geometric: networks and their checkpoints."""
