"""The `potential:`, `flag:` and `training:` sections."""

from typing import Annotated, Any, Literal, TypeAlias

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

Cutoff: TypeAlias = Annotated[float, Field(gt=0, le=20)]


class Painn(Section):
    """PaiNN, an equivariant message-passing network (Schütt et al., 2021)."""

    kind: Literal["painn"] = "painn"
    channels: Count = Field(64, description="features of an atom")
    layers: Count = Field(3, description="rounds of messages")
    radial: Count = Field(8, description="radial functions")
    cutoff: Cutoff = Field(5.0, description="how far atoms see, Å")


class Egnn(Section):
    """E(n)-equivariant network (Satorras et al., 2021)."""

    kind: Literal["egnn"] = "egnn"
    channels: Count = Field(128, description="features of an atom")
    layers: Count = Field(5, description="rounds of messages")
    radial: Count = Field(8, description="radial functions")
    cutoff: Cutoff = Field(5.0, description="how far atoms see, Å")


class Pairwise(Section):
    """Pair functions fitted by least squares: to try things out in seconds."""

    kind: Literal["pairwise"] = "pairwise"
    radial: Annotated[int, Field(ge=2)] = Field(12, description="functions a pair")
    cutoff: Cutoff = Field(5.0, description="how far atoms see, Å")


class Ready(Section):
    """A model file that `alloop export --model` wrote: generation 0 and parent."""

    kind: Literal["file"]
    path: str = Field(description="path, relative to this YAML file")
    network: dict[str, Any] | None = Field(
        None, description="kind and settings of its network, filled in from the file"
    )


Potential: TypeAlias = Annotated[
    Annotated[Painn, tag("painn")]
    | Annotated[Egnn, tag("egnn")]
    | Annotated[Pairwise, tag("pairwise")]
    | Annotated[Ready, tag("file")],
    by_kind("painn"),
]


class Flag(Section):
    """Which frames of the MD are worth a label."""

    kind: Literal["q-residual"] = "q-residual"
    components: Positive = Field(
        0.99, description="principal components: a share of variance, or from 1 a count"
    )
    quantile: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.99, description="of held-out surprise, above which a frame is flagged"
    )
    heldout: Share = Field(
        0.25, description="share of the first cheap frames kept from training"
    )
    control: Share = Field(0.1, description="share of labels for random frames")
    selection: Literal["surprise", "random"] = Field(
        "surprise", description="how frames are picked"
    )
    triage: Literal["bias", "surprise", "both"] = Field(
        "both", description="what decides who gets an expensive label too"
    )
    fill: bool = Field(
        True, description="spend the quota on frames below the limit too"
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
