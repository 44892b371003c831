"""The command `refine`: a model made fit for frames unlike its training set."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alloop.cli.campaign_paths import (
    Force,
    FramesFile,
    ModelPath,
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

_STAGES = {"head": "fitting a head", "test-time": "training on the cheap labels"}


def refine(  # noqa: PLR0913 - one for each option
    model: ModelPath,
    frames: FramesFile,
    out: Annotated[Path, typer.Option(help="model file to write")],
    level: Annotated[
        str | None,
        typer.Option(
            help="train at test time with labels of the frames at this level, that of "
            "the model's cheap head: `gfn2-xtb`, a YAML file, or a YAML mapping"
        ),
    ] = None,
    radius: Annotated[
        str | None,
        typer.Option(
            help="radius of the network, Å, or `auto`: that at which the frames' "
            "graphs look most like those of the training"
        ),
    ] = None,
    heldout: Annotated[
        Path | None,
        typer.Option(
            help="expensive labels that must not get worse; any of the frames "
            "themselves are judged on their own too  [default: those of the store that "
            "the model was not trained on]"
        ),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="cheap labels of the training, to train on beside the new ones, and "
            "to fit a cheap head to where the model has none  [default: those of the "
            "store]"
        ),
    ] = None,
    expensive: Annotated[
        Path | None,
        typer.Option(
            help="expensive labels of the training, to fit the expensive head to "
            "again  [default: those of the store]"
        ),
    ] = None,
    energy_unit: Annotated[
        str, typer.Option(help="unit of energies in the files of labels")
    ] = "eV",
    length_unit: Annotated[
        str, typer.Option(help="unit of lengths in the files of labels")
    ] = "angstrom",
    worse: Annotated[
        float,
        setting_option(
            TestTimeSettings,
            "worse",
            help="share by which the error on held-out labels may grow",
        ),
    ] = TestTimeSettings().worse,
    steps: Annotated[
        int, setting_option(TestTimeSettings, "steps")
    ] = TestTimeSettings().steps,
    training: Annotated[
        str | None,
        typer.Option(
            help="file of the frames that the model was trained on  [default: those "
            "of the store]"
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="processes for labels  [default: one per core]"),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="label cache, a folder that commands share")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of all random numbers")] = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Refine a model for frames unlike its training set, without expensive labels.

    With --level its representation takes gradient steps on cheap labels of the frames;
    with --radius the network ends at another distance, its weights unchanged. A model
    without a cheap head gets one first, fitted to cheap labels of its training. Nothing
    is written where the model stays as it is.
    """
    from alloop.cli.job_displays import ProgressDisplay
    from alloop.files.labelled_frames import FileUnits
    from alloop.files.targets import MODELS, refuse_target
    from alloop.jobs.refine_job import refine_at_test_time
    from alloop.jobs.training_set import file_frames
    from alloop.refine.test_time import (
        TestTimeLabels,
        require_elements,
        require_network,
    )

    refuse_target(out, MODELS, force=force)
    if (level is None) == (radius is None):
        raise InputError(
            "expected one way to refine the model: give `--level LEVEL` or `--radius "
            "auto`"
        )
    found, known = _model_and_training(model, training, needed=radius == "auto")
    given = file_frames([frames])
    if level is not None:
        units = FileUnits(energy_unit, length_unit)
        settings = TestTimeSettings(steps=steps, worse=worse, seed=seed)
        require_elements(require_network(found.potential), given.batch)
        history = open_campaign(model).history() if is_campaign(model) else None
        held = _held_out(history, heldout, units)
        replayed, learned = _training_labels(history, replay, expensive, units)
        _print_warnings(given.batch, held, learned)
        with ProgressDisplay(quiet, "refine") as display:
            whole = _with_two_heads(found, replayed, settings, display)
            cheap = _cheap_labels(history, level, given, (workers, cache), display)
            labels = TestTimeLabels(cheap, held, replayed, learned)
            trained = refine_at_test_time(
                whole, labels, settings, known, _shown_steps(display)
            )
        for line in _outcome_lines(whole, labels, trained.outcome):
            print_text(line)
        refined = trained.generation
    elif radius == "auto" and known is not None:
        refined = _chosen_radius(found, given, known)
    else:
        refined = _given_radius(found, str(radius), given, known)
    if refined is None:
        print_text("nothing written")
        return
    _write_model(refined, out)


def _model_and_training(
    model: Path, training: str | None, needed: bool
) -> "tuple[Generation, KnownFrames | None]":
    """Return the model, with its training frames where they are known or needed."""
    if needed or training is not None or is_campaign(model):
        return load_with_training(model, training)
    from alloop.generation import load

    return load(model), None


