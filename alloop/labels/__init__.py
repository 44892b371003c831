"""Implementations of Labeller: programs, gates, isolation."""
