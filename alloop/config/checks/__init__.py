"""Checks of a configuration: each mistake is found, and said in one sentence."""
