"""Implementations of Potential."""
