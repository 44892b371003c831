"""Rows as files: many processes fill one folder, a killed one leaves no half row."""

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


@contextmanager
def claim_row(file: Path) -> Iterator[bool]:
    """Yield whether this process may make the row; the claim ends with the process."""
    with file.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield not file.exists()


def keep(file: Path, row: Row, model: bytes) -> None:
    """Write the row and its model, the row last and as a whole."""
    file.with_suffix(".model").write_bytes(model)
    replace(file, row)


def replace(file: Path, row: Row) -> None:
    """Write a row so that it is there as a whole or not at all."""
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    part.replace(file)


def rows(folder: Path) -> list[Row]:
    """Read all rows of a folder."""
    return [json.loads(x.read_text("utf-8")) for x in sorted(folder.glob("*.json"))]


def validation_error(row: Row) -> float:
    """Return the validation error, kcal/mol/Å: the mean of its two sets."""
    return 0.5 * (float(row["stopping"]) + float(row["choosing"]))


def log_test_look(folder: Path, name: str) -> None:
    """Log that the test set was looked at for a row."""
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {name}\n"
    with (folder / "test.log").open("a", encoding="utf-8") as log:
        log.write(line)


def machine() -> dict[str, str]:
    """Return what the figures depend on beside the seed."""
    return {"machine": _processor(), "torch": torch.__version__}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")]
    return names[0] if names else platform.processor()
