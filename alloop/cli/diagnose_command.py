"""The command `diagnose`: how far frames lie from what a model was trained on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from alloop.cli.campaign_paths import (
    Force,
    FramesFile,
    ModelOrLevel,
    TrainingFrames,
    existing_path,
    open_campaign,
    short_path,
    tell_generation,
)
from alloop.cli.console import (
    AsJson,
    Quiet,
    output_closed,
    print_error,
    print_json,
    print_text,
)
from alloop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alloop.core.levels import Level
    from alloop.files.frames import GivenStructure
    from alloop.generation import Generation
    from alloop.jobs.diagnose_job import Diagnosis
    from alloop.jobs.training_set import KnownFrames

_ROW = "{:>7} {:<14} {:>12} {:>12} {:>12}  {}"


Radius: TypeAlias = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        max=20.0,
        help="distance of neighbours in the graphs, Å  [default: the model's cutoff]",
    ),
]
Quantile: TypeAlias = Annotated[
    float,
    typer.Option(
        min=0.5,
        max=0.9999,
        help="quantile of the training frames beyond which a frame is out",
    ),
]
PageFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="HTML file to write  [default: FRAMES with .shifts.html]"),
]


def diagnose(  # noqa: PLR0913 - one for each option
    model: ModelOrLevel,
    frames: FramesFile,
    training: TrainingFrames = None,
    radius: Radius = None,
    quantile: Quantile = 0.99,
    out: PageFile = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show how far frames lie from a model's training set, and by which shift.

    Features (elements and surroundings of atoms), force norms and connectivity are
    given in standard deviations of the training frames. With --json, each line is the
    JSON object of a frame; with --quiet only the sums are shown.
    """
    from alloop.files.frames import read_sound_frames
    from alloop.files.targets import PAGES, refuse_target
    from alloop.jobs.diagnose_job import diagnose as diagnosed_shifts
    from alloop.jobs.training_set import known_frames
    from alloop.report.sections.page import write_page
    from alloop.report.sections.shift_report import shift_page

    page = out or _beside(frames)
    refuse_target(page, PAGES, force=force or out is None)
    structures = read_sound_frames([frames])
    generation, compared = _compared_model(model, training, structures)
    diagnosis = diagnosed_shifts(
        generation.potential, compared, known_frames(structures), radius, quantile
    )
    if as_json:
        _print_objects(diagnosis)
    elif not quiet:
        _print_rows(diagnosis)
    drawn = tuple(x.frame for x in structures)
    write_page(shift_page(diagnosis, drawn, Path(frames).name), page)
    if not as_json:
        _print_sums(diagnosis, page)


def _compared_model(
    model: str, training: str | None, structures: "Sequence[GivenStructure]"
) -> "tuple[Generation, KnownFrames]":
    """Return a model or a level, with the frames to compare with."""
    from alloop.jobs.level_model import named_level

    level = named_level(model)
    if level is None:
        return load_with_training(Path(model), training)
    return _level_with_training(level, training, structures)


def load_with_training(
    model: Path, training: str | None
) -> "tuple[Generation, KnownFrames]":
    """Return a model with the frames it was trained on, of its store or of a file.

    Raises InputError for a model file without such a file.
    """
    from alloop.generation import load
    from alloop.jobs.training_set import file_frames, store_training_set

    if not is_campaign(model):
        generation_of_file = load(model)
        if training is None:
            raise InputError(
                f"expected the frames that {model} was trained on, a model file does "
                "not hold them: give `--training FILE`"
            )
        return generation_of_file, file_frames([training])
    campaign = open_campaign(model)
    generation = campaign.model()
    tell_generation(campaign)
    if training is not None:
        return generation, file_frames([training])
    history = campaign.history()
    return generation, store_training_set(history, history.state.generations.best)


def _level_with_training(
    level: "Level", training: str | None, structures: "Sequence[GivenStructure]"
) -> "tuple[Generation, KnownFrames]":
    """Return a level as a model, with frames of a file to compare with."""
    from alloop.jobs.level_model import level_model
    from alloop.jobs.training_set import file_frames

    if training is None:
        raise InputError(
            f"expected frames to compare with, {level.title} has no training set of "
            "its own: give `--training FILE`"
        )
    training_frames = file_frames([training])
    frames = [
        *training_frames.batch.frames(),
        *(structure.frame for structure in structures),
    ]
    elements = [int(z) for z in {*training_frames.batch.numbers.tolist()}]
    return level_model(level, frames, elements), training_frames


def is_campaign(model: Path) -> bool:
    """Return True for a store or a campaign's file, False for a model file."""
    return existing_path(model).is_dir() or model.suffix in (".yaml", ".yml")


def _beside(frames: str) -> Path:
    """Return the page's place, beside the file that a source names."""
    name, at, _ = frames.rpartition("@")
    file = Path(frames if Path(frames).exists() or not at else name)
    return file.with_suffix(".shifts.html")


def _print_objects(diagnosis: "Diagnosis") -> None:
    for frame in range(len(diagnosis.formulas)):
        print_json(diagnosis.frame_facts(frame), indent=None)
        if output_closed():
            return


def _print_rows(diagnosis: "Diagnosis") -> None:
    from alloop.jobs.diagnose_job import deviation_texts
    from alloop.refine.shifts import SHIFTS

    print_text(
        _ROW.format("frame", "formula", *(f"{x}, σ" for x in SHIFTS), "out by")
        .replace("connectivity, σ", "connect., σ")
        .rstrip()
    )
    for frame, formula in enumerate(diagnosis.formulas):
        texts = deviation_texts(diagnosis.shifts, frame)
        by = ", ".join(diagnosis.shifts.out_by(frame)) or "–"
        print_text(_ROW.format(frame, formula, *texts, by))
        if output_closed():
            return


def _print_sums(diagnosis: "Diagnosis", page: Path) -> None:
    from alloop.core.atoms import chemical_symbol
    from alloop.report.sections.shift_report import shift_sentence

    for note in diagnosis.notes():
        print_error(f"note: {note}")
    print_text(shift_sentence(diagnosis))
    parts = (
        f"{chemical_symbol(x.number)} {x.out:.0%}"
        for x in diagnosis.shifts.elements
        if x.out > 0.0
    )
    atoms = ", ".join(parts)
    if atoms:
        print_text(f"atoms out by features: {atoms}")
    print_text(
        f"compared with {diagnosis.training.trained} training frames; forces of the "
        f"{diagnosis.source}, graphs within {diagnosis.radius:g} Å"
    )
    print_text(f"page: {short_path(page)}")
