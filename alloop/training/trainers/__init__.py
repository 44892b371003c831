"""Trainers of networks in stages, of universal potentials and of pair functions."""
