"""Benchmarks of the store: commits, reads, growth."""
