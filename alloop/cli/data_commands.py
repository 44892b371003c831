"""The commands `export`, `exclude` and `fork`: data out, frames out, a new campaign."""

from pathlib import Path
from shlex import quote
from typing import Annotated, Literal, TypeAlias

import typer

from alloop.cli.campaign_paths import (
    Force,
    Place,
    existing_path,
    find_store,
    open_campaign,
    short_path,
)
from alloop.cli.console import say
from alloop.core.errors import InputError

Fidelity: TypeAlias = Literal["cheap", "expensive"]


def export(  # noqa: PLR0913 - one for each option
    place: Place,
    out: Annotated[
        Path | None, typer.Argument(help="file.extxyz, file.xyz or file.db (ASE)")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="write a standalone model to this file instead")
    ] = None,
    level: Annotated[
        Literal["cheap", "expensive", "both"],
        typer.Option(help="both: two files, OUT-cheap and OUT-expensive"),
    ] = "expensive",
    split: Annotated[
        Literal["train", "validation", "test", "all"],
        typer.Option(help="what was learned from, what steered, what only examines"),
    ] = "train",
    at: Annotated[
        int | None,
        typer.Option(min=1, help="as of this generation; the last one by default"),
    ] = None,
    without: Annotated[
        str,
        typer.Option(help="leave out labels with these doubts, joined by commas"),
    ] = "",
    force: Force = False,
) -> None:
    """Write labels (eV, Å, eV/Å) or a model to a file that other programs read."""
    if (out is None) == (model is None):
        raise InputError("expected a file to write to: either OUT or --model FILE")
    from alloop.export import Choice, parse_doubts

    campaign = open_campaign(place)
    if model is not None:
        say(f"model: {short_path(campaign.export_model(model, at, force=force))}")
    if out is not None:
        choice = Choice(level, split, at, parse_doubts(without))
        for file in campaign.export(out, choice, force=force):
            say(f"labels: {short_path(file.path)}, {file}")


def exclude(
    place: Place,
    frame: Annotated[str, typer.Argument(help="a frame's id, or how it begins")],
    reason: Annotated[
        str, typer.Option(help="why; kept in the journal, needed to exclude")
    ] = "",
    level: Annotated[
        Fidelity | None, typer.Option(help="only its label at this level")
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="undo an exclusion instead")
    ] = False,
) -> None:
    """Take a frame or one of its labels out of all later training."""
    campaign = open_campaign(place)
    at = f" at the {level} level" if level else ""
    if undo:
        say(f"no longer excluded{at}: {campaign.include(frame, level, reason)}")
        return
    if not reason.strip():
        raise InputError("expected why: --reason TEXT, which is kept in the journal")
    say(f"excluded {campaign.exclude(frame, level, reason)}{at}: {reason}")


def fork(
    place: Place,
    out: Annotated[Path, typer.Argument(help="the new store")],
    at: Annotated[
        int | None,
        typer.Option(min=1, help="from this generation on; the last one by default"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="a YAML file with other rules; seed, start, levels stay"),
    ] = None,
) -> None:
    """Begin a new campaign from a generation of this one, with its own rules."""
    from alloop.files.targets import refuse_inside_store
    from alloop.store_copies.fork import fork_store

    refuse_inside_store(out)
    fork_store(
        find_store(place), out, at, None if config is None else existing_path(config)
    )
    say(f"forked; go on with: alloop resume {quote(str(out))}")
