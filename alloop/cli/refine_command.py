"""The command `refine`: a model made fit for frames unlike its training set."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from alloop.cli.campaign_paths import (
    CacheFolder,
    Force,
    FramesFile,
    ModelPath,
    Seed,
    TrainingFrames,
    Workers,
    open_campaign,
    setting_option,
    short_path,
)
from alloop.cli.console import Quiet, print_text, print_warning
from alloop.cli.diagnose_command import is_campaign, load_with_training
from alloop.core.errors import InputError
from alloop.refine.settings import TestTimeSettings

if TYPE_CHECKING:
    from alloop.cli.job_displays import ProgressDisplay
    from alloop.core.batch import Batch
    from alloop.core.records import LabelSet
    from alloop.files.labelled_frames import FileUnits
    from alloop.generation import Generation
    from alloop.history.reader import History
    from alloop.jobs.label_frames import LabelProgress
    from alloop.jobs.training_set import KnownFrames
    from alloop.refine.test_time import TestTimeLabels, TestTimeOutcome
    from alloop.training.fit import Progress

_DEFAULTS = TestTimeSettings()
_STAGES = {"head": "fitting a head", "test-time": "training on the cheap labels"}


ModelFile: TypeAlias = Annotated[Path, typer.Option(help="model file to write")]
CheapLevel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="train at test time with labels of the frames at this level, that of "
        "the model's cheap head: `gfn2-xtb`, a YAML file, or a YAML mapping"
    ),
]
Radius: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="radius of the network, Å, or `auto`: that at which the frames' "
        "graphs look most like those of the training"
    ),
]
HeldoutFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="expensive labels that must not get worse; any of the frames "
        "themselves are judged on their own too  [default: those of the store that "
        "the model was not trained on]"
    ),
]
ReplayFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="cheap labels of the training, to train on beside the new ones, and "
        "to fit a cheap head to where the model has none  [default: those of the "
        "store]"
    ),
]
ExpensiveFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="expensive labels of the training, to fit the expensive head to "
        "again  [default: those of the store]"
    ),
]
EnergyUnit: TypeAlias = Annotated[
    str, typer.Option(help="unit of energies in the files of labels")
]
LengthUnit: TypeAlias = Annotated[
    str, typer.Option(help="unit of lengths in the files of labels")
]
Worse: TypeAlias = Annotated[
    float,
    setting_option(
        TestTimeSettings,
        "worse",
        help="share by which the error on held-out labels may grow",
    ),
]
Steps: TypeAlias = Annotated[int, setting_option(TestTimeSettings, "steps")]


def refine(  # noqa: PLR0913 - one for each option
    model: ModelPath,
    frames: FramesFile,
    out: ModelFile,
    level: CheapLevel = None,
    radius: Radius = None,
    heldout: HeldoutFile = None,
    replay: ReplayFile = None,
    expensive: ExpensiveFile = None,
    energy_unit: EnergyUnit = "eV",
    length_unit: LengthUnit = "angstrom",
    worse: Worse = _DEFAULTS.worse,
    steps: Steps = _DEFAULTS.steps,
    training: TrainingFrames = None,
    workers: Workers = None,
    cache: CacheFolder = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Refine a model for frames unlike its training set, without expensive labels.

    With --level its representation takes gradient steps on cheap labels of the frames;
    with --radius the network ends at another distance, its weights unchanged. A model
    without a cheap head gets one first, fitted to cheap labels of its training. Nothing
    is written where the model stays as it is.
    """
    from alloop.files.labelled_frames import FileUnits
    from alloop.files.targets import MODELS, refuse_target
    from alloop.jobs.training_set import file_frames

    refuse_target(out, MODELS, force=force)
    _require_one_way(level, radius)
    generation, trained_on = _model_and_training(model, training, radius == "auto")
    batch = file_frames([frames])
    if radius is not None:
        _write_model(_with_radius(generation, radius, batch, trained_on), out)
        return
    units = FileUnits(energy_unit, length_unit)
    settings = TestTimeSettings(steps=steps, worse=worse, seed=seed)
    files = _LabelFiles(heldout, replay, expensive, units)
    work = _TestTimeWork(
        model,
        level=str(level),
        files=files,
        settings=settings,
        quiet=quiet,
        workers=workers,
        cache=cache,
    )
    _write_model(work.refine(generation, batch, trained_on), out)


def _require_one_way(level: str | None, radius: str | None) -> None:
    if (level is None) == (radius is None):
        raise InputError(
            "expected one way to refine the model: give `--level LEVEL` or `--radius "
            "auto`"
        )


