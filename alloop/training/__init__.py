"""Implementations of Trainer."""
