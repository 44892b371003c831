"""The commands `train` and `md`: a model from labels, and MD with a model."""

import shlex
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from alloop.cli.campaign_paths import (
    Force,
    ModelOrLevel,
    Seed,
    existing_path,
    load_model_or_level,
    short_path,
)
from alloop.cli.console import Quiet, print_error, print_text, print_warning
from alloop.cli.exits import FRUITLESS, RESUMABLE, stop_event
from alloop.core.errors import InputError, Interrupted

if TYPE_CHECKING:
    from alloop.config.yaml_text import Tree
    from alloop.core.records import Walker
    from alloop.jobs.md_job import MDProgress, MDRun
    from alloop.jobs.train_job import TrainJob


ModelFile: TypeAlias = Annotated[
    Path, typer.Option(help="model file to write; OUT.json holds the history")
]
ConfigFile: TypeAlias = Annotated[
    Path | None,
    typer.Argument(help="YAML file (`start:`, `training:`, ...), or a store"),
]
ExpensiveFiles: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(help="expensive labels: extxyz, npz or ASE database"),
]
CheapFiles: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(help="cheap labels: extxyz, npz or ASE database"),
]
TestFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="test set: labels that are never learned from")
]
TestShare: TypeAlias = Annotated[
    float,
    typer.Option(
        min=0,
        max=0.9,
        help="share of the expensive labels to test on, without --test",
    ),
]
ValidationShare: TypeAlias = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=0.9,
        help="chance of each expensive label to be held out for validation"
        "  [default: 0.1]",
    ),
]
EnergyUnit: TypeAlias = Annotated[
    str | None,
    typer.Option(help="unit of energies in the files: eV, hartree, kcal/mol, ..."),
]
LengthUnit: TypeAlias = Annotated[
    str | None,
    typer.Option(help="unit of lengths in the files: angstrom, bohr, nm"),
]
PotentialText: TypeAlias = Annotated[
    str | None,
    typer.Option(help="potential: `painn`, a YAML mapping, or a YAML file"),
]
TrainingText: TypeAlias = Annotated[
    str | None,
    typer.Option(help="training: `asteroid`, a YAML mapping, or a YAML file"),
]
Preset: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="steps, batch and learning rates that are not given: `quick`, "
        "`standard` or `best`  [default: by the number of labels]"
    ),
]
SeedOrNone: TypeAlias = Annotated[
    int | None, typer.Option(min=0, help="seed of all random numbers")
]