def _model_and_training(
    model: Path, training: str | None, needed: bool
) -> "tuple[Generation, KnownFrames | None]":
    """Return the model, with its training frames where they are known or needed."""
    if needed or training is not None or is_campaign(model):
        return load_with_training(model, training)
    from alloop.generation import load

    return load(model), None


@dataclass(frozen=True, slots=True)
class _LabelFiles:
    """The files of labels that options name, and their units."""

    held_out: Path | None
    replay: Path | None
    expensive: Path | None
    units: "FileUnits"


@dataclass(frozen=True, slots=True)
class _TestTimeWork:
    """A training at test time as the options describe it.

    model: a file or a campaign. level: of the cheap labels, which `workers` processes
    make.
    """

    model: Path
    level: str
    files: _LabelFiles
    settings: TestTimeSettings
    workers: int | None
    cache: Path | None
    quiet: bool

    def refine(
        self,
        generation: "Generation",
        frames: "KnownFrames",
        trained_on: "KnownFrames | None",
    ) -> "Generation | None":
        """Return the refined model, None where it stays as it is; print its errors."""
        from alloop.cli.job_displays import ProgressDisplay
        from alloop.jobs.refine_job import refine_at_test_time
        from alloop.refine.test_time import (
            TestTimeLabels,
            require_elements,
            require_network,
        )

        require_elements(require_network(generation.potential), frames.batch)
        campaign = open_campaign(self.model) if is_campaign(self.model) else None
        history = None if campaign is None else campaign.history()
        held = _held_out(history, self.files)
        replayed, learned = _training_labels(history, self.files)
        _print_warnings(frames.batch, held, learned)
        with ProgressDisplay(self.quiet, "refine") as display:
            start = _with_two_heads(generation, replayed, self.settings, display)
            cheap = self._cheap_labels(history, frames, display)
            labels = TestTimeLabels(cheap, held, replayed, learned)
            trained = refine_at_test_time(
                start, labels, self.settings, trained_on, _shown_steps(display)
            )
        for line in _outcome_lines(start, labels, trained.outcome):
            print_text(line)
        return trained.generation

    def _cheap_labels(
        self,
        history: "History | None",
        frames: "KnownFrames",
        display: "ProgressDisplay",
    ) -> "LabelSet":
        """Return the labels of the frames at the level of the cheap head."""
        from alloop.cli.job_displays import label_progress_text
        from alloop.config.load import parse_level
        from alloop.jobs.refine_job import level_labels, require_cheap_level

        level = parse_level(self.level)
        if history is not None:
            require_cheap_level(history, level)

        def observe(progress: "LabelProgress") -> None:
            done = progress.known + progress.made
            text = label_progress_text(progress)
            display.show_progress(level.title, done, progress.frames, text)

        labels, notes = level_labels(
            frames.batch.frames(), level, self.workers, self.cache, observe
        )
        for note in notes:
            print_warning(note)
        return labels


def _held_out(history: "History | None", files: _LabelFiles) -> "LabelSet":
    """Return the expensive labels that must not get worse."""
    from alloop.jobs.refine_job import store_held_out

    if files.held_out is not None:
        return _file_labels(files.held_out, files.units)
    if history is None:
        raise InputError(
            "expected expensive labels that the model was not trained on, to see that "
            "they do not get worse: give `--heldout FILE`"
        )
    return store_held_out(history, history.state.generations.best)


def _training_labels(
    history: "History | None", files: _LabelFiles
) -> "tuple[LabelSet | None, LabelSet | None]":
    """Return the cheap and the expensive labels of the training, None if not known."""
    from alloop.jobs.refine_job import store_expensive, store_replay

    best = None if history is None else history.state.generations.best
    replay, expensive = (
        None if path is None else _file_labels(path, files.units)
        for path in (files.replay, files.expensive)
    )
    if history is not None and best is not None:
        replay = store_replay(history, best) if replay is None else replay
        expensive = store_expensive(history, best) if expensive is None else expensive
    return replay, expensive


def _file_labels(path: Path, units: "FileUnits") -> "LabelSet":
    """Return the labels of a file; print a warning where its units seem wrong."""
    from alloop.jobs.refine_job import file_labels

    labels, doubts = file_labels(path, units)
    for text in doubts:
        print_warning(text)
    return labels


def _print_warnings(
    batch: "Batch", held: "LabelSet", learned: "LabelSet | None"
) -> None:
    """Print warnings of what the held-out labels cannot show."""
    from alloop.refine.test_time import element_warnings, truth_warning

    unknown = truth_warning(batch, held)
    for text in (*element_warnings(batch, held, learned), *[unknown] * bool(unknown)):
        print_warning(str(text))


