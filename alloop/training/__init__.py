"""Training of networks: losses, optimisers, stages, and the trainers that run them."""
