"""Benchmarks of how campaigns use their workers."""
