"""The kinds of levels, one maker each, and what is wrong with a level."""

from collections.abc import Mapping, Sequence
from typing import Any

from alloop.core.levels import Level, installed, level
from alloop.labels.gate import check_electrons as check_electrons
from alloop.labels.isolated import IsolatedLabeller
from alloop.labels.pyscf.level import pyscf_level as pyscf_level
from alloop.labels.toy import toy_level as toy_level


def ase_level(calculator: str, arguments: Mapping[str, Any] | None = None) -> Level:
    """A level of an ASE calculator by its import path, made with these arguments."""
    settings = {
        "title": calculator.rpartition(".")[2],
        "program": installed(calculator.partition(".")[0]),
        "calculator": calculator,
        "arguments": dict(arguments or {}),
    }
    return level("ase", settings)


def check_level(
    level: Level, elements: Sequence[str], within: IsolatedLabeller | None = None
) -> list[str]:
    """What is wrong with a level for molecules of these elements, before it runs.

    One sentence a problem, with the nearest valid spelling. Programs are imported in a
    child process only: that of `within`, or one started for this question.
    """
    if within is not None:
        return within.labeller(level).problems(elements)
    with IsolatedLabeller(level) as child:
        return child.problems(elements)
