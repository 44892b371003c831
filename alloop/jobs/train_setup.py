"""Preparation of training jobs from YAML files, stores or sections; and `train`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alloop.config.sections.training import BiasWeighedSection
from alloop.config.starting_data import read_replay, replays
from alloop.config.train_sections import (
    chosen_preset,
    preset_name,
    training_plan,
    with_preset,
)
from alloop.jobs.train_data import HeldOutShares, read_material
from alloop.jobs.train_job import TrainedModel, TrainJob
from alloop.training.fit import Progress

_VALIDATION = 0.1  # default share of the expensive frames


def prepare_training(
    source: str | Path | Mapping[str, Any],
    out: str | Path,
    validation: float | None = None,
    test_share: float = 0.0,
    preset: str | None = None,
) -> TrainJob:
    """Return the training that a YAML file, a store or a mapping of sections describes.

    Arguments are those of `train`. Creates no files; raises InputError for errors in
    the sections and their labels.
    """
    wanted = preset_name(preset)
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
    data = read_material(plan, shares)
    labels = len(data.expensive)
    chosen = wanted or chosen_preset(plan, len(data.cheap), labels)
    if chosen is not None:
        plan = with_preset(plan, chosen, labels)
    return TrainJob(
        plan=plan,
        material=data,
        shares=shares,
        out=Path(out),
        model=model,
        replay=replay,
        preset=chosen,
    )


def read_sections(path: Path) -> dict[str, Any]:
    """Return the sections that a YAML file or a store stands for."""
    if path.is_dir():
        store = {"store": str(path)}
        return {"start": [store], "test": store}
    return {"extends": [str(path)]}


def train(  # noqa: PLR0913 - one keyword for each option of the command
    source: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    validation: float | None = None,
    test_share: float = 0.0,
    preset: str | None = None,
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
    preset
        "quick", "standard" or "best": steps, batch and learning rates that `source`
        does not set; by default chosen by the number of labels.
    force
        Replace existing files.
    observe
        Called with stage, step, steps and mean loss; an exception in it ends the
        training.

    Raises InputError for errors in the sections, the labels or `out`.
    """
    job = prepare_training(source, out, validation, test_share, preset)
    job.check_request(force)
    return job.run(observe or _ignore_progress)


def _ignore_progress(_stage: str, _step: int, _steps: int, _loss: float) -> None:
    pass
