"""The command `md`: molecular dynamics with a trained model."""

import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from alloop.cli.campaign_paths import Force, existing_path, open_campaign, short_path
from alloop.cli.console import out as terminal
from alloop.cli.console import say
from alloop.cli.run_commands import RESUMABLE, Quiet, stop_event
from alloop.core.errors import Interrupted

if TYPE_CHECKING:
    from alloop.core.records import Walker
    from alloop.core.species import Domain
    from alloop.generation import Generation
    from alloop.jobs.md_job import MDProgress, MDRun

_EVERY = 30.0  # s between two lines where there is no terminal
_LONG = 5000  # MD steps from which compiling pays


def md(  # noqa: PLR0913 - one for each option
    context: typer.Context,
    model: Annotated[
        Path, typer.Argument(help="a model file, a store, or the campaign's YAML file")
    ],
    start: Annotated[
        str,
        typer.Argument(help="file that ASE reads, or some of it: `a.xyz@0:10`"),
    ],
    out: Annotated[
        Path, typer.Option(help="trajectory: file.extxyz, .xyz, .traj or .db")
    ],
    steps: Annotated[int, typer.Option(min=1, help="MD steps of each walker")] = 10000,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="of thermostat and start, K")
    ] = 300.0,
    timestep: Annotated[float, typer.Option(min=1e-3, help="fs")] = 0.5,
    walkers: Annotated[
        int, typer.Option(min=1, help="side by side, on the start structures in turn")
    ] = 1,
    every: Annotated[
        int, typer.Option(min=1, help="MD steps between two written frames")
    ] = 10,
    kind: Annotated[
        str, typer.Option(help="langevin, with a thermostat, or verlet, NVE")
    ] = "langevin",
    friction: Annotated[float, typer.Option(min=0.0, help="1/fs")] = 0.01,
    surprise: Annotated[
        float | None,
        typer.Option(help="a walker stops above so many times the threshold"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of all random numbers")] = 0,
    compile_: Annotated[
        Literal["auto", "on", "off"],
        typer.Option("--compile", help=f"force calls; auto: from {_LONG} steps on"),
    ] = "auto",
    force: Force = False,
    outside: Annotated[
        bool,
        typer.Option(
            "--outside",
            help="also charges, spins and compositions that it was not trained on",
        ),
    ] = False,
    quiet: Quiet = False,
) -> int:
    """Move walkers with a trained model: energies, forces and surprise as they go.

    Ctrl-C and a kill are safe: the same command continues, also with more steps. Guard
    rails stop a walker before it breaks; that does not change the exit code.
    """
    from alloop.config.build import named_integrator
    from alloop.files.frames import read_frames
    from alloop.jobs.md_job import MDRun
    from alloop.md.dynamics import DynamicsSettings
    from alloop.md.guards import Guards

    found, domain = _load_generation(model)
    walk = MDRun(
        model=found,
        start=[given.frame for given in read_frames([start])],
        dynamics=DynamicsSettings(
            named_integrator(kind, {"friction": friction}),
            temperature,
            timestep,
            every,
            guards=Guards(surprise=surprise),
        ),
        steps=steps,
        walkers=walkers,
        out=out,
        seed=seed,
        compile=compile_ == "on" or (compile_ == "auto" and steps >= _LONG),
        force=force,
        domain=domain,
        outside=outside,
    )
    with stop_event() as asked:
        try:
            ended = _run_with_display(walk, asked, quiet)
        except (KeyboardInterrupt, Interrupted):
            say(f"stopped; go on with: {shlex.join(['alloop', *context.obj])}")
            return RESUMABLE
    for line in _end_summary(walk, ended):
        say(line)
    return 0


def _load_generation(place: Path) -> "tuple[Generation, Domain | None]":
    """Return the model of a file, or the best one of a store, with its domain."""
    from alloop.generation import load

    yaml = place.suffix in (".yaml", ".yml")
    if existing_path(place).is_dir() or yaml:
        campaign = open_campaign(place)
        model = campaign.model()
        return model, campaign.domain(model)
    model = load(place)
    return model, model.domain


def _run_with_display(walk: "MDRun", asked: Event, quiet: bool) -> "list[Walker]":
    """Run the MD with a bar on a terminal, occasional lines elsewhere."""
    console = Console(quiet=True) if quiet else terminal()
    hidden = not console.is_terminal
    columns = (TextColumn("MD"), BarColumn(24), TextColumn("{task.fields[state]}"))
    said = time.monotonic()
    with Bar(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=walk.steps, state="")

        def observe(progress: "MDProgress") -> None:
            nonlocal said
            text = progress_text(progress)
            bar.update(task, completed=progress.done, state=text)
            if hidden and not quiet and time.monotonic() - said > _EVERY:
                said = time.monotonic()
                say(f"MD: {text}")
            if asked.is_set():
                raise Interrupted("stopped")

        return walk.run(observe)


def progress_text(progress: "MDProgress") -> str:
    """Return the progress as text.

    An example is `2000 of 10000 steps, 8 of 8 walkers moving, 640 walker-steps/s, 12 s
    left`.
    """
    from alloop.report.text.formatting import duration_text, plural

    rate = progress.taken / max(progress.seconds, 1e-9)
    left = (progress.steps - progress.done) / max(rate, 1e-9)
    parts = [
        f"{progress.done} of {progress.steps} steps",
        f"{progress.moving} of {plural(progress.walkers, 'walker')} moving",
        f"{rate * progress.moving:.3g} walker-steps/s",
    ]
    return ", ".join([*parts, f"{duration_text(left)} left"])


def _end_summary(walk: "MDRun", found: "list[Walker]") -> Iterator[str]:
    from alloop.report.text.formatting import plural

    yield from walk.notes
    stopped = [walker for walker in found if walker.stopped is not None]
    for walker in stopped:
        yield f"walker {walker.index} stopped at step {walker.step}: {walker.stopped}"
    whole = plural(len(found) - len(stopped), "walker")
    yield f"{short_path(walk.out)}: {whole} of {len(found)} walked to the end"
