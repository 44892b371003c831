"""What makes each figure that is claimed: `python -m benchmarks.NAME --help`."""
