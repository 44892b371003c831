"""Walkers in, frames and walkers out."""
