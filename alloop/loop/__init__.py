"""Decide purely, commit, then act."""
