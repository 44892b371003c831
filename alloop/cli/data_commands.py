"""The commands `export`, `exclude`, `copy` and `fork`: data out, frames out, stores."""

from pathlib import Path
from shlex import quote
from typing import Annotated, Literal, TypeAlias

import typer

from alloop.cli.campaign_paths import (
    Force,
    StorePath,
    existing_path,
    find_store,
    open_campaign,
    short_path,
)
from alloop.cli.console import print_text
from alloop.core.errors import InputError
from alloop.core.text import plural

Fidelity: TypeAlias = Literal["cheap", "expensive"]


OutPath: TypeAlias = Annotated[
    Path | None,
    typer.Argument(
        help="file to write: .extxyz, .xyz or .db (ASE); a new folder with --for"
    ),
]
ModelFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="write a standalone model to this file")
]
LabelLevel: TypeAlias = Annotated[
    Literal["cheap", "expensive", "both"],
    typer.Option(help="level of the labels; both writes OUT-cheap and OUT-expensive"),
]
Split: TypeAlias = Annotated[
    Literal["train", "validation", "test", "all"],
    typer.Option(
        help="train: learned from; validation: steers the campaign; test: "
        "the examination"
    ),
]
AtGeneration: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="state at this generation  [default: the last]"),
]
WithoutDoubts: TypeAlias = Annotated[
    str,
    typer.Option(help="leave out labels with these doubts, separated by commas"),
]
ForProgram: TypeAlias = Annotated[
    Literal["mace", "nequip"] | None,
    typer.Option(
        "--for",
        help="write OUT as a folder that this program trains on: files of all "
        "splits with energies of free atoms, and the line to call it",
    ),
]


def export(  # noqa: PLR0913 - one for each option
    place: StorePath,
    out: OutPath = None,
    model: ModelFile = None,
    level: LabelLevel = "expensive",
    split: Split = "train",
    at: AtGeneration = None,
    without: WithoutDoubts = "",
    program: ForProgram = None,
    force: Force = False,
) -> None:
    """Write labels or a model to a file for other programs.

    Energies are in eV, positions in Å, forces in eV/Å.
    """
    if (out is None) == (model is None):
        raise InputError("expected one file to write, either OUT or --model FILE")
    from alloop.export import Choice, parse_doubts

    campaign = open_campaign(place)
    if model is not None:
        from alloop.history.acceptance import generation_sentence

        written = campaign.export_model(model, at, force=force)
        taken = generation_sentence(campaign.history().state, at)
        print_text(f"model: {short_path(written)}, {taken}")
        if licence := campaign.model(at).licence:
            print_text(f"licence of the weights: {licence}")
    if out is not None and program is not None:
        if level == "both" or split != "train":
            raise InputError(
                "expected one level and all splits with --for; leave out --split, and "
                "choose --level cheap or expensive"
            )
        choice = Choice(level, "all", at, parse_doubts(without))
        line = campaign.export_for(program, out, choice)
        print_text(f"labels for {program}: {short_path(out)}; train with:")
        print_text(line)
    elif out is not None:
        choice = Choice(level, split, at, parse_doubts(without))
        for file in campaign.export(out, choice, force=force):
            print_text(f"labels: {short_path(file.path)}, {file}")


def exclude(
    place: StorePath,
    frame: Annotated[
        str, typer.Argument(help="id of a frame, or its first characters")
    ],
    reason: Annotated[
        str, typer.Option(help="reason, recorded in the journal; required to exclude")
    ] = "",
    level: Annotated[
        Fidelity | None, typer.Option(help="exclude only the label at this level")
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="undo an exclusion instead")
    ] = False,
) -> None:
    """Exclude a frame or one of its labels from later training."""
    campaign = open_campaign(place)
    at = f" at the {level} level" if level else ""
    if undo:
        print_text(f"no longer excluded{at}: {campaign.include(frame, level, reason)}")
        return
    if not reason.strip():
        raise InputError(
            "expected a reason, got none; add --reason TEXT, which the journal records"
        )
    print_text(f"excluded {campaign.exclude(frame, level, reason)}{at}: {reason}")


def copy(
    place: StorePath,
    target: Annotated[
        Path, typer.Argument(help="store to make or to bring up to date")
    ],
) -> None:
    """Copy a store, also while it is in use; again, only what is new.

    The copy is whole at every instant, and continues as the campaign does.
    """
    from alloop.store_copies.live_copy import copy_store

    copied = copy_store(find_store(place), target)
    print_text(
        f"{plural(copied.records, 'record')} and {plural(copied.models, 'model')} "
        f"copied; {short_path(target)} holds {plural(copied.total, 'record')}"
    )


def fork(
    place: StorePath,
    out: Annotated[Path, typer.Argument(help="new store")],
    at: Annotated[
        int | None,
        typer.Option(min=1, help="generation to start from  [default: the last]"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with other rules; seed, start and levels must be the same"
        ),
    ] = None,
) -> None:
    """Start a new campaign from a generation of an earlier one."""
    from alloop.files.targets import refuse_inside_store
    from alloop.store_copies.fork import fork_store

    refuse_inside_store(out)
    fork_store(
        find_store(place), out, at, None if config is None else existing_path(config)
    )
    print_text(f"forked; continue with: alloop resume {quote(str(out))}")
