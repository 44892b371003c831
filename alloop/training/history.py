"""The history of a training as flat JSON: lists with one entry a stage, and curves."""

from typing import Any

from alloop.training.stage_runner import FinishedStage, StageRunner, TrainingState


def training_history(path: TrainingState, bench: StageRunner) -> dict[str, Any]:
    """Return the history of a training.

    Lists by stage: stages, steps, loss, validation (eV/Å or None), engine (how steps
    were computed), cpu_seconds. Where frames were weighted: bias (eV/Å, by cheap
    frame), gamma (eV/Å) and effective (share of the cheap frames). Curves:
    curve/STAGE/{step,loss,validation}. scale is in eV/Å.
    """
    out: dict[str, Any] = {
        "stages": [done.stage.name for done in path.done],
        "steps": [done.course.steps[-1] for done in path.done],
        "loss": [done.course.losses[-1] for done in path.done],
        "validation": [_last_error(done.course.validation) for done in path.done],
        "engine": [done.course.engine for done in path.done],
        "cpu_seconds": [done.cpu_seconds for done in path.done],
        "scale": bench.scale,
    }
    for done in path.done:
        out |= _weighing_facts(done) | _loss_curve(done)
    return out


def _weighing_facts(done: FinishedStage) -> dict[str, Any]:
    if done.weighing is None:
        return {}
    return {
        "bias": done.weighing.bias.tolist(),
        "gamma": done.weighing.gamma,
        "effective": done.weighing.effective,
    }


def _loss_curve(done: FinishedStage) -> dict[str, Any]:
    name = f"curve/{done.stage.name}"
    return {
        f"{name}/step": list(done.course.steps),
        f"{name}/loss": list(done.course.losses),
        f"{name}/validation": list(done.course.validation),
    }


def _last_error(errors: tuple[float, ...]) -> float | None:
    return errors[-1] if errors else None
