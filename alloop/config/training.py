"""The `training:` section: how a generation learns."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from alloop.config.base import (
    Count,
    Loose,
    Positive,
    Section,
    Share,
    Whole,
    by_kind,
    tag,
)


class Optimiser(Section):
    """How a network walks downhill, the same in all stages."""

    every: Count = Field(10, description="expensive labels between two generations")
    staleness: Whole = Field(
        0, description="generations that MD lags behind: from 1 on they train beside it"
    )
    lr: Positive = Field(5e-3, description="Adam's peak step")
    batch: Count = Field(10, description="frames a step")
    energy: Share = Field(0.05, description="weight of energies against forces")


class Asteroid(Optimiser):
    """ASTEROID (Bukharin et al., 2023): expensive, all cheap by bias, expensive."""

    kind: Literal["asteroid"]
    teacher: Count = Field(300, description="steps on expensive labels, for the bias")
    pretrain: Count = Field(2700, description="steps on cheap labels, by bias weights")
    finetune: Count = Field(1000, description="steps on expensive labels")
    finetune_lr: Positive = Field(1e-3, description="Adam's peak step in fine-tuning")
    gamma: Annotated[tuple[Positive, ...], Loose] = Field(
        (2.0,), min_length=1, description="bias scales, in spreads of the bias"
    )
    validation: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of expensive frames that chooses among gammas"
    )
    least: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.3, description="least share of cheap frames that stay effective"
    )

    @property
    def total(self) -> int:
        """Steps of a generation."""
        return self.teacher + self.pretrain + self.finetune


class Standard(Optimiser):
    """Training on expensive labels alone."""

    kind: Literal["standard"]
    steps: Count = Field(4000, description="steps a generation")

    @property
    def total(self) -> int:
        """Steps of a generation."""
        return self.steps


Training: TypeAlias = Annotated[
    Annotated[Asteroid, tag("asteroid")] | Annotated[Standard, tag("standard")],
    by_kind(),
]
