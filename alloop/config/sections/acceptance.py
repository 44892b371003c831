"""The `acceptance:` section: the checks of each new generation."""

from typing import Annotated, TypeAlias

from pydantic import Field

from alloop.config.sections.base import (
    ParallelCount,
    Positive,
    Section,
    Share,
    Whole,
)
from alloop.config.sections.data import Units

_Factor: TypeAlias = Annotated[float, Field(ge=1)]


class CheckedSet(Units):
    """A set of labelled frames that is never trained on, and the limits of its error.

    Labels may be of any level: that of a forgetting set is what the universal model
    learned.
    """

    labels: str = Field(
        description="path of the labelled frames, relative to this YAML file"
    )
    error: _Factor | None = Field(
        2.0,
        description="largest force error on the set, as a multiple of that of the "
        "model before; null: no such limit",
    )
    most: Positive | None = Field(
        None,
        description="largest force error on the set, meV/Å; no such limit by default",
    )


class Acceptance(Section):
    """The checks that a generation must pass before MD runs on it.

    One that fails is kept, with its labels, and the last one that passed goes on.
    """

    error: _Factor | None = Field(
        2.0,
        description="largest force error on the validation set, as a multiple of that "
        "of the generation before; null: not checked",
    )
    compression: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        0.6,
        description="share of a bond's length at which its atoms must repel each "
        "other; null: not checked",
    )
    steps: Whole = Field(
        200, description="steps of a short MD that must stay whole; 0: not checked"
    )
    walkers: ParallelCount = Field(8, description="walkers of the short MD")
    stopped: Share = Field(
        0.25, description="share of these walkers that guards may stop"
    )
    sets: dict[Annotated[str, Field(pattern=r"^[\w-]+$")], CheckedSet] = Field(
        {},
        description="labelled frames of your own, by a name of your choice, such as "
        "`independent` or `forgetting`",
    )
