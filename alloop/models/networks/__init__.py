"""The networks: one module a kind, and the inputs and layers of some."""
