"""A small configuration, and what is wrong with another."""

from pathlib import Path

import pytest

from alloop.config import ConfigError, parse_campaign

TOY = """
name: toy
start: [{molecule: H2O}]
levels: {cheap: {kind: toy, stiffness: 0.9}, expensive: {kind: toy}}
"""


def problems(text: str, base: Path) -> dict[str, str]:
    """What is wrong with a configuration, by path."""
    with pytest.raises(ConfigError) as caught:
        parse_campaign(text, base)
    assert caught.value.exit_code == 2
    return {problem.path: problem.text for problem in caught.value.problems}
