"""Networks (torch, torch-geometric) and their checkpoints."""
