"""Benchmarks of quantum-chemistry labels: throughput, correctness, cost."""
