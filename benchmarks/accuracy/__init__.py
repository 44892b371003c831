"""Benchmarks of how accurate trained potentials are."""
