"""The `acceptance:` section: the checks of each new generation."""

from typing import Annotated, Any

from pydantic import Field

from alloop.acceptance import AcceptanceSettings, SetLimits
from alloop.config.sections.base import RecordSection, build_record, setting_key
from alloop.config.sections.data import Units


class CheckedSet(Units):
    """A set of labelled frames that is never trained on, and the limits of its error.

    Labels may be of any level: that of a forgetting set is what the universal model
    learned.
    """

    labels: str = Field(
        description="path of the labelled frames, relative to this YAML file"
    )
    error: float | None = setting_key(SetLimits, "error")
    most: float | None = setting_key(SetLimits, "most")


class Acceptance(RecordSection[AcceptanceSettings]):
    """The checks that a generation must pass before MD runs on it.

    One that fails is kept, with its labels, and the last one that passed goes on.
    """

    sets: dict[Annotated[str, Field(pattern=r"^[\w-]+$")], CheckedSet] = Field(
        {},
        description="labelled frames of your own, by a name of your choice, such as "
        "`independent` or `forgetting`",
    )

    def build(self, **others: Any) -> AcceptanceSettings:
        """Return the limits of all checks."""
        sets = [build_record(SetLimits, x, name=name) for name, x in self.sets.items()]
        return super().build(sets=tuple(sets), **others)
