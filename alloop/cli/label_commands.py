"""The commands `label` and `atoms`: labels of frames or elements without a campaign."""

import shlex
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from alloop.cli.campaign_paths import Force
from alloop.cli.console import say
from alloop.cli.run_commands import RESUMABLE, Quiet, stop_event
from alloop.core.errors import Interrupted

if TYPE_CHECKING:
    from alloop.jobs.label_frames import LabelProgress
    from alloop.jobs.label_job import LabelJob


def label(  # noqa: PLR0913 - one for each option
    context: typer.Context,
    frames: Annotated[
        list[str],
        typer.Argument(help="files that ASE reads; `file.xyz@0:10` takes some of one"),
    ],
    level: Annotated[
        str, typer.Option(help="`b3lyp/def2-svp`, a YAML file, or a mapping in YAML")
    ],
    out: Annotated[Path, typer.Option(help="file.extxyz, file.xyz or file.db (ASE)")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="processes; one a core by default")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="folder of labels, shared with others")
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=1e-3, help="of one label, wall seconds")
    ] = 3600.0,
    memory_limit: Annotated[
        float, typer.Option(min=1.0, help="of one label, MB")
    ] = 8000.0,
    charge: Annotated[
        int | None, typer.Option(help="of every frame, e; the files' by default")
    ] = None,
    spin: Annotated[
        int | None, typer.Option(help="of every frame, 2S; the files' by default")
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="try what a limit or a crash cost again")
    ] = False,
    force: Force = False,
    quiet: Quiet = False,
) -> int:
    """Label frames at a level of theory: energies (eV) and forces (eV/Å).

    Ctrl-C and a kill are safe: the same command continues. Frames without a label are
    listed beside OUT; they do not change the exit code.
    """
    from alloop.config.load import parse_level
    from alloop.files.frames import read_frames
    from alloop.jobs.label_job import LabelJob
    from alloop.labels.child.labeller import Limits

    with stop_event() as asked:
        given = tuple(read_frames(frames, charge, spin))
        limits = Limits(seconds=time_limit, memory_mb=memory_limit)
        job = LabelJob(given, parse_level(level), out, limits, workers, cache, force)
        try:
            _carry_out(job, asked, retry, quiet)
        except (KeyboardInterrupt, Interrupted):
            say(f"stopped; go on with: {shlex.join(['alloop', *context.obj])}")
            return RESUMABLE
    return 0


def atoms(
    elements: Annotated[list[str], typer.Argument(help="chemical symbols: H C O")],
    level: Annotated[
        str, typer.Option(help="`b3lyp/def2-svp`, a YAML file, or a mapping in YAML")
    ],
) -> None:
    """Print energies (eV) of free atoms, for `references:` in `training:`."""
    from alloop.config.load import parse_level
    from alloop.core.atoms import atomic_numbers_of
    from alloop.labels.direct import DirectLabeller
    from alloop.labels.free_atoms import free_atom_energies

    labeller = DirectLabeller(parse_level(level))
    energies = free_atom_energies(labeller, atomic_numbers_of(elements))
    each = ", ".join(f"{name}: {energy:.6f}" for name, energy in energies.items())
    say(f"{{{each}}}")


def _carry_out(job: "LabelJob", asked: Event, retry: bool, quiet: bool) -> None:
    from alloop.cli.label_display import LabelDisplay, done_before, end_summary

    before = job.finished_failures(retry)
    if before is not None:
        for part in done_before(job, before):
            say(part)
        return
    job.check_request()
    with LabelDisplay(job.level.title, quiet) as display:

        def observe(progress: "LabelProgress") -> None:
            display.show_progress(progress)
            if asked.is_set():
                raise Interrupted("stopped")

        records = job.run(observe)
    for part in end_summary(job, records, display.last):
        say(part)
