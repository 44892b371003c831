"""Checks that a `training:` section can be carried out."""

from collections.abc import Iterator, Sequence

from alloop.config.sections.data import Replay, Sampled
from alloop.config.sections.flag import CommitteeFlag, DescriptorFlag
from alloop.config.sections.plan import Plan
from alloop.config.sections.potentials import (
    Pairwise,
    Ready,
    universal_weights,
)
from alloop.config.sections.training import (
    Asteroid,
    BiasWeighedSection,
    OptimiserSection,
    Stages,
    StageSection,
    Standard,
    TwoHeads,
)
from alloop.config.yaml_text import Problem
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.labels.levels import gives_dipoles
from alloop.models.settings import HEADED, is_pretrained
from alloop.scores.soap import missing_dscribe


def training_problems(plan: Plan) -> Iterator[Problem]:
    """Yield problems with the stages, missing levels and missing validation frames."""
    training = plan.training
    if isinstance(training, Stages):
        yield from stage_problems(training.stages)
        if isinstance(plan.potential, Pairwise):
            text = (
                "pair functions are solved, not stepped; choose `asteroid` or a network"
            )
            yield Problem("training.kind", text)
    if isinstance(training, TwoHeads):
        yield from _two_head_problems(plan)
    yield from _tuning_problems(plan)
    yield from _missing_packages(plan)
    if plan.levels.cheap is None:
        yield from _without_cheap(training)
    if isinstance(training, Asteroid) and training.bias == "none":
        yield from _gamma_problems(training)
    elif isinstance(training, BiasWeighedSection) and training.validation == 0:
        yield from _validation_problems(training)


def _two_head_problems(plan: Plan) -> Iterator[Problem]:
    if plan.potential.kind not in (*HEADED, "file"):
        text = f"two heads need a network of kind {' or '.join(HEADED)}"
        yield Problem("training.kind", text)
    if plan.budget.split == "measured":
        text = "short trainings on one level alone have no two heads; leave it out"
        yield Problem("budget.split", text)


def energy_problems(plan: Plan) -> Iterator[Problem]:
    """Yield problems with sections that need forces of a level which has none."""
    cheap, has_forces = plan.levels.cheap, plan.levels.expensive.build().has_forces
    if cheap is not None and not cheap.build().has_forces:
        text = "forces are learned from cheap labels first; only the expensive level"
        yield Problem("levels.cheap", f"{text} may do without")
    if has_forces:
        return
    start = plan.potential.kind == "file" or is_pretrained(_network_kind(plan))
    if isinstance(plan.potential, Pairwise):
        text = "pair functions are solved for forces, and the expensive level has none"
        yield Problem("potential.kind", f"{text}; choose a network")
    elif isinstance(plan.training, Standard) or (cheap is None and not start):
        yield Problem(
            "levels.expensive",
            "a new network learns no forces from energies alone; give `levels.cheap` "
            "and another `training:` than standard, or a universal `potential:`",
        )
    weighted = isinstance(plan.training, Asteroid) and plan.training.bias != "none"
    unmet = {
        "training.bias": plan.training if weighted else None,
        "refine": plan.refine,
        "flag.error": plan.flag.error,
        "stop.target": plan.stop.build().target,
    }
    for key, value in unmet.items():
        if value is not None:
            text = "it compares forces, and the expensive level has none; leave it out"
            yield Problem(key, text)


def refine_problems(plan: Plan) -> Iterator[Problem]:
    """Yield problems with sections that the refinement of generations needs."""
    training, validation = plan.training, plan.validation
    if plan.refine is None:
        return
    if plan.levels.cheap is None or not plan.budget.cheap:
        text = "it takes cheap labels of flagged frames, and there are none; leave it "
        yield Problem("refine", f"{text}out, or give `levels.cheap` and `budget.cheap`")
    if not isinstance(training, TwoHeads):
        kind = "none" if training is None else f"`{training.kind}`"
        text = "expected `training: {kind: two-heads}`, whose cheap head it needs, got"
        yield Problem("refine", f"{text} {kind}")
    if training is not None and training.staleness:
        text = "expected 0 with `refine`, since MD waits for each refinement, got"
        yield Problem("training.staleness", f"{text} {training.staleness}")
    if plan.explore.protocol != "periodic":
        text = "expected `periodic` with `refine`: by other protocols MD never runs on "
        yield Problem("explore.protocol", f"{text}a refined generation")
    if isinstance(validation, Sampled) and validation.frames == 0:
        text = (
            "expected validation frames with `refine`, which must not get worse, got 0"
        )
        yield Problem("validation.frames", text)
    if isinstance(plan.flag, CommitteeFlag):
        text = "a committee is trained anew for each generation, so that `refine` saves"
        yield Problem("flag.kind", f"{text} nothing; choose another, such as leverage")


