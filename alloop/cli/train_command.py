"""The command `train`: a model from labels, without a campaign."""

import shlex
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alloop.cli.campaign_paths import Force, existing_path, short_path
from alloop.cli.console import complain, say
from alloop.cli.run_commands import RESUMABLE, Quiet, stop_event

if TYPE_CHECKING:
    from alloop.jobs.train_job import TrainJob


def train(  # noqa: PLR0913 - one for each option
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="the model file; OUT.json is its history")],
    config: Annotated[
        Path | None,
        typer.Argument(help="a YAML file (`start:`, `training:`, ...), or a store"),
    ] = None,
    expensive: Annotated[
        list[Path] | None, typer.Option(help="labels: extxyz, npz or ASE database")
    ] = None,
    cheap: Annotated[
        list[Path] | None, typer.Option(help="labels of a cheap level")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="labels that are never learned from")
    ] = None,
    test_share: Annotated[
        float, typer.Option(min=0, max=0.9, help="of the expensive labels, without one")
    ] = 0.0,
    validation: Annotated[
        float | None,
        typer.Option(min=0, max=0.9, help="share of the expensive labels  [0.1]"),
    ] = None,
    energy_unit: Annotated[
        str | None, typer.Option(help="of the files: eV, hartree, kcal/mol, ...")
    ] = None,
    length_unit: Annotated[
        str | None, typer.Option(help="of the files: angstrom, bohr, nm")
    ] = None,
    potential: Annotated[
        str | None, typer.Option(help="`painn`, a mapping in YAML, or a YAML file")
    ] = None,
    training: Annotated[
        str | None, typer.Option(help="`asteroid`, a mapping in YAML, or a YAML file")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of all chance")] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> int:
    """Train a potential on labels: a model file, and its history beside it.

    Options override the YAML file. Ctrl-C and a kill are safe: the same command
    continues. Energies in eV, forces in eV/Å.
    """
    from alloop.jobs.train_files import LabelFiles
    from alloop.jobs.train_setup import prepare_training

    files = LabelFiles(expensive or [], cheap or [], test, energy_unit, length_unit)
    tree = _section_tree(config, potential, training, seed)
    with stop_event() as asked:
        try:
            job = prepare_training(
                {**tree, **files.tree()}, out, validation, test_share
            )
            if job.done():
                say(f"{short_path(out)} is done: the model of these labels and options")
                return 0
            job.check_request(force)
            _carry_out(job, asked, quiet)
        except KeyboardInterrupt:
            say(f"stopped; go on with: {shlex.join(['alloop', *context.obj])}")
            return RESUMABLE
    return 0


def _section_tree(
    config: Path | None, potential: str | None, training: str | None, seed: int | None
) -> dict[str, Any]:
    """Return the training sections of the file, overridden by the options."""
    from alloop.config.train_sections import parse_section
    from alloop.jobs.train_setup import read_sections

    found: dict[str, Any] = (
        {} if config is None else read_sections(existing_path(config))
    )
    said = [
        *([] if potential is None else [parse_section("potential", potential)]),
        *([] if training is None else [parse_section("training", training)]),
        *([] if seed is None else [{"seed": seed}]),
    ]
    extends = [x for part in (found, *said) for x in part.get("extends", [])]
    whole = {key: value for part in (found, *said) for key, value in part.items()}
    return {**whole, "extends": extends}


def _carry_out(job: "TrainJob", asked: Event, quiet: bool) -> None:
    from alloop.cli.train_display import TrainDisplay, end_summary

    for warning in job.material.warnings:
        complain(f"warning: {warning}")
    with TrainDisplay(job.plan.potential.kind, quiet) as display:

        def observe(stage: str, step: int, steps: int, loss: float) -> None:
            display.show_progress(stage, step, steps, loss)
            if asked.is_set():
                raise KeyboardInterrupt

        taught = job.run(observe)
    for part in end_summary(job, taught):
        say(part)
