"""The base of every level's section: doubts, rechecks and gate of its labels."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, model_validator

from alloop.config.sections.base import Section, Share, setting_key, union_tag
from alloop.core.doubts import Doubt
from alloop.core.errors import InputError
from alloop.core.levels import Level, make_level
from alloop.labels.tolerances import Tolerances

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

    closest: float | None = setting_key(Tolerances, "closest", default=None)
    net_force: float | None = setting_key(Tolerances, "net_force", default=None)
    torque: float | None = setting_key(Tolerances, "torque", default=None)
    force: float | None = setting_key(Tolerances, "force", default=None)
    slope: float | None = setting_key(Tolerances, "slope", default=None)


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