def _tuning_problems(plan: Plan) -> Iterator[Problem]:
    training = plan.training
    if training is not None and training.replay is not None:
        yield from _replay_problems(plan, training.replay)
    if training is not None and training.adapters is not None:
        yield from _adapter_problems(plan)
    if training is not None and training.dipoles:
        yield from _dipole_problems(plan)


def _dipole_problems(plan: Plan) -> Iterator[Problem]:
    kind = _network_kind(plan)
    if kind == "pairwise":
        text = "expected a network, whose features dipoles are read out of, got pair "
        yield Problem("training.dipoles", f"{text}functions; leave this out")
    elif isinstance(plan.training, TwoHeads):
        text = "two heads have no readout of dipoles; choose another kind of training"
        yield Problem("training.dipoles", text)
    levels = [level for level in (plan.levels.cheap, plan.levels.expensive) if level]
    if not any(gives_dipoles(level.build()) for level in levels):
        text = "expected a level of HF, DFT or xTB, whose labels have dipoles, got none"
        yield Problem("training.dipoles", f"{text} of them; leave this out")


def _replay_problems(plan: Plan, replay: Replay) -> Iterator[Problem]:
    kind = _network_kind(plan)
    ready = isinstance(plan.potential, Ready) and kind != "pairwise"
    if not (is_pretrained(kind) or ready):
        text = (
            f"expected a pretrained network that could forget, got `{kind}`; "
            "choose a universal potential or a model file, or leave it out"
        )
        yield Problem("training.replay", text)
    elif isinstance(plan.training, TwoHeads):
        text = "two heads are not fine-tuned with it; choose another kind of training"
        yield Problem("training.replay", text)
    elif replay.head == "own" and not is_pretrained(kind):
        text = f"expected `shared`, since {kind} is no universal potential, got `own`"
        yield Problem("training.replay.head", text)


def _adapter_problems(plan: Plan) -> Iterator[Problem]:
    kind = _network_kind(plan)
    freeze = getattr(plan.potential, "freeze", "nothing")
    if not is_pretrained(kind):
        text = (
            f"expected a universal potential, whose weights adapters leave as they "
            f"are, got `{kind}`; leave them out"
        )
        yield Problem("training.adapters", text)
    elif isinstance(plan.training, TwoHeads):
        text = "two heads are not fine-tuned by it; choose another kind of training"
        yield Problem("training.adapters", text)
    if freeze != "nothing":
        text = (
            "with `training: adapters` all matrices stay as they are; leave this "
            f"`{freeze}` out, or the adapters"
        )
        yield Problem("potential.freeze", text)


def _network_kind(plan: Plan) -> str:
    """Return the kind of the network, of a model file that of its own."""
    kind = plan.potential.kind
    if isinstance(plan.potential, Ready):
        kind = str((plan.potential.network or {}).get("kind") or kind)
    return kind


def _missing_packages(plan: Plan) -> Iterator[Problem]:
    weights = universal_weights(plan.potential)
    if weights is not None and (missing := weights.missing()):
        yield Problem("potential.kind", missing)
    soap = isinstance(plan.flag, DescriptorFlag) and plan.flag.descriptors == "soap"
    if soap and (missing := missing_dscribe()):
        yield Problem("flag.descriptors", missing)


def coverage_problems(plan: Plan, start: Sequence[Frame]) -> list[Problem]:
    """Return a problem for frames that a universal potential is not made for."""
    weights = universal_weights(plan.potential)
    text = None if weights is None else weights.refusal(pack_frames(start))
    return [Problem("potential.kind", text)] if text else []


def score_problems(plan: Plan) -> Iterator[Problem]:
    """Yield a problem for each stage with `loss: score`.

    A campaign's frames are drawn by its own model, from which no score can be learned.
    """
    stages = plan.training.stages if isinstance(plan.training, Stages) else ()
    for index, stage in enumerate(stages):
        if stage.loss == "score":
            text = (
                "a campaign's frames are drawn by its own model, from which no score "
                "can be learned; use `alloop train` on MD of a level of theory"
            )
            yield Problem(f"training.stages.{index}.loss", text)


def reference_problems(
    training: OptimiserSection | None, elements: Sequence[str]
) -> list[Problem]:
    """Return problems for elements without a given reference energy."""
    if training is None:
        return []
    problems = []
    for fidelity in ("cheap", "expensive"):
        energies = getattr(training.references, fidelity)
        missing = (
            [] if energies == "fitted" else [x for x in elements if x not in energies]
        )
        if missing:
            text = f"expected an energy in eV for {', '.join(missing)} too, or `fitted`"
            problems.append(Problem(f"training.references.{fidelity}", text))
    return problems


