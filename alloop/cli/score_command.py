"""The command `score`: surprise and limits of errors of frames that the user brings."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import isinf, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from alloop.cli.campaign_paths import (
    Force,
    FramesFile,
    ModelOption,
    StoreOption,
    load_generation,
    one_place,
    short_path,
)
from alloop.cli.console import (
    AsJson,
    Quiet,
    busy_line,
    output_closed,
    print_error,
    print_json,
    print_text,
)

if TYPE_CHECKING:
    from alloop.core.error_limits import ErrorLimits
    from alloop.generation import Generation
    from alloop.jobs.score_job import ScoredFrame

_KINDS = (".extxyz", ".xyz")
_ROW = "{:>7} {:<14} {:>14} {:>10} {:>11}  {}"
_BUSY = 100  # frames between two changes of the progress line


ErrorLimit: TypeAlias = Annotated[
    float | None,
    typer.Option(
        min=1e-6,
        help="flag frames whose largest force error may be above this, eV/Å  "
        "[default: those above the surprise threshold]",
    ),
]
ScoredFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="extxyz file to write: the frames with their scores"),
]


def score(  # noqa: PLR0913 - one for each option
    frames: FramesFile,
    store: StoreOption = None,
    model: ModelOption = None,
    error: ErrorLimit = None,
    out: ScoredFile = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show how far a model is off, at most, on frames: trusted, flagged or outside.

    The limit is one of the largest force error on an atom, eV/Å; `outside` is a
    composition, charge or spin that the model was not trained on. With --json, each
    line is the JSON object of a frame; with --quiet only the sums are shown.
    """
    from alloop.files.frames import iterate_frames
    from alloop.files.targets import refuse_target
    from alloop.generation import UNKNOWN
    from alloop.jobs.score_job import FrameScores

    place = one_place(store, model)
    if out is not None:
        refuse_target(out, _KINDS, force=force)
    generation, domain = load_generation(place)
    scores = FrameScores(generation, domain, error)
    if domain is None:
        print_error(f"warning: {UNKNOWN}")
    scored = scores.score(iterate_frames(frames))
    if as_json:
        shown = _print_objects(scored)
    else:
        shown = _show_progress(scored) if quiet else _print_rows(scored)
    with _written(out, shown) as all_frames:
        counts = Counter(frame.verdict for frame in all_frames)
    if not as_json:
        print_text(_sums(counts, generation))
        if out is not None:
            print_text(f"frames: {short_path(out)}")


def _print_rows(scored: "Iterable[ScoredFrame]") -> "Iterator[ScoredFrame]":
    head = ("frame", "formula", "energy, eV", "surprise", "limit, eV/Å", "verdict")
    for number, frame in enumerate(scored):
        if number == 0:
            print_text(_ROW.format(*head))
        numbers = ((frame.energy, ".4f"), (frame.surprise, ".3g"))
        texts = ["–" if isnan(x) else format(x, form) for x, form in numbers]
        values = (*texts, _limit_text(frame))
        print_text(_ROW.format(frame.number, frame.formula, *values, frame.verdict))
        yield frame
        if output_closed():
            return


def _limit_text(frame: "ScoredFrame") -> str:
    limit = frame.error_limit
    if isinf(limit):
        return "none"
    return "–" if isnan(limit) else f"{limit:.3g}"


def _print_objects(scored: "Iterable[ScoredFrame]") -> "Iterator[ScoredFrame]":
    for frame in scored:
        print_json(frame.facts(), indent=None)
        yield frame
        if output_closed():
            return


def _show_progress(scored: "Iterable[ScoredFrame]") -> "Iterator[ScoredFrame]":
    with busy_line("reading the first frames") as update:
        for number, frame in enumerate(scored, 1):
            if number % _BUSY == 0:
                update(f"{number} frames scored")
            yield frame


@contextmanager
def _written(
    out: Path | None, scored: "Iterable[ScoredFrame]"
) -> "Iterator[Iterator[ScoredFrame]]":
    """Yield the frames; write each to the file once it has been taken."""
    from alloop.files.targets import replace_atomically

    if out is None:
        yield iter(scored)
        return
    from ase.io import write

    with (
        replace_atomically(out) as partial,
        partial.open("w", encoding="utf-8") as file,
    ):

        def writing() -> "Iterator[ScoredFrame]":
            for frame in scored:
                write(file, frame.scored_atoms(), format="extxyz")
                yield frame

        yield writing()


def _sums(counts: Counter[str], model: "Generation") -> str:
    """Return the number of frames of each verdict, and what the limits promise."""
    from alloop.jobs.score_job import VERDICTS
    from alloop.report.text.formatting import plural

    shown = ", ".join(f"{counts[word]} {word}" for word in VERDICTS)
    text = f"{plural(counts.total(), 'frame')}: {shown}"
    limits = model.error_limits
    if limits is None:
        return f"{text}; the model has no limits of its errors"
    controls = plural(limits.controls, "control frame")
    also = f" and {controls} of MD" if limits.controls else ""
    return (
        f"{text}; limits hold for {limits.coverage:.0%} of frames like the "
        f"{limits.frames}{also} that they were made from{_examined_text(limits)}; "
        "the promise is not for flagged or outside frames"
    )


def _examined_text(limits: "ErrorLimits") -> str:
    """Return how often limits held in the examination, empty where it is not known."""
    if not limits.examined:
        return ", MD at the cheap level or frames of your own: none was tested by MD"
    return (
        f", {limits.examined} of them MD on the model (of {limits.told} that had a "
        f"limit before their labels {limits.held} erred by less)"
    )
