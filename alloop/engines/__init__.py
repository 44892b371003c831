"""Adaptors by which programs of others run MD with a trained model."""