def train(  # noqa: PLR0913 - one for each option
    context: typer.Context,
    out: ModelFile,
    config: ConfigFile = None,
    expensive: ExpensiveFiles = None,
    cheap: CheapFiles = None,
    test: TestFile = None,
    test_share: TestShare = 0.0,
    validation: ValidationShare = None,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    potential: PotentialText = None,
    training: TrainingText = None,
    preset: Preset = None,
    seed: SeedOrNone = None,
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
    with stop_event() as stopping:
        try:
            sections |= files.tree()
            job = prepare_training(sections, out, validation, test_share, preset)
            _train_if_needed(job, stopping, force=force, quiet=quiet)
        except KeyboardInterrupt:
            return _stopped(context)
    return 0


def _stopped(context: typer.Context) -> int:
    again = shlex.join(["alloop", *context.obj])
    print_text(f"stopped; continue with: {again}")
    return RESUMABLE


def _section_tree(
    config: Path | None, potential: str | None, training: str | None, seed: int | None
) -> dict[str, Any]:
    """Return the training sections of the file, overridden by the options."""
    from alloop.config.train_sections import parse_section
    from alloop.jobs.train_job import read_sections

    sections: dict[str, Any] = (
        {} if config is None else read_sections(existing_path(config))
    )
    overrides = [
        *([] if potential is None else [parse_section("potential", potential)]),
        *([] if training is None else [parse_section("training", training)]),
        *([] if seed is None else [{"seed": seed}]),
    ]
    parts = (sections, *overrides)
    extends = [x for part in parts for x in part.get("extends", [])]
    tree = {key: value for part in parts for key, value in part.items()}
    return {**tree, "extends": extends}


def _train_if_needed(
    job: "TrainJob", stopping: Event, *, force: bool, quiet: bool
) -> None:
    """Train with a live display, unless the model file is there already."""
    if job.done():
        print_text(
            f"{short_path(job.out)} exists already, made from these labels and options"
        )
        return
    job.check_request(force)
    _train_with_display(job, stopping, quiet)


def _train_with_display(job: "TrainJob", stopping: Event, quiet: bool) -> None:
    from alloop.cli.job_displays import (
        ProgressDisplay,
        starting_table,
        train_outline,
        train_summary,
    )
    from alloop.report.text.formatting import number_text

    for line in () if quiet else train_outline(job):
        print_text(line)
    for warning in job.material.warnings:
        print_error(f"warning: {warning}")
    kind = job.plan.potential.kind
    if not quiet and (rows := job.starting_errors()):
        print_text(starting_table(kind, rows))
    with ProgressDisplay(quiet, kind, seconds=5.0, stages=True) as display:

        def observe(stage: str, step: int, steps: int, loss: float) -> None:
            text = f"{step} of {steps}, loss {number_text(loss)}"
            display.show_progress(stage, step, steps, text)
            if stopping.is_set():
                raise KeyboardInterrupt

        trained = job.run(observe)
    for part in train_summary(job, trained):
        print_text(part)


_LONG = 5000  # MD steps from which compiling pays


StartFrames: TypeAlias = Annotated[
    str,
    typer.Argument(help="file that ASE reads; `a.xyz@0:10` reads frames 0 to 9"),
]
TrajectoryFile: TypeAlias = Annotated[
    Path,
    typer.Option(help="trajectory to write: .extxyz, .xyz, .traj or .db (ASE)"),
]
Steps: TypeAlias = Annotated[int, typer.Option(min=1, help="MD steps of each walker")]
Temperature: TypeAlias = Annotated[
    float,
    typer.Option(min=0.0, help="temperature of thermostat and first velocities, K"),
]
Timestep: TypeAlias = Annotated[float, typer.Option(help="time step of MD, fs")]
WalkerCount: TypeAlias = Annotated[
    int,
    typer.Option(min=1, help="number of walkers, on the start structures in turn"),
]
Every: TypeAlias = Annotated[
    int, typer.Option(min=1, help="MD steps between two written frames")
]
IntegratorKind: TypeAlias = Annotated[
    str, typer.Option(help="integrator: langevin (thermostat) or verlet (NVE)")
]
Friction: TypeAlias = Annotated[
    float, typer.Option(help="friction of the thermostat, 1/fs")
]
Pressure: TypeAlias = Annotated[
    float | None,
    typer.Option(help="pressure of cells, GPa  [default: constant cells]"),
]
CellShape: TypeAlias = Annotated[
    Literal["isotropic", "anisotropic"],
    typer.Option(help="with --pressure: keep the cell's shape, or change it too"),
]
Surprise: TypeAlias = Annotated[
    float | None,
    typer.Option(help="stop a walker above this multiple of the surprise threshold"),
]
GuardsText: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="limits at which a walker stops, as in campaign files: "
        "`{bond: null, force: 50}`"
    ),
]
Compile: TypeAlias = Annotated[
    Literal["auto", "on", "off"],
    typer.Option("--compile", help=f"compile force calls; auto: from {_LONG} steps on"),
]
Device: TypeAlias = Annotated[
    Literal["cpu", "cuda", "auto"],
    typer.Option(help="where a trained model and its walkers are; auto: a card"),
]
Outside: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--outside",
        help="allow charges, spins and compositions outside the training set",
    ),
]


