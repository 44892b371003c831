"""Molecular dynamics of walkers, and the frames taken from it."""
