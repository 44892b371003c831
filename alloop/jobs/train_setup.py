"""Preparation of training jobs from YAML files, stores or sections; and `train`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alloop.config.sections.training import BiasWeighedSection
from alloop.config.supplied_sets import read_replay, replays
from alloop.config.train_sections import training_plan
from alloop.jobs.train_data import HeldOutShares, read_material
from alloop.jobs.train_job import TrainedModel, TrainJob
from alloop.training.fit import Progress

_VALIDATION = 0.1  # default share of the expensive frames


def prepare_training(
    source: str | Path | Mapping[str, Any],
    out: str | Path,
    validation: float | None = None,
    test_share: float = 0.0,
) -> TrainJob:
    """Return the training that a YAML file, a store or a mapping of sections describes.

    Arguments are those of `train`. Creates no files; raises InputError for errors in
    the sections and their labels.
    """
    sections = source if isinstance(source, Mapping) else read_sections(Path(source))
    plan, model = training_plan(dict(sections))
    own = (
        plan.training.validation
        if isinstance(plan.training, BiasWeighedSection)
        else 0.0
    )
    share = own or _VALIDATION if validation is None else validation
    shares = HeldOutShares(share, test_share)
    replay = read_replay(plan, Path())[0] if replays(plan) else None
    return TrainJob(plan, read_material(plan, shares), shares, Path(out), model, replay)


def read_sections(path: Path) -> dict[str, Any]:
    """Return the sections that a YAML file or a store stands for."""
    if path.is_dir():
        store = {"store": str(path)}
        return {"start": [store], "test": store}
    return {"extends": [str(path)]}


def train(
    source: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    validation: float | None = None,
    test_share: float = 0.0,
    force: bool = False,
    observe: Progress | None = None,
) -> TrainedModel:
    """Train a potential on existing labels; write a model file and its history.

    Parameters
    ----------
    source
        A YAML file, a campaign's store, or sections as in
        `alloop.config.train_sections`.
    out
        The model file, which `alloop.load` opens; its history goes to `out`.json.
    validation
        Share of the expensive frames for validation; by default that of the `training`
        section, or a tenth.
    test_share
        Share of the expensive frames for a test at the end, if no test set is given.
    force
        Replace existing files.
    observe
        Called with stage, step, steps and mean loss; an exception in it ends the
        training.

    Raises InputError for errors in the sections, the labels or `out`.
    """
    job = prepare_training(source, out, validation, test_share)
    job.check_request(force)
    return job.run(observe or _ignore_progress)


def _ignore_progress(_stage: str, _step: int, _steps: int, _loss: float) -> None:
    pass
