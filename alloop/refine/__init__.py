"""Shifts between training and use: how far frames lie outside, and what helps there."""
