"""Sections of a campaign file: frozen models of the YAML, with units and limits."""
