"""A universal potential distilled into a small network, by a campaign.

    python -m benchmarks.accuracy.universal.distil --out FOLDER
    python -m benchmarks.accuracy.universal.distil --out FOLDER --table

runs campaigns/distil_methanol.yaml for each molecule: SO3LR, as it comes, labels frames
that explorers propose, PBE0/def2-SVP thirty of them. `teacher` and `student` are mean
absolute force components against PBE0/def2-SVP, in meV/Å, on frames of MD on the final
model, which no training saw. `faster`: CPU time of the teacher's force call over the
student's, for one molecule and for 32, both as compiled code, on one thread and in
turns, so that a busy machine slows both; the median over the turns.

A campaign that was stopped goes on where it stopped. Rows are lines in
FOLDER/distil.jsonl.
"""

import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from statistics import median

import numpy as np
import torch

from alloop import Campaign
from alloop.core.batch import Batch, pack_frames
from alloop.core.roles import Potential
from alloop.history.measured_costs import cpu_seconds_by_part
from alloop.models.network import build_network
from alloop.potentials.compiled import compiled_for
from alloop.potentials.learned import LearnedPotential
from benchmarks.accuracy.selection.live_campaign import examination_labels
from benchmarks.common import Row, Rows, make_parser, make_table, show, write_json

_FILE = Path(__file__).parents[3] / "campaigns" / "distil_methanol.yaml"
_TURNS = 11
_MANY = 32
_MILLI = 1e3


def run_campaign(out: Path, molecule: str, quick: bool) -> Campaign:
    """Run the campaign of a molecule as a user would; return it."""
    file, store = out / f"{molecule}.yaml", out / f"{molecule}.zarr"
    changes = {
        "extends": _FILE,
        "start": f"[{{molecule: {molecule}}}]",
        "store": store.absolute(),
        **({"budget": "{cheap: 100, expensive: 12}"} if quick else {}),
    }
    file.write_text("".join(f"{k}: {v}\n" for k, v in changes.items()), "utf-8")
    alloop = [sys.executable, "-m", "alloop", "run", "--quiet"]
    subprocess.run([*alloop, str(file)], check=True)
    return Campaign.from_store(store)


def campaign_row(campaign: Campaign) -> Row:
    """Return errors and speed of teacher and student."""
    labels = examination_labels(campaign)
    student = campaign.model().potential
    assert isinstance(student, LearnedPotential)
    teacher = LearnedPotential(build_network("so3lr"), {}).covering(labels.batch)
    errors = [
        float(np.abs(x.predict(labels.batch).forces - labels.forces).mean()) * _MILLI
        for x in (teacher, student)
    ]
    state = campaign.history().state
    one = pack_frames([state.start[0]])
    return {
        "frames": len(labels),
        "cheap": state.labels.used("cheap"),
        "expensive": state.labels.used("expensive"),
        "teacher": errors[0],
        "student": errors[1],
        "faster": times_faster(teacher, student, one),
        f"faster, {_MANY}": times_faster(
            teacher, student, pack_frames([state.start[0]] * _MANY)
        ),
        "CPU s": sum(cpu_seconds_by_part(campaign.history()).values()),
    }


def times_faster(
    teacher: LearnedPotential, student: LearnedPotential, batch: Batch
) -> float:
    """Return the CPU time of the teacher's force call over the student's."""
    both = [compiled_for(x, batch)[0] for x in (teacher, student)]
    times = [[_seconds(x, batch) for x in both] for _ in range(_TURNS)]
    first, second = zip(*times, strict=True)
    return float(median(first) / median(second))


def _seconds(potential: Potential, batch: Batch) -> float:
    began = time.process_time()
    for _ in range(10):
        potential.predict(batch)
    return time.process_time() - began


def make_rows(options: Namespace, rows: Rows) -> None:
    """Run the campaigns that are missing."""
    for molecule in options.molecule:
        if molecule not in rows:
            campaign = run_campaign(options.out, molecule, options.quick)
            rows[molecule] = campaign_row(campaign)


def main() -> None:
    """Run what is missing, and show what is there."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the folder of stores and rows")
    add("--molecule", nargs="+", default=["CH3OH", "H2CO"])
    add("--table", action="store_true", help="show what the folder holds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(options.out / "distil.jsonl")
    if not options.table:
        make_rows(options, rows)
    lines = [{"molecule": key, **rows[key]} for key in rows]
    show(make_table("a universal potential distilled", lines))
    write_json(options.json, {"rows": lines})


if __name__ == "__main__":
    main()
