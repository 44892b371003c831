"""The `training:` section: the training of a generation."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

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
from alloop.config.sections.references import References
from alloop.config.sections.replay import Replay

Start: TypeAlias = Annotated[
    Literal["parent", "scratch"],
    Field(description="network to begin with: a new one, or the last generation's"),
]


class OptimiserSection(Section):
    """The optimiser, the same in all stages, and the pace of generations."""

    every: Count = Field(10, description="expensive labels between two generations")
    staleness: Whole = Field(
        0,
        description="generations by which MD may lag behind; 0: MD waits for training",
    )
    last: Annotated[float, Field(ge=1)] = Field(
        4.0,
        description="factor of the steps of the last generation, which is trained when "
        "the budget is spent",
    )
    optimiser: Literal["muon", "adamw"] | None = Field(
        None,
        description="optimiser of the weight matrices (AdamW moves the rest); by "
        "default muon, or adamw from a universal potential",
    )
    lr: Positive | None = Field(
        None,
        description="peak learning rate; by default 5e-3, or 3e-4 from a universal "
        "potential",
    )
    batch: Count = Field(10, description="frames in a training step")
    energy: Share = Field(
        0.05, description="weight of energies in the loss; forces get the rest up to 1"
    )
    stress: NotNegative = Field(
        0.1,
        description="weight of the stress of cells in the loss, beside 1 for energies "
        "and forces; without effect where labels have none",
    )
    compile: bool | Literal["auto"] = Field(
        "auto",
        description="whether training steps are compiled; auto: in stages that are "
        "long enough",
    )
    references: References = References()
    replay: Replay | None = Field(
        None,
        description="frames of what a pretrained potential knows, which fine-tuning "
        "goes on learning; none by default",
    )


class BiasWeighedSection(OptimiserSection):
    """Training that may weight cheap labels by their bias."""

    gamma: Annotated[tuple[Positive, ...], Loose] = Field(
        (2.0,),
        min_length=1,
        description="scales of the bias in the weights of cheap labels, in units of "
        "its spread; several are compared",
    )
    validation: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="share of the expensive frames held out to choose among several "
        "gammas",
    )
    least: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.3,
        description="smallest effective share of the cheap frames that weights may "
        "leave",
    )


class Asteroid(BiasWeighedSection):
    """ASTEROID (Bukharin et al., 2023): all cheap labels, then the expensive ones."""

    kind: Literal["asteroid"]
    teacher: Count = Field(
        300, description="steps on expensive labels, to estimate the bias of cheap ones"
    )
    pretrain: Count = Field(2700, description="steps on cheap labels")
    finetune: Count = Field(1000, description="steps on expensive labels")
    finetune_lr: Positive | None = Field(
        None,
        description="peak learning rate of fine-tuning; by default 1e-3, or 3e-4 from "
        "a universal potential",
    )
    bias: Literal["plain", "scaled", "none"] = Field(
        "none",
        description="bias that weights cheap labels: plain, scaled (after the best "
        "common factor), or none, where pretraining also takes the steps "
        "of `teacher`",
    )
    start: Start = "scratch"

    @property
    def total(self) -> int:
        """Steps of a generation."""
        return self.teacher + self.pretrain + self.finetune


class TwoHeads(OptimiserSection):
    """A cheap and an expensive head on one representation, for `alloop refine`."""

    kind: Literal["two-heads"]
    pretrain: Count = Field(
        3000, description="steps on cheap labels, of the whole network"
    )
    finetune: Count = Field(
        1000, description="steps on expensive labels, of their head alone"
    )
    finetune_lr: Positive = Field(1e-3, description="peak learning rate of the head")
    start: Start = "scratch"

    @property
    def total(self) -> int:
        """Steps of a generation."""
        return self.pretrain + self.finetune


class Standard(OptimiserSection):
    """Training on expensive labels alone."""

    kind: Literal["standard"]
    steps: Count = Field(4000, description="steps of a generation")
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
        description="name of the stage: letters, digits, `.`, `_` and `-`"
    )
    on: Literal["cheap", "expensive", "both"] = Field(
        description="labels that the stage trains on"
    )
    steps: Count = Field(description="steps of the optimiser")
    start: Literal["scratch", "previous", "parent"] = Field(
        "previous",
        description="network to begin with: a new one, that of the stage before, or "
        "that of the last generation",
    )
    weights: Literal["uniform", "bias", "scaled"] = Field(
        "uniform",
        description="weights of cheap frames: equal, or by their bias, plain or "
        "after the best common factor",
    )
    labels: Literal["plain", "scaled", "difference", "corrected"] = Field(
        "plain",
        description="labels as they are, or changed by what earlier stages learned",
    )
    mix: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="share of expensive frames in a step, with `on: both`"
    )
    loss: Literal["labels", "score"] = Field(
        "labels",
        description="errors of labels, or the score of where frames lie (`alloop "
        "train` alone)",
    )
    temperature: Positive | None = Field(
        None,
        description="temperature at which the frames were drawn, K, with `loss: score`",
    )
    noise: NotNegative = Field(
        0.0,
        description="width of the noise that smooths the frames, Å, with `loss: score`",
    )
    epochs: Count | None = Field(
        None, description="most passes through the frames; no limit by default"
    )
    patience: Count | None = Field(
        None,
        description="steps without a smaller validation error after which the stage "
        "ends; no limit by default",
    )
    every: Count | None = Field(
        None, description="steps between two validation errors; by default 100"
    )
    optimiser: Literal["muon", "adamw"] | None = Field(
        None, description="optimiser of the weight matrices; by default the section's"
    )
    lr: Positive | None = Field(
        None, description="peak learning rate; by default the section's"
    )
    batch: Count | None = Field(
        None, description="frames in a training step; by default the section's"
    )
    energy: Share | None = Field(
        None, description="weight of energies in the loss; by default the section's"
    )
    stress: NotNegative | None = Field(
        None, description="weight of the stress of cells; by default the section's"
    )
    norm: Literal["l1", "l2"] | None = Field(
        None,
        description="force loss: mean length of an atom's error (l2, the default) or "
        "mean of its components (l1)",
    )
    warmup: Whole | None = Field(
        None, description="steps until the peak learning rate; by default 50"
    )
    ema: Share | None = Field(
        None,
        description="decay of the running average of the weights, which is the "
        "result; by default 0.99",
    )
    clip: Positive | None = Field(
        None, description="largest norm of the gradient; by default 5"
    )
    decay: Literal["cosine", "wsd"] | None = Field(
        None,
        description="fall of the learning rate: cosine (the default), or wsd, which "
        "stays at the peak first",
    )
    hold: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="share of the steps at the peak, with `decay: wsd`; by default 0.8",
    )
    weight_decay: NotNegative | None = Field(
        None, description="decoupled weight decay of the matrices; by default 0"
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="factor of the learning rate from each layer to the one below "
        "it; by default 1",
    )

    @property
    def overrides(self) -> dict[str, Any]:
        """The keys of the schedule that this stage sets."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {k: v for k, v in values.items() if v is not None and k not in _STAGE}


class Stages(BiasWeighedSection):
    """A list of stages that the user defines."""

    kind: Literal["stages"]
    stages: Annotated[tuple[StageSection, ...], Loose] = Field(
        min_length=1,
        description="stages in their order; the last one's network is the result",
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
    | Annotated[TwoHeads, union_tag("two-heads")]
    | Annotated[Stages, union_tag("stages")],
    by_kind(),
]