def stage_problems(stages: Sequence[StageSection]) -> Iterator[Problem]:
    """Yield problems for stages that need others before them which are not there."""
    for index, stage in enumerate(stages):
        path, before = f"training.stages.{index}", stages[:index]
        if any(stage.name == other.name for other in before):
            text = f"another stage is called `{stage.name}`; choose another name"
            yield Problem(f"{path}.name", text)
        yield from _weight_problems(stage, before, path)
        yield from _label_problems(stage, before, path)
        yield from _loss_problems(stage, path)
    if stages[-1].labels == "difference":
        text = "the last stage makes the result, which is no difference; add another"
        yield Problem(f"training.stages.{len(stages) - 1}.labels", text)


def _weight_problems(
    stage: StageSection, before: Sequence[StageSection], path: str
) -> Iterator[Problem]:
    if stage.weights == "uniform":
        return
    if stage.on == "expensive":
        text = f"`{stage.weights}` weighs cheap labels; leave it out `on: expensive`"
        yield Problem(f"{path}.weights", text)
    elif not _teacher_stages(before):
        text = f"`{stage.weights}` needs a stage `on: expensive` before this one"
        yield Problem(f"{path}.weights", text)


def _label_problems(
    stage: StageSection, before: Sequence[StageSection], path: str
) -> Iterator[Problem]:
    place = f"{path}.labels"
    pupils = [x for x in before if x.on == "cheap" and x.labels != "corrected"]
    if stage.labels == "plain":
        return
    if (stage.on == "expensive") != (stage.labels == "difference"):
        fits = "expensive" if stage.labels == "difference" else "cheap` or `on: both"
        yield Problem(place, f"`{stage.labels}` goes with `on: {fits}`")
    elif stage.labels != "scaled" and not pupils:
        yield Problem(place, f"`{stage.labels}` needs a stage `on: cheap` before it")
    elif stage.labels == "corrected" and not (
        _teacher_stages(before) or _label_changes(before)
    ):
        text = "`corrected` needs a stage `on: expensive` before it"
        yield Problem(place, text)
    elif stage.labels == "scaled" and not _teacher_stages(before):
        yield Problem(place, "`scaled` needs a stage `on: expensive` before it")


def _loss_problems(stage: StageSection, path: str) -> Iterator[Problem]:
    if stage.loss == "labels":
        if stage.temperature is not None:
            text = "goes with `loss: score`; leave it out, or add that"
            yield Problem(f"{path}.temperature", text)
        return
    if stage.temperature is None:
        text = "expected the K that the frames were drawn at, got none; add it"
        yield Problem(f"{path}.temperature", text)
    for name, default in (("weights", "uniform"), ("labels", "plain")):
        if getattr(stage, name) != default:
            text = f"`loss: score` learns from no labels; leave `{name}` out"
            yield Problem(f"{path}.{name}", text)


def _teacher_stages(stages: Sequence[StageSection]) -> list[StageSection]:
    return [x for x in stages if x.on != "cheap" and x.labels != "difference"]


def _label_changes(stages: Sequence[StageSection]) -> list[StageSection]:
    return [x for x in stages if x.labels == "difference"]


def _without_cheap(training: OptimiserSection | None) -> Iterator[Problem]:
    missing = "`levels.cheap` is missing; add it"
    if isinstance(training, Asteroid | TwoHeads):
        yield Problem("training.kind", f"{missing}, or choose `standard`")
    if isinstance(training, Stages):
        for index, stage in enumerate(training.stages):
            if stage.on != "expensive":
                text = f"{missing}, or train `on: expensive`"
                yield Problem(f"training.stages.{index}.on", text)


def _gamma_problems(training: Asteroid) -> Iterator[Problem]:
    """Yield problems for settings of weights if no weights are used."""
    for name in ("gamma", "least"):
        if getattr(training, name) != Asteroid.model_fields[name].default:
            text = "without weights it says nothing; leave it out, or add `bias: plain`"
            yield Problem(f"training.{name}", text)


def _validation_problems(training: BiasWeighedSection) -> Iterator[Problem]:
    """Yield problems for settings that need held-out frames if there are none."""
    text = "expected a share above 0 to"
    if (count := len(training.gamma)) > 1:
        yield Problem("training.validation", f"{text} choose among {count} gammas")
    stages = training.stages if isinstance(training, Stages) else ()
    for stage in stages:
        if stage.patience is not None:
            why = f"take the errors of `patience` on, in stage {stage.name}"
            yield Problem("training.validation", f"{text} {why}")
