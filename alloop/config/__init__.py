"""Conversion of YAML to checked, frozen objects.

This is the only package that imports pydantic. For example:

    setup = load_campaign("campaigns/water.yaml")

ConfigError lists every mistake at once.
"""

from alloop.config.load import campaign_schema, load_campaign, parse_campaign
from alloop.config.setup import Setup, changes_since, fixed_differences
from alloop.config.yaml_text import ConfigError, Problem

__all__ = [
    "ConfigError",
    "Problem",
    "Setup",
    "campaign_schema",
    "changes_since",
    "fixed_differences",
    "load_campaign",
    "parse_campaign",
]
