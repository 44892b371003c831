"""The level `universal`: a universal potential as it comes."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field

from alloop.config.sections.base import by_kind, union_tag
from alloop.config.sections.level_base import LevelSection
from alloop.config.sections.potentials import NETWORK_SECTIONS, PotentialSection
from alloop.core.levels import Level
from alloop.labels.levels import universal_level
from alloop.models.settings import is_pretrained


def _named(given: Any) -> Any:
    """Return `{kind: WORD}` for a word."""
    return {"kind": given} if isinstance(given, str) else given


if TYPE_CHECKING:
    AnyUniversal = PotentialSection
else:
    _TAGGED = tuple(
        Annotated[section, union_tag(kind)]
        for kind, section in NETWORK_SECTIONS.items()
        if is_pretrained(kind)
    )
    AnyUniversal = Annotated[
        Annotated[Union[_TAGGED], by_kind()],  # noqa: UP007
        BeforeValidator(_named),
    ]


class Universal(LevelSection):
    """A universal potential as it comes: so3lr, ani or chgnet, milliseconds a label."""

    kind: Literal["universal"]
    potential: AnyUniversal = Field(
        description="so3lr, ani, chgnet, or kind and settings as under `potential:`"
    )

    def base_level(self) -> Level:
        """Return the level with all settings."""
        settings = self.potential.model_dump(exclude={"kind"})
        return universal_level(self.potential.kind, **settings)
