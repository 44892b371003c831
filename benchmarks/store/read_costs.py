"""CPU time and memory of one process that reads a store.

    python -m benchmarks.store.read_costs NAME STORE

prints its CPU seconds and its memory at most, start and imports included; NAME is what
it does, one of `NAMES`.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zarr

from alloop.export import Choice
from alloop.export import write_export as export
from alloop.history.fold_updater import FoldUpdater
from alloop.history.label_entries import lost_labels
from alloop.history.reader import CODEC, read_history
from alloop.history.saved_fold import JournalFold, campaign_beginning
from alloop.report.sections import page
from alloop.report.status import campaign_status
from alloop.report.text.event_log import log_lines
from alloop.report.text.frame_history import describe_frame
from alloop.store.archive import Archive
from alloop.store.doctor import verify_store
from alloop.store.schema import id_texts


def _open_store(path: Path) -> object:
    campaign_beginning(path)
    with Archive.open(path, CODEC, "w") as archive:
        return FoldUpdater(archive).fold.seq


def _replay(path: Path) -> object:
    fold = JournalFold()
    with Archive.open(path, CODEC) as archive:
        for _, _, turn in archive.records():
            fold.add_turn(turn)
    return fold.seq


def _middle(path: Path) -> str:
    """Return the id of a frame in the middle of the campaign."""
    ids: Any = zarr.open_group(path, mode="r", zarr_format=3)["structures/id"]
    row = ids.shape[0] // 2
    return id_texts(ids[row : row + 1])[0]


def _exclude(path: Path) -> object:
    history = read_history(path)
    return history.frame(history.record_index.labels[-1].frame.id[:12])


def _export(path: Path) -> object:
    everything = Choice("expensive", "all")
    (made,) = export(read_history(path), path.with_suffix(".xyz"), everything)
    out = made.path
    size = out.stat().st_size
    out.unlink()
    return size


def _report(path: Path) -> object:
    out = page.write_report(read_history(path), path.with_suffix(".html"))
    size = out.stat().st_size
    out.unlink()
    return size


_READERS: dict[str, Callable[[Path], object]] = {
    "import": lambda path: path.name,
    "open": _open_store,
    "replay": _replay,
    "status": lambda path: len(json.dumps(campaign_status(read_history(path)))),
    "lost": lambda path: len(lost_labels(read_history(path))),
    "exclude": _exclude,
    "why": lambda path: len(describe_frame(read_history(path), _middle(path))),
    "log 20": lambda path: sum(1 for _ in log_lines(read_history(path), 20)),
    "log": lambda path: sum(1 for _ in log_lines(read_history(path))),
    "export": _export,
    "report": _report,
    "doctor": lambda path: len(verify_store(path, CODEC)),
}
NAMES = tuple(_READERS)


def main() -> None:
    """Ask, and tell."""
    name, path = sys.argv[1:]
    answer = _READERS[name](Path(path))
    took = {
        "cpu s": time.process_time(),
        "wall s": time.clock_gettime(time.CLOCK_BOOTTIME) - _start_time(),
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }
    sys.stdout.write(json.dumps({**took, "answer": str(answer)}) + "\n")


def _start_time() -> float:
    """Return when this process began, s since the machine did (Linux)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