def _held_out(
    history: "History | None", heldout: Path | None, units: "FileUnits"
) -> "LabelSet":
    """Return the expensive labels that must not get worse."""
    from alloop.jobs.refine_job import store_held_out

    if heldout is not None:
        return _file_labels(heldout, units)
    if history is None:
        raise InputError(
            "expected expensive labels that the model was not trained on, to see that "
            "they do not get worse: give `--heldout FILE`"
        )
    return store_held_out(history, history.state.generations.best)


def _training_labels(
    history: "History | None",
    replay: Path | None,
    expensive: Path | None,
    units: "FileUnits",
) -> "tuple[LabelSet | None, LabelSet | None]":
    """Return the cheap and the expensive labels of the training, None if not known."""
    from alloop.jobs.refine_job import store_expensive, store_replay

    best = None if history is None else history.state.generations.best
    cheap = None if replay is None else _file_labels(replay, units)
    costly = None if expensive is None else _file_labels(expensive, units)
    if history is not None and best is not None:
        cheap = store_replay(history, best) if cheap is None else cheap
        costly = store_expensive(history, best) if costly is None else costly
    return cheap, costly


def _file_labels(path: Path, units: "FileUnits") -> "LabelSet":
    """Return the labels of a file; print what does not seem right about its units."""
    from alloop.jobs.refine_job import file_labels

    labels, doubts = file_labels(path, units)
    for text in doubts:
        print_warning(text)
    return labels


def _print_warnings(
    batch: "Batch", held: "LabelSet", learned: "LabelSet | None"
) -> None:
    """Print what the held-out labels will not show."""
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

    own = with_cheap_head(model.potential, cheap, settings, _shown_steps(display))
    if own is not model.potential and cheap is not None:
        error = prediction_errors(own.cheap().predict(cheap.batch), cheap).force_mae
        print_text(
            f"a cheap head was added, fitted to {plural(len(cheap), 'cheap label')} of "
            f"the training: force MAE on them {milli_text(error)} meV/Å"
        )
    return replace(model, potential=own)


def _shown_steps(display: "ProgressDisplay") -> "Progress":
    """Return a function that shows the steps of a training."""
    from alloop.report.text.formatting import number_text

    def observe(stage: str, step: int, steps: int, loss: float) -> None:
        text = f"{step} of {steps}, loss {number_text(loss)}"
        display.show_progress(_STAGES.get(stage, stage), step, steps, text)

    return observe


def _cheap_labels(
    history: "History | None",
    level: str,
    frames: "KnownFrames",
    made_by: tuple[int | None, Path | None],
    display: "ProgressDisplay",
) -> "LabelSet":
    """Return the labels of the frames at the level of the cheap head.

    made_by: the number of processes, and the cache.
    """
    from alloop.cli.job_displays import label_progress_text
    from alloop.config.load import parse_level
    from alloop.jobs.refine_job import level_labels, require_cheap_level

    chosen = parse_level(level)
    if history is not None:
        require_cheap_level(history, chosen)

    def observe(progress: "LabelProgress") -> None:
        done = progress.known + progress.made
        text = label_progress_text(progress)
        display.show_progress(chosen.title, done, progress.frames, text)

    labels, notes = level_labels(frames.batch.frames(), chosen, *made_by, observe)
    for note in notes:
        print_warning(note)
    return labels


def _outcome_lines(
    model: "Generation", labels: "TestTimeLabels", outcome: "TestTimeOutcome"
) -> list[str]:
    """Return the errors before and after, and what was kept."""
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
    own = known_truth(labels.cheap.batch, labels.held_out)
    if len(own):
        before, after = (
            prediction_errors(x.predict(own.batch), own)
            for x in (model.potential, outcome.potential)
        )
        lines.append(
            f"the frames themselves, {plural(len(own), 'expensive label')}: force MAE "
            f"{milli_text(before.force_mae)} -> {milli_text(after.force_mae)} meV/Å, "
            f"energies less their mean error {milli_text(before.energy_spread)} -> "
            f"{milli_text(after.energy_spread)} meV"
        )
    if not outcome.kept:
        return [*lines, "held-out labels got worse: the training was rolled back"]
    return [*lines, f"{outcome.share:.0%} of the step kept"]


def _chosen_radius(
    model: "Generation", frames: "KnownFrames", training: "KnownFrames"
) -> "Generation | None":
    from alloop.jobs.refine_job import refine_radius

    found = refine_radius(model, frames, training)
    choice = found.choice
    print_text(f"{'radius, Å':>10} {'distance':>10}")
    for each, distance in choice.distances.items():
        mark = "  trained" if each == choice.trained else ""
        print_text(f"{each:>10.3g} {distance:>10.3g}{mark}")
    verb = "becomes" if choice.changed else "stays"
    print_text(f"the radius {verb} {choice.radius:.3g} Å: {choice.why}")
    return found.generation


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


def _write_model(refined: "Generation", out: Path) -> None:
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