def _with_two_heads(
    model: "Generation",
    cheap: "LabelSet | None",
    settings: "TestTimeSettings",
    display: "ProgressDisplay",
) -> "Generation":
    """Return the model with a cheap head; print its error where it is a new one."""
    from alloop.core.prediction_errors import prediction_errors
    from alloop.refine.test_time import with_cheap_head
    from alloop.report.text.formatting import milli_text, plural

    potential = with_cheap_head(model.potential, cheap, settings, _shown_steps(display))
    if potential is not model.potential and cheap is not None:
        predictions = potential.cheap().predict(cheap.batch)
        error = prediction_errors(predictions, cheap).force_mae
        print_text(
            f"a cheap head was added, fitted to {plural(len(cheap), 'cheap label')} of "
            f"the training: force MAE on them {milli_text(error)} meV/Å"
        )
    return replace(model, potential=potential)


def _shown_steps(display: "ProgressDisplay") -> "Progress":
    """Return a function that shows the steps of a training."""
    from alloop.report.text.formatting import number_text

    def observe(stage: str, step: int, steps: int, loss: float) -> None:
        text = f"{step} of {steps}, loss {number_text(loss)}"
        display.show_progress(_STAGES.get(stage, stage), step, steps, text)

    return observe


def _outcome_lines(
    model: "Generation", labels: "TestTimeLabels", outcome: "TestTimeOutcome"
) -> list[str]:
    """Return the lines of errors before and after, and of the share that was kept."""
    from alloop.core.prediction_errors import prediction_errors
    from alloop.refine.test_time import known_truth
    from alloop.report.text.formatting import milli_text, plural

    rows = {
        "cheap labels of the frames": outcome.cheap,
        "held-out expensive labels": outcome.held,
    }
    lines = [
        f"{name}: force MAE {milli_text(before)} -> {milli_text(after)} meV/Å"
        for name, (before, after) in rows.items()
    ]
    truth = known_truth(labels.cheap.batch, labels.held_out)
    if len(truth):
        before, after = (
            prediction_errors(x.predict(truth.batch), truth)
            for x in (model.potential, outcome.potential)
        )
        lines.append(
            f"the frames themselves, {plural(len(truth), 'expensive label')}: force "
            f"MAE {milli_text(before.force_mae)} -> {milli_text(after.force_mae)} "
            f"meV/Å, energies less their mean error {milli_text(before.energy_spread)} "
            f"-> {milli_text(after.energy_spread)} meV"
        )
    if not outcome.kept:
        return [*lines, "held-out labels got worse: the training was rolled back"]
    return [*lines, f"{outcome.share:.0%} of the step kept"]


def _with_radius(
    model: "Generation",
    radius: str,
    frames: "KnownFrames",
    training: "KnownFrames | None",
) -> "Generation | None":
    """Return the model with the radius of an option, None where it stays as it is."""
    if radius == "auto" and training is not None:
        return _chosen_radius(model, frames, training)
    return _given_radius(model, radius, frames, training)


def _chosen_radius(
    model: "Generation", frames: "KnownFrames", training: "KnownFrames"
) -> "Generation | None":
    from alloop.jobs.refine_job import refine_radius

    refined = refine_radius(model, frames, training)
    choice = refined.choice
    print_text(f"{'radius, Å':>10} {'distance':>10}")
    for radius, distance in choice.distances.items():
        mark = "  trained" if radius == choice.trained else ""
        print_text(f"{radius:>10.3g} {distance:>10.3g}{mark}")
    verb = "becomes" if choice.changed else "stays"
    print_text(f"the radius {verb} {choice.radius:.3g} Å: {choice.why}")
    return refined.generation


def _given_radius(
    model: "Generation",
    radius: str,
    frames: "KnownFrames",
    training: "KnownFrames | None",
) -> "Generation":
    from alloop.jobs.refine_job import fixed_radius

    try:
        value = float(radius)
    except ValueError as error:
        raise InputError(
            f"expected `auto` or a radius in Å for `--radius`, got `{radius}`"
        ) from error
    return fixed_radius(model, value, frames, training)


def _write_model(refined: "Generation | None", out: Path) -> None:
    """Write the model to a file, unless it stays as it is."""
    if refined is None:
        print_text("nothing written")
        return
    from alloop.files.targets import replace_atomically
    from alloop.generation import to_bytes

    blob = to_bytes(refined)[1]
    with replace_atomically(out) as partial:
        partial.write_bytes(blob)
    if refined.scorer is None:
        print_text(
            "the model cannot tell its surprise: that takes its training frames "
            "(`--training FILE`)"
        )
    print_text(f"model: {short_path(out)}")
