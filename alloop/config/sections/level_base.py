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

    instability: Verdict = Field(
        "flag",
        description="labels of an SCF solution above one of broken spin symmetry",
    )
    multireference: Verdict = Field(
        "flag", description="labels with a large T1 diagnostic or a small gap"
    )
    contamination: Verdict = Field(
        "flag", description="labels whose <S²> is not that of the spin"
    )
    unbound: Verdict = Field(
        "flag", description="labels of anions with an electron that is not bound"
    )
    rival: Verdict = Field(
        "flag", description="labels with several competing SCF solutions"
    )


def _word_or_mapping(value: object) -> str:
    return "<doubts>" if isinstance(value, Mapping | Doubts) else "<word>"


AnyDoubts: TypeAlias = Annotated[
    Annotated[Verdict, union_tag("word")] | Annotated[Doubts, union_tag("doubts")],
    Discriminator(_word_or_mapping),
]


class Gate(Section):
    """Thresholds of this level that replace those of its class."""

    closest: NotNegative | None = Field(
        None, description="closest distance of two atoms, in sums of covalent radii"
    )
    net_force: Positive | None = Field(
        None, description="largest sum of all forces, eV/Å"
    )
    torque: Positive | None = Field(None, description="largest sum of all torques, eV")
    force: Positive | None = Field(
        None, description="largest component of a force, eV/Å"
    )
    slope: Share | None = Field(
        None,
        description="share of labels whose forces are compared with a neighbour's "
        "energy",
    )


class LevelSection(Section, ABC):
    """A level of theory; doubts and recheck are the campaign's, not the level's."""

    doubts: AnyDoubts = Field(
        "flag",
        description="treatment of doubtful labels (accept, flag or exclude), for all "
        "doubts or for each",
    )
    recheck: Share = Field(
        0.05, description="share of labels that are made again, to measure their noise"
    )
    gate: Gate | None = Field(
        None,
        description="thresholds that replace those of the level's class; part of the "
        "level",
    )

    @abstractmethod
    def base_level(self) -> Level:
        """Return the level, without the gate's thresholds."""

    def build(self) -> Level:
        """Return the level with all settings; raise InputError if they are invalid."""
        level = self.base_level()
        own = {} if self.gate is None else self.gate.model_dump(exclude_none=True)
        return make_level(level.kind, {**level.settings, "gate": own}) if own else level

    def verdicts(self) -> Mapping[Doubt, str]:
        """Return the treatment of each doubt: accept, flag or exclude."""
        if isinstance(self.doubts, Doubts):
            verdicts = self.doubts.model_dump()
            return {doubt: verdicts[doubt.name.lower()] for doubt in Doubt}
        return dict.fromkeys(Doubt, self.doubts)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        try:
            self.build()
        except InputError as error:
            raise ValueError(str(error)) from error
        return self


CAMPAIGN_KEYS = frozenset(LevelSection.model_fields)
