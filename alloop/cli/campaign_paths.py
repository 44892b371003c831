"""Paths to campaigns: commands accept a campaign file or a store."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from alloop.cli.console import busy_line, print_error
from alloop.core.errors import InputError
from alloop.core.settings import limits_of, settings_of
from alloop.store.addresses import place_name, store_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alloop.campaign import Campaign
    from alloop.core.frame import Frame
    from alloop.core.species import Domain
    from alloop.generation import Generation
    from alloop.history.reader import History

StorePath: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="STORE",
        help="store, or YAML file of its campaign; to read, also https:// or s3://",
    ),
]

ModelPath: TypeAlias = Annotated[
    Path, typer.Argument(help="model file, store, or YAML file of a campaign")
]

ModelOrLevel: TypeAlias = Annotated[
    str,
    typer.Argument(
        help="model file, store, YAML file of a campaign, or a level: `gfn2-xtb`, its "
        "YAML file, or a YAML mapping"
    ),
]

FramesFile: TypeAlias = Annotated[
    str,
    typer.Argument(help="file that ASE reads; `file.xyz@0:10` reads frames 0 to 9"),
]

TrainingFrames: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="file of the frames that the model was trained on  [default: those "
        "of the store]"
    ),
]

StoreOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="use the best model of this store or campaign file"),
]

ModelOption: TypeAlias = Annotated[Path | None, typer.Option(help="model file to use")]

Workers: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="processes for labels  [default: one per core]"),
]

CacheFolder: TypeAlias = Annotated[
    Path | None, typer.Option(help="label cache, a folder that commands share")
]

Seed: TypeAlias = Annotated[int, typer.Option(min=0, help="seed of all random numbers")]

Force: TypeAlias = Annotated[
    bool, typer.Option("--force", help="replace an existing output file")
]


def setting_option(record: type[Any], key: str, **changes: Any) -> Any:
    """Return the option for a setting of a record, with its meaning and limits.

    The record's module must not import numpy, or every command would.
    """
    item = settings_of(record)[key]
    limits = limits_of(item)
    facts = {"help": item.metadata["description"]}
    facts |= {"min": limits.get("ge"), "max": limits.get("le")}
    return typer.Option(**{**facts, **changes})


def find_store(place: Path) -> Path:
    """Return the store that a path refers to; raise InputError where there is none."""
    place = existing_path(place)
    if place.is_file():
        from alloop.config.load import store_path

        store = store_path(place)
        if not store.exists():
            raise InputError(
                f"expected a campaign that has been run, {place} has no store yet; "
                f"start it with: alloop run {quote(str(place))}"
            )
        return store
    return place


def open_history(place: Path) -> "History":
    """Return the history of a store, which may be in use."""
    from alloop.history.reader import read_history

    history = read_history(find_store(place))
    _warn_if_lost(history)
    return history


def open_campaign(place: Path) -> "Campaign":
    """Return the campaign of a store or of a YAML file that has been run."""
    from alloop.campaign import Campaign

    store = find_store(place)
    warn_of_lost(store)
    return Campaign.from_store(store)


def one_place(store: Path | None, model: Path | None) -> Path:
    """Return the path of `--store` or `--model`; raise InputError for none or both."""
    if store is None and model is None:
        raise InputError("expected a model: give `--store STORE` or `--model FILE`")
    if store is not None and model is not None:
        raise InputError(
            "expected one model, got `--store` and `--model`; leave one out"
        )
    place = store or model
    assert place is not None
    return place


def load_generation(place: Path) -> "tuple[Generation, Domain | None]":
    """Return the model of a file, or the best one of a store, with its domain."""
    from alloop.generation import load

    yaml = place.suffix in (".yaml", ".yml")
    if existing_path(place).is_dir() or yaml:
        from alloop.history.acceptance import unaccepted_sentence

        campaign = open_campaign(place)
        unaccepted = unaccepted_sentence(campaign.history().state)
        if unaccepted is not None:
            print_error(f"warning: {unaccepted}")
        model = campaign.model()
        tell_generation(campaign)
        return model, campaign.domain(model)
    model = load(place)
    return model, model.domain


def tell_generation(campaign: "Campaign") -> None:
    """Print which generation of a campaign is used, since the user named none."""
    from alloop.history.acceptance import generation_sentence

    sentence = generation_sentence(campaign.history().state)
    print_error(f"{short_path(campaign.store)}: {sentence}")


def load_model_or_level(
    text: str, frames: "Sequence[Frame]"
) -> "tuple[Generation, Domain | None, bool]":
    """Return a model for frames with its domain, and whether it is a level of theory.

    text: a path as for `load_generation`, or a level.
    """
    from alloop.jobs.level_model import level_model, named_level

    level = named_level(text)
    if level is not None:
        return level_model(level, frames), None, True
    return *load_generation(Path(text)), False


def warn_of_lost(store: Path) -> None:
    """Warn if the columns of a store hold labels that its journal has lost."""
    from alloop.history.column_labels import columns_ahead
    from alloop.history.reader import read_history

    if columns_ahead(store):
        _warn_if_lost(read_history(store))


def _warn_if_lost(history: "History") -> None:
    from alloop.history.column_labels import lost_label_warning

    warning = lost_label_warning(history)
    if warning:
        print_error(f"warning: {warning}")


def existing_path(place: Path) -> Path:
    """Return the path, of an address a folder with its store.

    Raises InputError, with the nearest name, if it is missing.
    """
    address = store_address(place)
    if address is not None:
        from alloop.store.remote import fetch_store

        with busy_line(f"reading {address}"):
            return fetch_store(address)
    if not place.exists():
        raise InputError(_missing_path(place))
    return place if place.name not in ("", "..") else place.resolve()


def short_path(path: Path) -> str:
    """Return the path relative to the working directory if it lies inside.

    Of a remote store it is the address.
    """
    address = store_address(place_name(path))
    if address is not None:
        return address
    folder = Path.cwd()
    full = path.resolve()
    return str(full.relative_to(folder)) if full.is_relative_to(folder) else str(full)


def _missing_path(place: Path) -> str:
    from alloop.core.text import nearest_word

    folder = place.parent
    beside = [x.name for x in folder.iterdir()] if folder.is_dir() else []
    close = nearest_word(place.name, beside)
    hint = f"; did you mean `{folder / close}`?" if close else ""
    return f"expected a store or a campaign's YAML file, {place} does not exist{hint}"