def convert(
    file: Annotated[
        Path,
        typer.Argument(
            help="FILE.model of mace-torch, a checkpoint of sevenn, or 7net-0, "
            "7net-l3i5 or 7net-mf-0, which sevenn comes with"
        ),
    ],
    out: Annotated[Path, typer.Option(help="model file to write, FILE.alloop")],
    licence: Annotated[
        str | None,
        typer.Option(
            help="licence of the weights: `MIT`, `ASL`, ...  [default: that of the "
            "published file of this name]"
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Convert a file of MACE or SevenNet to tensors and settings.

    They are for `potential: {kind: mace}` and `{kind: sevennet}`. A file of MACE is
    opened by mace-torch (`alloop[mace]`). It is a pickle: opening it runs whatever code
    it holds, so convert only files that you trust. A checkpoint of SevenNet is opened
    as numbers, without sevenn.
    """
    from alloop.jobs.convert_job import convert_model
    from alloop.models.universal.converted import licence_text

    model = convert_model(file, out, licence, force=force, warn=print_warning)
    elements, heads = model["elements"], model["heads"]
    several = f", heads {', '.join(heads)}" if len(heads) > 1 else ""
    print_text(f"model: {short_path(out)}, {len(elements)} elements{several}")
    print_text(f"licence of the weights: {licence_text({'model': model})}")


def md(  # noqa: PLR0913 - one for each option
    context: typer.Context,
    model: ModelOrLevel,
    start: StartFrames,
    out: TrajectoryFile,
    steps: Steps = 10000,
    temperature: Temperature = 300.0,
    timestep: Timestep = 0.5,
    walkers: WalkerCount = 1,
    every: Every = 10,
    kind: IntegratorKind = "langevin",
    friction: Friction = 0.01,
    pressure: Pressure = None,
    cell: CellShape = "isotropic",
    surprise: Surprise = None,
    guards: GuardsText = None,
    seed: Seed = 0,
    compile_: Compile = "auto",
    device: Device = "cpu",
    force: Force = False,
    outside: Outside = False,
    quiet: Quiet = False,
) -> int:
    """Run molecular dynamics with a trained model, or at a level of theory.

    Energies, forces and surprise are written with each frame. After Ctrl-C or a kill
    the same command continues, also with more steps. Guard rails stop a walker before
    it breaks; where they stop all, the exit code is 1.
    """
    from alloop.config.build import md_settings
    from alloop.files.frames import read_sound_frames
    from alloop.files.targets import refuse_target
    from alloop.jobs.md_job import KINDS, MDRun

    refuse_target(out, KINDS, taken=False)
    section: Tree = {"kind": kind, "timestep": timestep, "stride": every}
    section |= {"guards": _guard_limits(guards, surprise)}
    section |= {} if pressure is None else {"pressure": pressure}
    if kind == "langevin":
        section |= {"friction": friction, "barostat": {"cell": cell}}
    dynamics = md_settings(section, temperature)
    frames = [structure.frame for structure in read_sound_frames([start])]
    generation, domain, level = load_model_or_level(model, frames)
    md_run = MDRun(
        model=generation,
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
    return _run_md(context, md_run, quiet)


def _run_md(context: typer.Context, md_run: "MDRun", quiet: bool) -> int:
    from alloop.cli.job_displays import md_summary

    with stop_event() as stopping:
        try:
            ended = _run_with_display(md_run, stopping, quiet)
        except (KeyboardInterrupt, Interrupted):
            return _stopped(context)
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


def _run_with_display(md_run: "MDRun", stopping: Event, quiet: bool) -> "list[Walker]":
    from alloop.cli.job_displays import ProgressDisplay, md_progress_text

    with ProgressDisplay(quiet) as display:

        def observe(progress: "MDProgress") -> None:
            text = md_progress_text(progress)
            display.show_progress("MD", progress.done, progress.steps, text)
            if stopping.is_set():
                raise Interrupted("stopped")

        return md_run.run(observe)
