"""Benchmarks by what they measure; `README.md` lists them."""
