"""The `training:` section: the training of a generation, and its reference energies."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from ase.data import atomic_numbers
from pydantic import BeforeValidator, Field

from alloop.config.sections.base import (
    Count,
    Loose,
    Positive,
    Section,
    by_kind,
    setting_key,
    union_tag,
)
from alloop.config.sections.data import Replay
from alloop.config.yaml_text import shown_value
from alloop.core.settings import settings_of
from alloop.loop.rules import Rules
from alloop.training.stages import (
    Adapters,
    Compile,
    Loss,
    Norm,
    Optimiser,
    Schedule,
    Source,
    Stage,
    Targets,
    Weights,
)
from alloop.training.stages import Start as StageStart


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


class References(Section):
    """The reference energy of each element at each level, given or fitted."""

    cheap: Energies = Field(
        "fitted",
        description="energy of each element at the cheap level, eV, or `fitted`",
    )
    expensive: Energies = Field(
        "fitted",
        description="energy of each element at the expensive level, eV, or `fitted`",
    )


Start: TypeAlias = Annotated[
    Literal["parent", "scratch"],
    Field(description="network to begin with: a new one, or the last generation's"),
]


class AdaptersSection(Section):
    """Low-rank adapters, which fine-tuning trains instead of a network's matrices."""

    rank: int = setting_key(Adapters, "rank")
    alpha: float = setting_key(Adapters, "alpha")


class OptimiserSection(Section):
    """The optimiser, the same in all stages, and the pace of generations."""

    every: int = setting_key(Rules, "every")
    staleness: int = setting_key(Rules, "staleness")
    last: float = setting_key(Rules, "last", default=4.0)
    optimiser: Optimiser | None = setting_key(
        Schedule,
        "optimiser",
        default=None,
        description="optimiser of the weight matrices (AdamW moves the rest); by "
        "default muon, or adamw from a universal potential",
    )
    lr: float | None = setting_key(
        Schedule,
        "lr",
        default=None,
        description="peak learning rate; by default 5e-3, or 3e-4 from a universal "
        "potential",
    )
    batch: int = setting_key(Schedule, "batch")
    energy: float = setting_key(
        Schedule,
        "energy",
        description="weight of energies in the loss; forces get the rest up to 1",
    )
    stress: float = setting_key(
        Schedule,
        "stress",
        description="weight of the stress of cells in the loss, beside 1 for energies "
        "and forces; without effect where labels have none",
    )
    ema: float = setting_key(Schedule, "ema")
    compile: Compile = setting_key(Schedule, "compile")
    references: References = References()
    replay: Replay | None = Field(
        None,
        description="frames of what a pretrained potential knows, which fine-tuning "
        "goes on learning; none by default",
    )
    dipoles: Literal[True] | None = Field(
        None,
        description="whether each generation learns the dipole moments that labels of "
        "HF, DFT and xTB have, read out of the network's features after its training; "
        "not by default",
    )
    adapters: AdaptersSection | None = Field(
        None,
        description="low-rank adapters (LoRA) of a universal potential, which are "
        "trained with its readouts instead of all weights; none by default",
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


def _schedule_key(key: str, default: str | None = None) -> Any:
    """Return the key of a stage for a setting of its schedule, with no value.

    default: what holds without a value, by default that of the schedule.
    """
    facts = settings_of(Schedule)[key].metadata
    value = facts["default"]
    if default is None and value is not None:
        default = value if isinstance(value, str) else f"{value:g}"
    end = "" if default is None else f"; by default {default}"
    text = f"{facts['description']}{end}"
    return setting_key(Schedule, key, default=None, description=text)


class StageSection(Section):
    """One stage of a list; keys that are left out take the values of the section."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[\w.-]+$")] = Field(
        description="name of the stage: letters, digits, `.`, `_` and `-`"
    )
    on: Source = Field(description="labels that the stage trains on")
    steps: Count = Field(description="steps of the optimiser")
    start: StageStart = setting_key(Stage, "start")
    weights: Weights = setting_key(Stage, "weights")
    labels: Targets = setting_key(Stage, "labels")
    mix: float = setting_key(Stage, "mix")
    loss: Loss = setting_key(Stage, "loss")
    temperature: Positive | None = Field(
        None,
        description="temperature at which the frames were drawn, K, with `loss: score`",
    )
    noise: float = setting_key(Stage, "noise")
    epochs: int | None = _schedule_key("epochs")
    patience: int | None = _schedule_key("patience")
    every: int | None = _schedule_key("every")
    optimiser: Optimiser | None = _schedule_key("optimiser", "the section's")
    lr: float | None = _schedule_key("lr", "the section's")
    batch: int | None = _schedule_key("batch", "the section's")
    energy: float | None = _schedule_key("energy", "the section's")
    stress: float | None = _schedule_key("stress", "the section's")
    norm: Norm | None = _schedule_key("norm")
    warmup: int | None = _schedule_key("warmup")
    ema: float | None = _schedule_key("ema", "the section's")
    clip: float | None = _schedule_key("clip")
    decay: Literal["cosine", "wsd"] | None = _schedule_key("decay")
    hold: float | None = _schedule_key("hold")
    weight_decay: float | None = _schedule_key("weight_decay")
    layer_decay: float | None = _schedule_key("layer_decay")

    @property
    def overrides(self) -> dict[str, Any]:
        """The keys of the schedule that this stage sets."""
        values = {key: getattr(self, key, None) for key in settings_of(Schedule)}
        return {key: x for key, x in values.items() if x is not None}


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
