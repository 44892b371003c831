"""The base of every level's section: doubts, rechecks and gate of its labels."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, model_validator

from alloop.config.sections.base import NotNegative, Positive, Section, Share, union_tag
from alloop.core.doubts import Doubt
from alloop.core.errors import InputError
from alloop.core.levels import Level, make_level

Verdict: TypeAlias = Literal["accept", "flag", "exclude"]


class Doubts(Section):
    """The treatment of labels with a sign of wrong physics."""

    instability: Verdict = Field("flag", description="a lower, broken solution")
    multireference: Verdict = Field("flag", description="T1 diagnostic, small gap")
    contamination: Verdict = Field("flag", description="<S²> is off")
    unbound: Verdict = Field("flag", description="an electron is not bound")
    rival: Verdict = Field("flag", description="several SCF solutions compete")


def _word_or_mapping(value: object) -> str:
    return "<doubts>" if isinstance(value, Mapping | Doubts) else "<word>"


AnyDoubts: TypeAlias = Annotated[
    Annotated[Verdict, union_tag("word")] | Annotated[Doubts, union_tag("doubts")],
    Discriminator(_word_or_mapping),
]


class Gate(Section):
    """Thresholds of this level that replace those of its class."""

    closest: NotNegative | None = Field(
        None, description="distance, in sums of covalent radii"
    )
    net_force: Positive | None = Field(None, description="sum of forces, eV/Å")
    torque: Positive | None = Field(None, description="sum of torques, eV")
    force: Positive | None = Field(None, description="largest component, eV/Å")
    slope: Share | None = Field(
        None, description="share of labels compared with a neighbour's energy"
    )


class LevelSection(Section, ABC):
    """A level of theory; doubts and recheck are the campaign's, not the level's."""

    doubts: AnyDoubts = Field("flag", description="accept, flag or exclude; or by sign")
    recheck: Share = Field(
        0.05, description="share of labels made again for the noise floor"
    )
    gate: Gate | None = Field(None, description="own thresholds, part of the level")

    @abstractmethod
    def made(self) -> Level:
        """Return the level, without the gate's thresholds."""

    def build(self) -> Level:
        """Return the level with all settings; raise InputError if they are invalid."""
        made = self.made()
        own = {} if self.gate is None else self.gate.model_dump(exclude_none=True)
        return make_level(made.kind, {**made.settings, "gate": own}) if own else made

    def verdicts(self) -> Mapping[Doubt, str]:
        """Return the treatment of each doubt: accept, flag or exclude."""
        if isinstance(self.doubts, Doubts):
            said = self.doubts.model_dump()
            return {doubt: said[doubt.name.lower()] for doubt in Doubt}
        return dict.fromkeys(Doubt, self.doubts)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        try:
            self.build()
        except InputError as error:
            raise ValueError(str(error)) from error
        return self


OF_TRUST = frozenset(LevelSection.model_fields)
