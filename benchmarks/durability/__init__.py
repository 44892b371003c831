"""Benchmarks of what faults cost a campaign."""
