"""Implementations of Scorer."""
