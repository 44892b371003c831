"""YAML to checked, frozen objects; pydantic and yaml live here only.

setup = load("campaigns/water.yaml")     # ConfigError lists every mistake at once
"""

from alloop.config.load import load, loads, schema
from alloop.config.problems import ConfigError, Problem
from alloop.config.setup import Setup, differences
from alloop.config.text import changed

__all__ = [
    "ConfigError",
    "Problem",
    "Setup",
    "changed",
    "differences",
    "load",
    "loads",
    "schema",
]
