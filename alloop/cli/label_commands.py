"""The commands `label` and `atoms`: labels of frames or elements without a campaign."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from alloop.cli.campaign_paths import (
    CacheFolder,
    Force,
    Workers,
)
from alloop.cli.console import Quiet, print_text
from alloop.cli.exits import RESUMABLE, stop_event
from alloop.core.errors import InputError, Interrupted

if TYPE_CHECKING:
    from ase import Atoms

    from alloop.jobs.label_job import LabelJob

_STATES = 5  # different charges and multiplicities that are listed


FramesFiles: TypeAlias = Annotated[
    list[str],
    typer.Argument(help="files that ASE reads; `file.xyz@0:10` reads frames 0 to 9"),
]
LevelText: TypeAlias = Annotated[
    str,
    typer.Option(help="level: `b3lyp/def2-svp`, a YAML file, or a YAML mapping"),
]
LabelFile: TypeAlias = Annotated[
    Path, typer.Option(help="file to write: .extxyz, .xyz or .db (ASE)")
]
TimeLimit: TypeAlias = Annotated[
    float, typer.Option(min=1e-3, help="wall seconds for one label")
]
MemoryLimit: TypeAlias = Annotated[
    float, typer.Option(min=1.0, help="MB for one label")
]
Charge: TypeAlias = Annotated[
    int | None,
    typer.Option(help="charge of every frame, e  [default: from the files]"),
]
Spin: TypeAlias = Annotated[
    int | None,
    typer.Option(help="spin of every frame, 2S  [default: from the files]"),
]
Multiplicity: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="2S + 1 of every frame, in place of --spin"),
]
Retry: TypeAlias = Annotated[
    bool,
    typer.Option("--retry", help="try labels again that failed by a limit or a crash"),
]


def label(  # noqa: PLR0913 - one for each option
    context: typer.Context,
    frames: FramesFiles,
    level: LevelText,
    out: LabelFile,
    workers: Workers = None,
    cache: CacheFolder = None,
    time_limit: TimeLimit = 3600.0,
    memory_limit: MemoryLimit = 8000.0,
    charge: Charge = None,
    spin: Spin = None,
    multiplicity: Multiplicity = None,
    retry: Retry = False,
    force: Force = False,
    quiet: Quiet = False,
) -> int:
    """Compute energies (eV) and forces (eV/Å) of frames.

    After Ctrl-C or a kill the same command continues. Failed frames are listed in a
    file beside OUT; they do not change the exit code, unless all fail.
    """
    from alloop.config.load import parse_level
    from alloop.files.frames import read_frames
    from alloop.jobs.label_job import LabelJob
    from alloop.labels.child.labeller import Limits

    with stop_event() as stopping:
        unpaired = spin_option(spin, multiplicity)
        structures = tuple(read_frames(frames, charge, unpaired))
        _print_states([x.atoms for x in structures], charge, unpaired)
        job = LabelJob(
            given=structures,
            level=parse_level(level),
            out=out,
            limits=Limits(seconds=time_limit, memory_mb=memory_limit),
            workers=workers,
            cache=cache,
            force=force,
        )
        try:
            _label_with_display(job, stopping, retry, quiet)
        except (KeyboardInterrupt, Interrupted) as stop:
            again = shlex.join(["alloop", *context.obj])
            print_text(f"{str(stop) or 'stopped'}; continue with: {again}")
            return RESUMABLE
    return 0


def spin_option(spin: int | None, multiplicity: int | None) -> int | None:
    """Return 2S from one of two options; raise InputError where both are given."""
    if spin is not None and multiplicity is not None:
        raise InputError(
            "expected --spin (2S) or --multiplicity (2S + 1), got both; leave one out"
        )
    return spin if multiplicity is None else multiplicity - 1


def _print_states(
    structures: "Sequence[Atoms]", charge: int | None, spin: int | None
) -> None:
    """Print the charges and multiplicities that were read, and of how many frames."""
    from alloop.core.atoms import electronic_state
    from alloop.core.text import plural

    states = Counter(str(electronic_state(x, charge, spin)) for x in structures)
    for state, count in states.most_common(_STATES):
        print_text(f"{plural(count, 'frame')}: {state}")
    if len(states) > _STATES:
        print_text(f"and {len(states) - _STATES} more charges and multiplicities")


def atoms(
    elements: Annotated[list[str], typer.Argument(help="chemical symbols: H C O")],
    level: LevelText,
) -> None:
    """Print energies of free atoms, eV.

    They fit into `references:` of the section `training:`.
    """
    from alloop.config.load import parse_level
    from alloop.core.atoms import atomic_numbers_of
    from alloop.labels.child.labeller import IsolatedLabeller
    from alloop.labels.free_atoms import free_atom_energies

    with IsolatedLabeller(parse_level(level)) as labeller:
        energies = free_atom_energies(labeller, atomic_numbers_of(elements))
    pairs = ", ".join(f"{name}: {energy:.6f}" for name, energy in energies.items())
    print_text(f"{{{pairs}}}")


def _label_with_display(
    job: "LabelJob", stopping: Event, retry: bool, quiet: bool
) -> None:
    from alloop.cli import job_displays
    from alloop.core.records import Label
    from alloop.core.text import plural
    from alloop.jobs.label_frames import LabelProgress

    before = job.finished_failures(retry)
    if before is not None:
        for part in job_displays.finished_label_summary(job, before):
            print_text(part)
        return
    job.check_request()
    title, last = job.level.title, [LabelProgress(0)]
    with job_displays.ProgressDisplay(quiet) as display:
        display.show_progress(title, 0, None, "")

        def observe(progress: LabelProgress) -> None:
            last[0] = progress
            done = progress.known + progress.made
            text = job_displays.label_progress_text(progress)
            display.show_progress(title, done, progress.frames, text)
            if stopping.is_set():
                raise Interrupted("stopped")

        records = job.run(observe)
    for part in job_displays.label_summary(job, records, last[0]):
        print_text(part)
    if not any(isinstance(record, Label) for record in records):
        raise InputError(
            f"expected a label, {plural(len(records), 'frame')} got none, as listed "
            "above; mend the frames, the level or the limits"
        )
