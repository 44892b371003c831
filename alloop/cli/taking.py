"""`export` and `exclude`: data out, and a frame taken out of training by hand."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from alloop.cli.console import say
from alloop.cli.places import Place, campaign_of, short
from alloop.core.errors import InputError

Fidelity: TypeAlias = Literal["cheap", "expensive"]


def export(
    place: Place,
    out: Annotated[
        Path | None, typer.Argument(help="file.extxyz, file.xyz or file.db (ASE)")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="write a standalone model to this file instead")
    ] = None,
    level: Annotated[
        Fidelity | None, typer.Option(help="labels of one level only")
    ] = None,
    at: Annotated[
        int | None,
        typer.Option(min=1, help="as of this generation; the last one by default"),
    ] = None,
) -> None:
    """Write labels (eV, Å, eV/Å) or a model to a file that other programs read."""
    if (out is None) == (model is None):
        raise InputError("expected a file to write to: either OUT or --model FILE")
    campaign = campaign_of(place)
    if model is not None:
        say(f"model: {short(campaign.export_model(model, at))}")
    if out is not None:
        say(f"labels: {short(campaign.export(out, level, at))}")


def exclude(
    place: Place,
    frame: Annotated[str, typer.Argument(help="a frame's id, or how it begins")],
    reason: Annotated[str, typer.Option(help="why; it is kept in the journal")],
    level: Annotated[
        Fidelity | None, typer.Option(help="only its label at this level")
    ] = None,
) -> None:
    """Take a frame or one of its labels out of all later training."""
    found = campaign_of(place).exclude(frame, level, reason)
    say(f"excluded {found}{f' at the {level} level' if level else ''}: {reason}")
