"""`train`: labels in, a model out, without a campaign."""

import shlex
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alloop.cli.console import complain, say
from alloop.cli.places import Force, existing, short
from alloop.cli.running import RESUMABLE, Quiet, stopping

if TYPE_CHECKING:
    from alloop.teaching import Job


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

    Options stand over what the YAML file says. Ctrl-C is safe, as a kill is: the same
    command goes on. Energies in eV, forces in eV/Å.
    """
    from alloop.teaching import prepare
    from alloop.teaching.files import Files

    files = Files(expensive or [], cheap or [], test, energy_unit, length_unit)
    tree = _tree(config, potential, training, seed)
    with stopping() as asked:
        try:
            job = prepare({**tree, **files.tree()}, out, validation, test_share)
            if job.done():
                say(f"{short(out)} is done: the model of these labels and options")
                return 0
            job.refuse(force)
            _carry_out(job, asked, quiet)
        except KeyboardInterrupt:
            say(f"stopped; go on with: {shlex.join(['alloop', *context.obj])}")
            return RESUMABLE
    return 0


def _tree(
    config: Path | None, potential: str | None, training: str | None, seed: int | None
) -> dict[str, Any]:
    """What the sections of a training say, files beneath options."""
    from alloop.config.lesson import section
    from alloop.teaching import opened

    found: dict[str, Any] = {} if config is None else opened(existing(config))
    said = [
        *([] if potential is None else [section("potential", potential)]),
        *([] if training is None else [section("training", training)]),
        *([] if seed is None else [{"seed": seed}]),
    ]
    extends = [x for part in (found, *said) for x in part.get("extends", [])]
    whole = {key: value for part in (found, *said) for key, value in part.items()}
    return {**whole, "extends": extends}


def _carry_out(job: "Job", asked: Event, quiet: bool) -> None:
    from alloop.cli.taught import Display, summary

    for warning in job.material.warnings:
        complain(f"warning: {warning}")
    with Display(job.plan.potential.kind, quiet) as display:

        def observe(stage: str, step: int, steps: int, loss: float) -> None:
            display.show(stage, step, steps, loss)
            if asked.is_set():
                raise KeyboardInterrupt

        taught = job.run(observe)
    for part in summary(job, taught):
        say(part)
