"""Benchmarks of MD, inference and training speed."""
