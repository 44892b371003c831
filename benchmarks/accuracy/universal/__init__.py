"""How few labels universal potentials need."""
