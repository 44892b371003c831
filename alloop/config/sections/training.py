"""The `training:` section: the training of a generation."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from ase.data import atomic_numbers
from pydantic import BeforeValidator, Field

from alloop.config.problems import shown_value
from alloop.config.sections.base import (
    Count,
    Loose,
    NotNegative,
    Positive,
    Section,
    Share,
    Whole,
    by_kind,
    union_tag,
)


def _reference_energies(value: Any) -> Any:
    """Return reference energies unchanged; raise ValueError if they are invalid."""
    if value == "fitted":
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError(
            "expected `fitted`, or an energy in eV for each element such as "
            f"{{H: -13.6}}, got {shown_value(value)}"
        )
    for element, energy in value.items():
        if not atomic_numbers.get(element):  # ASE knows X, with number 0
            raise ValueError(
                f"there is no element `{element}`; expected chemical symbols"
            )
        if isinstance(energy, bool) or not isinstance(energy, int | float):
            raise ValueError(
                f"expected the energy of {element} in eV, got {shown_value(energy)}"
            )
    return value


Energies: TypeAlias = Annotated[
    Literal["fitted"] | dict[str, float], BeforeValidator(_reference_energies)
]


Start: TypeAlias = Annotated[
    Literal["parent", "scratch"],
    Field(description="parent: go on from the last generation's network"),
]


class References(Section):
    """The reference energy of each element at each level, given or fitted."""

    cheap: Energies = Field("fitted", description="eV by element, or fitted")
    expensive: Energies = Field("fitted", description="eV by element, or fitted")


class OptimiserSection(Section):
    """The optimiser, the same in all stages, and the pace of generations."""

    every: Count = Field(10, description="expensive labels between two generations")
    staleness: Whole = Field(
        0, description="generations that MD lags behind: from 1 on they train beside it"
    )
    optimiser: Literal["muon", "adamw"] | None = Field(
        None,
        description="of the matrices that mix features, AdamW moves the rest: muon, "
        "or adamw from a universal potential",
    )
    lr: Positive = Field(5e-3, description="the optimiser's peak step")
    batch: Count = Field(10, description="frames a step")
    energy: Share = Field(0.05, description="weight of energies against forces")
    compile: bool | Literal["auto"] = Field(
        "auto", description="stages as machine code: auto where they are long enough"
    )
    references: References = References()


class BiasWeighedSection(OptimiserSection):
    """Training that may weight cheap labels by their bias."""

    gamma: Annotated[tuple[Positive, ...], Loose] = Field(
        (2.0,), min_length=1, description="bias scales, in spreads of the bias"
    )
    validation: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of expensive frames that chooses among gammas"
    )
    least: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.3, description="least share of cheap frames that stay effective"
    )


class Asteroid(BiasWeighedSection):
    """ASTEROID (Bukharin et al., 2023): all cheap labels, then the expensive ones."""

    kind: Literal["asteroid"]
    teacher: Count = Field(300, description="steps on expensive labels, for the bias")
    pretrain: Count = Field(2700, description="steps on cheap labels")
    finetune: Count = Field(1000, description="steps on expensive labels")
    finetune_lr: Positive = Field(1e-3, description="peak step in fine-tuning")
    bias: Literal["plain", "scaled", "none"] = Field(
        "none",
        description="that weighs cheap labels: as it is, after the best common factor, "
        "or none, and pretraining gets the teacher's steps",
    )
    start: Start = "scratch"

    @property
    def total(self) -> int:
        """Steps of a generation."""
        return self.teacher + self.pretrain + self.finetune


class Standard(OptimiserSection):
    """Training on expensive labels alone."""

    kind: Literal["standard"]
    steps: Count = Field(4000, description="steps a generation")
    start: Start = "scratch"

    @property
    def total(self) -> int:
        """Steps of a generation."""
        return self.steps


_STAGE = {  # keys of the stage itself; the others are of its schedule
    *("name", "on", "steps", "start", "weights", "labels", "mix"),
    *("loss", "temperature", "noise"),
}


class StageSection(Section):
    """One stage of a list; keys that are left out take the values of the section."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[\w.-]+$")] = Field(
        description="letters, digits, `.`, `_`, `-`"
    )
    on: Literal["cheap", "expensive", "both"] = Field(description="whose labels")
    steps: Count = Field(description="of the optimiser")
    start: Literal["scratch", "previous", "parent"] = Field(
        "previous", description="a new network, the last stage's, or generation's"
    )
    weights: Literal["uniform", "bias", "scaled"] = Field(
        "uniform", description="of cheap frames: by their bias, plain or scaled"
    )
    labels: Literal["plain", "scaled", "difference", "corrected"] = Field(
        "plain", description="as they are, or changed by what other stages learned"
    )
    mix: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="share of expensive frames, `on: both`"
    )
    loss: Literal["labels", "score"] = Field(
        "labels", description="score: from where frames lie, `alloop train` alone"
    )
    temperature: Positive | None = Field(
        None, description="K that the frames were drawn at, `loss: score`"
    )
    noise: NotNegative = Field(0.0, description="Å that smooths them, `loss: score`")
    epochs: Count | None = Field(None, description="at most, through its frames")
    patience: Count | None = Field(
        None, description="steps without a better validation error that end the stage"
    )
    every: Count | None = Field(None, description="steps between validation errors")
    optimiser: Literal["muon", "adamw"] | None = Field(
        None, description="of the matrices that mix features"
    )
    lr: Positive | None = Field(None, description="the optimiser's peak step")
    batch: Count | None = Field(None, description="frames a step")
    energy: Share | None = Field(None, description="weight of energies")
    norm: Literal["l1", "l2"] | None = Field(None, description="of force errors")
    warmup: Whole | None = Field(None, description="steps to the peak")
    ema: Share | None = Field(None, description="decay of the weights' average")
    clip: Positive | None = Field(None, description="of the gradient's norm")
    decay: Literal["cosine", "wsd"] | None = Field(
        None, description="of the step: wsd stays at the peak first"
    )
    hold: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="share of the steps at the peak, `decay: wsd`"
    )
    weight_decay: NotNegative | None = Field(None, description="of matrices, decoupled")
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="of the step, from each layer to the one below"
    )

    @property
    def overrides(self) -> dict[str, Any]:
        """The keys of the schedule that this stage sets."""
        said = {name: getattr(self, name) for name in type(self).model_fields}
        return {k: v for k, v in said.items() if v is not None and k not in _STAGE}


class Stages(BiasWeighedSection):
    """A list of stages that the user defines."""

    kind: Literal["stages"]
    stages: Annotated[tuple[StageSection, ...], Loose] = Field(
        min_length=1, description="in their order; the last one's network is the result"
    )

    @property
    def total(self) -> int:
        """Steps of a generation."""
        return sum(stage.steps for stage in self.stages)

    @property
    def start(self) -> Literal["parent", "scratch"]:
        """Always "scratch", which leaves each stage's own `start` as it is."""
        return "scratch"


Training: TypeAlias = Annotated[
    Annotated[Asteroid, union_tag("asteroid")]
    | Annotated[Standard, union_tag("standard")]
    | Annotated[Stages, union_tag("stages")],
    by_kind(),
]
