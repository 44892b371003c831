"""All campaigns beneath a folder, a row each: values for JSON, and a table."""

import os
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from alloop.config.load import store_path
from alloop.core.errors import AlloopError
from alloop.history.reader import read_history
from alloop.report.status import campaign_status
from alloop.report.text.fitting_table import FittingTable
from alloop.report.text.formatting import duration_text, milli_text
from alloop.store.journal import FOLDER
from alloop.store.root import NODE_FILE


def find_stores(folder: Path) -> Iterator[Path]:
    """Yield the stores beneath a folder, itself included; no link is followed.

    Stores that are being made (`.partial`) are left out.
    """
    if (folder / FOLDER).is_dir() and (folder / NODE_FILE).is_file():
        yield folder
        return
    try:
        with os.scandir(folder) as entries:
            names = sorted(x.name for x in entries if x.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in names:
        if not name.endswith(".partial"):
            yield from find_stores(folder / name)


def campaign_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the facts of each campaign beneath a folder, as `alloop status --json`.

    folder: or the YAML file of a campaign, which may not have started.

    force_mae: of the best generation on the validation set, eV/Å, or null; age: seconds
    since the last commit; note: why it ended, or the newest notice. A store that cannot
    be read has the state `unreadable`, and the reason as note.
    """
    if folder.is_file() and not store_path(folder).exists():
        store = store_path(folder)
        yield _EMPTY | {
            "name": folder.stem,
            "store": str(store),
            "state": "not started",
            "note": "",
        }
    for store in find_stores(store_path(folder) if folder.is_file() else folder):
        try:
            yield _row(campaign_status(read_history(store)))
        except AlloopError as error:
            yield _EMPTY | {
                "name": store.stem,
                "store": str(store),
                "state": "unreadable",
                "note": str(error),
            }


_EMPTY: dict[str, Any] = {
    **dict.fromkeys(("round", "generation", "force_mae", "expensive", "budget")),
    **dict.fromkeys(("cpu_seconds", "age", "time_left")),
}


def _row(values: dict[str, Any]) -> dict[str, Any]:
    best = values["best"]
    expensive = values["labels"].get("expensive", {})
    notice = values["notice"]
    told = "" if notice is None or values["state"] == "running" else notice["text"]
    return {
        "name": values["name"],
        "store": values["store"],
        "state": values["state"],
        "round": values["round"],
        "generation": values["generation"],
        "force_mae": values["errors"][best - 1] if best else None,
        "expensive": expensive.get("used", 0),
        "budget": expensive.get("budget"),
        "cpu_seconds": values["cpu_seconds"],
        "age": _age(values["last_commit"]),
        "time_left": values["time_left"],
        "note": values["broken"] or values["finished"] or told,
    }


def _age(moment: str | None) -> float | None:
    if moment is None:
        return None
    return max(0.0, time.time() - datetime.fromisoformat(moment).timestamp())


def list_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the rows as a table."""
    head = ("campaign", "state", "round", "meV/Å", "labels", "CPU", "last sign", "note")
    table = FittingTable(*head, box=None, first_out=("round", "CPU", "note"))
    for row in rows:
        of = "" if row["budget"] is None else f"/{row['budget']}"
        is_heard = row["age"] is not None
        table.add_row(
            row["name"],
            row["state"],
            "" if row["round"] is None else str(row["round"]),
            milli_text(row["force_mae"]),
            "" if row["expensive"] is None else f"{row['expensive']}{of}",
            duration_text(row["cpu_seconds"]) if is_heard else "",
            f"{duration_text(row['age'])} ago" if is_heard else "",
            row["note"],
        )
    return table
