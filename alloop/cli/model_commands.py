"""The commands `train` and `md`: a model from labels, and MD with a model."""

import shlex
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from alloop.cli.campaign_paths import (
    Force,
    ModelOrLevel,
    existing_path,
    load_model_or_level,
    short_path,
)
from alloop.cli.console import Quiet, print_error, print_text
from alloop.cli.exit_codes import FRUITLESS, RESUMABLE
from alloop.cli.interrupts import stop_event
from alloop.core.errors import InputError, Interrupted

if TYPE_CHECKING:
    from alloop.config.yaml_text import Tree
    from alloop.core.records import Walker
    from alloop.jobs.md_job import MDProgress, MDRun
    from alloop.jobs.train_job import TrainJob


def train(  # noqa: PLR0913 - one for each option
    context: typer.Context,
    out: Annotated[
        Path, typer.Option(help="model file to write; OUT.json holds the history")
    ],
    config: Annotated[
        Path | None,
        typer.Argument(help="YAML file (`start:`, `training:`, ...), or a store"),
    ] = None,
    expensive: Annotated[
        list[Path] | None,
        typer.Option(help="expensive labels: extxyz, npz or ASE database"),
    ] = None,
    cheap: Annotated[
        list[Path] | None,
        typer.Option(help="cheap labels: extxyz, npz or ASE database"),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="test set: labels that are never learned from")
    ] = None,
    test_share: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.9,
            help="share of the expensive labels to test on, without --test",
        ),
    ] = 0.0,
    validation: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.9,
            help="chance of each expensive label to be held out for validation"
            "  [default: 0.1]",
        ),
    ] = None,
    energy_unit: Annotated[
        str | None,
        typer.Option(help="unit of energies in the files: eV, hartree, kcal/mol, ..."),
    ] = None,
    length_unit: Annotated[
        str | None,
        typer.Option(help="unit of lengths in the files: angstrom, bohr, nm"),
    ] = None,
    potential: Annotated[
        str | None,
        typer.Option(help="potential: `painn`, a YAML mapping, or a YAML file"),
    ] = None,
    training: Annotated[
        str | None,
        typer.Option(help="training: `asteroid`, a YAML mapping, or a YAML file"),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="steps, batch and learning rates that are not given: `quick`, "
            "`standard` or `best`  [default: by the number of labels]"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="seed of all random numbers")
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> int:
    """Train a potential on labels and write a model file.

    Options override the YAML file. After Ctrl-C or a kill the same command continues.
    Errors are in meV and meV/Å. A test file may hold energies alone, such as a scan.
    """
    from alloop.jobs.train_data import LabelFiles
    from alloop.jobs.train_job import prepare_training

    files = LabelFiles(expensive or [], cheap or [], test, energy_unit, length_unit)
    sections = _section_tree(config, potential, training, seed)
    with stop_event() as asked:
        try:
            job = prepare_training(
                {**sections, **files.tree()}, out, validation, test_share, preset
            )
            if job.done():
                print_text(
                    f"{short_path(out)} exists already, made from these labels and "
                    "options"
                )
                return 0
            job.check_request(force)
            _train_with_display(job, asked, quiet)
        except KeyboardInterrupt:
            print_text(
                f"stopped; continue with: {shlex.join(['alloop', *context.obj])}"
            )
            return RESUMABLE
    return 0


def _section_tree(
    config: Path | None, potential: str | None, training: str | None, seed: int | None
) -> dict[str, Any]:
    """Return the training sections of the file, overridden by the options."""
    from alloop.config.train_sections import parse_section
    from alloop.jobs.train_job import read_sections

    found: dict[str, Any] = (
        {} if config is None else read_sections(existing_path(config))
    )
    overrides = [
        *([] if potential is None else [parse_section("potential", potential)]),
        *([] if training is None else [parse_section("training", training)]),
        *([] if seed is None else [{"seed": seed}]),
    ]
    extends = [x for part in (found, *overrides) for x in part.get("extends", [])]
    whole = {key: value for part in (found, *overrides) for key, value in part.items()}
    return {**whole, "extends": extends}


def _train_with_display(job: "TrainJob", asked: Event, quiet: bool) -> None:
    from alloop.cli.job_displays import ProgressDisplay, train_outline, train_summary
    from alloop.report.text.formatting import number_text

    for line in () if quiet else train_outline(job):
        print_text(line)
    for warning in job.material.warnings:
        print_error(f"warning: {warning}")
    kind = job.plan.potential.kind
    with ProgressDisplay(quiet, kind, seconds=5.0, stages=True) as display:

        def observe(stage: str, step: int, steps: int, loss: float) -> None:
            text = f"{step} of {steps}, loss {number_text(loss)}"
            display.show_progress(stage, step, steps, text)
            if asked.is_set():
                raise KeyboardInterrupt

        trained = job.run(observe)
    for part in train_summary(job, trained):
        print_text(part)


_LONG = 5000  # MD steps from which compiling pays


def md(  # noqa: PLR0913 - one for each option
    context: typer.Context,
    model: ModelOrLevel,
    start: Annotated[
        str,
        typer.Argument(help="file that ASE reads; `a.xyz@0:10` reads frames 0 to 9"),
    ],
    out: Annotated[
        Path,
        typer.Option(help="trajectory to write: .extxyz, .xyz, .traj or .db (ASE)"),
    ],
    steps: Annotated[int, typer.Option(min=1, help="MD steps of each walker")] = 10000,
    temperature: Annotated[
        float,
        typer.Option(min=0.0, help="temperature of thermostat and first velocities, K"),
    ] = 300.0,
    timestep: Annotated[float, typer.Option(help="time step of MD, fs")] = 0.5,
    walkers: Annotated[
        int,
        typer.Option(min=1, help="number of walkers, on the start structures in turn"),
    ] = 1,
    every: Annotated[
        int, typer.Option(min=1, help="MD steps between two written frames")
    ] = 10,
    kind: Annotated[
        str, typer.Option(help="integrator: langevin (thermostat) or verlet (NVE)")
    ] = "langevin",
    friction: Annotated[
        float, typer.Option(help="friction of the thermostat, 1/fs")
    ] = 0.01,
    pressure: Annotated[
        float | None,
        typer.Option(help="pressure of cells, GPa  [default: constant cells]"),
    ] = None,
    cell: Annotated[
        Literal["isotropic", "anisotropic"],
        typer.Option(help="with --pressure: keep the cell's shape, or change it too"),
    ] = "isotropic",
    surprise: Annotated[
        float | None,
        typer.Option(
            help="stop a walker above this multiple of the surprise threshold"
        ),
    ] = None,
    guards: Annotated[
        str | None,
        typer.Option(
            help="limits at which a walker stops, as in campaign files: "
            "`{bond: null, force: 50}`"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of all random numbers")] = 0,
    compile_: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(
            "--compile", help=f"compile force calls; auto: from {_LONG} steps on"
        ),
    ] = "auto",
    device: Annotated[
        Literal["cpu", "cuda", "auto"],
        typer.Option(help="where a trained model and its walkers are; auto: a card"),
    ] = "cpu",
    force: Force = False,
    outside: Annotated[
        bool,
        typer.Option(
            "--outside",
            help="allow charges, spins and compositions outside the training set",
        ),
    ] = False,
    quiet: Quiet = False,
) -> int:
    """Run molecular dynamics with a trained model, or at a level of theory.

    Energies, forces and surprise are written with each frame. After Ctrl-C or a kill
    the same command continues, also with more steps. Guard rails stop a walker before
    it breaks; where they stop all, the exit code is 1.
    """
    from alloop.cli.job_displays import md_summary
    from alloop.config.build import md_settings
    from alloop.files.frames import read_sound_frames
    from alloop.files.targets import refuse_target
    from alloop.jobs.md_job import KINDS, MDRun

    refuse_target(out, KINDS, taken=False)
    limits = _guard_limits(guards, surprise)
    options = {"kind": kind, "timestep": timestep, "stride": every, "guards": limits}
    if pressure is not None:
        options["pressure"] = pressure
    if kind == "langevin":
        options |= {"friction": friction, "barostat": {"cell": cell}}
    dynamics = md_settings(options, temperature)
    frames = [given.frame for given in read_sound_frames([start])]
    found, domain, level = load_model_or_level(model, frames)
    md_run = MDRun(
        model=found,
        start=frames,
        dynamics=dynamics,
        steps=steps,
        walkers=walkers,
        out=out,
        seed=seed,
        compile=compile_ == "on" or (compile_ == "auto" and steps >= _LONG),
        device=device,
        force=force,
        domain=domain,
        outside=outside or level,
    )
    with stop_event() as asked:
        try:
            ended = _run_with_display(md_run, asked, quiet)
        except (KeyboardInterrupt, Interrupted):
            print_text(
                f"stopped; continue with: {shlex.join(['alloop', *context.obj])}"
            )
            return RESUMABLE
    for line in md_summary(md_run, ended):
        print_text(line)
    return 0 if any(walker.stopped is None for walker in ended) else FRUITLESS


def _guard_limits(text: str | None, surprise: float | None) -> "Tree":
    """Return the keys of `guards:` that the options set."""
    from alloop.config.yaml_text import parse_yaml

    limits = {} if text is None else parse_yaml(text, "--guards")
    if surprise is None:
        return limits
    if "surprise" in limits:
        raise InputError(
            "expected the guard of surprise once, got --surprise and --guards; leave "
            "one out"
        )
    return {**limits, "surprise": surprise}


def _run_with_display(md_run: "MDRun", asked: Event, quiet: bool) -> "list[Walker]":
    from alloop.cli.job_displays import ProgressDisplay, md_progress_text

    with ProgressDisplay(quiet) as display:

        def observe(progress: "MDProgress") -> None:
            text = md_progress_text(progress)
            display.show_progress("MD", progress.done, progress.steps, text)
            if asked.is_set():
                raise Interrupted("stopped")

        return md_run.run(observe)
