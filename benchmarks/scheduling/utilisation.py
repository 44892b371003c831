"""Utilisation of a campaign's workers, with and without a barrier between rounds.

    python -m benchmarks.scheduling.utilisation [--quick] [--json FILE] [--workers N]
        [--real] [--rounds N] [--folder KEEP]
    python -m benchmarks.scheduling.utilisation --store STORE [--workers N]

runs one campaign at `staleness` 0 and 1 on a cluster of N worker processes, and
measures from the journal, between the first exploration of round 2 and that of the last
round (a whole number of rounds, begin and end set aside):

    used      CPU seconds inside labels, training and MD / (workers x wall time)
    busy      seconds in which tasks ran, CPU given to others too / (workers x wall)
    greedy    what `busy` would be if the same tasks, as long as they were, had been
              started by the same rules without any cost of starting them
    packed    the bound for any order: work / (workers x the longest chain of tasks that
              wait for one another), at most 1
    overhead  worker time that greedy would not have wasted, a task
    commit    from a task's end to its record in the journal, median

and of the whole campaign the CPU seconds of the driver, Dask's scheduler included, as a
share of those of its tasks. With --store the same is told of any campaign that ran to
its end without a pause, from its first task to its last.

Labels take a second or more. They are toys that burn CPU time, which tests the
scheduler fairly, since it sees only how long a task takes; `--real` labels methanol
with PySCF instead. Networks and MD are real. Numbers count on an idle machine only, and
with no more workers than cores: what others take away lowers `used`, not `busy`. With
`--folder` a campaign that has ended is not run again; one that was interrupted begins
anew, since the pause would count as idleness.
"""

import contextlib
import shutil
import tempfile
import time
from argparse import Namespace
from math import nan
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml
from ase.build import molecule
from ase.io import write

from alloop import Campaign
from alloop.core.atoms import from_atoms
from alloop.core.errors import StoreError
from alloop.core.levels import Level
from alloop.core.records import Label
from alloop.history.reader import History
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import pyscf_level
from alloop.labels.toy import toy_level
from alloop.loop import events as e
from alloop.loop.rules import Rules
from alloop.workers.cluster_plan import available_cores
from benchmarks.common import make_parser, make_table, show, write_json
from benchmarks.scheduling.task_timeline import (
    UNLIMITED,
    measured_timeline,
    simulated_timeline,
    task_seconds,
    useful_seconds,
)

# Molecule, the two levels, and the same without burning for what is brought along.
TOYS = (
    "H2O",
    (
        {"kind": "toy", "stiffness": 0.9, "stretch": 0.02, "burn": 1.0},
        {"kind": "toy", "burn": 4.0},
    ),
    (toy_level(stiffness=0.9, stretch=0.02), toy_level()),
)
REAL = (  # about 1 and 4 CPU seconds a label
    "CH3OH",
    (
        {"kind": "pyscf", "method": "hf", "basis": "def2-svp"},
        {"kind": "pyscf", "method": "ccsd", "basis": "cc-pvdz"},
    ),
    (pyscf_level("hf", "def2-svp"), pyscf_level("ccsd", "cc-pvdz")),
)


def utilisation_row(
    history: History, rules: Rules, workers: int, *, whole: bool = False
) -> dict[str, Any]:
    """Return a row of the table; whole: of all rounds, not of the steady ones."""
    timeline = measured_timeline(history, whole=whole)
    greedy = simulated_timeline(history, rules, workers, whole=whole)
    chain = simulated_timeline(history, rules, UNLIMITED, whole=whole)
    steady = list(timeline.steady())
    seconds = timeline.work
    place = workers * timeline.wall
    waste = place - seconds - (workers * greedy.wall - greedy.work)
    lags = [
        entry.time - event.timing.ended
        for entry, event in history.events()
        if isinstance(event, e.Answer) and task_seconds(event) > 0
    ]
    return {
        "staleness": rules.staleness,
        "rounds": max(timeline.rounds) - (0 if whole else 2),
        "tasks": len(steady),
        "wall s": timeline.wall,
        "used": sum(cpu for _, cpu in steady) / place,
        "busy": seconds / place,
        "greedy": greedy.work / (workers * greedy.wall),
        "packed": min(1.0, chain.work / (workers * chain.wall)),
        "overhead ms": 1e3 * waste / len(steady),
        "commit ms": 1e3 * median(lags),
    }


def cpu_by_kind(history: History) -> dict[str, float]:
    """Return the CPU seconds by kind of task."""
    shares: dict[str, float] = {}
    for _, event in history.events():
        if isinstance(event, e.Answer) and useful_seconds(event) > 0:
            kind = type(event).__name__.lower()
            shares[kind] = shares.get(kind, 0.0) + useful_seconds(event)
    return shares


def write_labels(path: Path, name: str, level: Level, frames: int) -> dict[str, str]:
    """Write labelled frames around a molecule; return their section in a campaign."""
    rng, shape, structures = (
        np.random.default_rng(list(path.stem.encode())),
        molecule(name),
        [],
    )
    for _ in range(frames):
        atoms = shape.copy()
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        label = DirectLabeller(level).label(from_atoms(atoms))
        assert isinstance(label, Label), label
        atoms.info["REF_energy"] = label.energy
        atoms.arrays["REF_forces"] = label.forces
        structures.append(atoms)
    write(path, structures)
    return {"energy_unit": "eV", "length_unit": "angstrom"}


def make_campaign(folder: Path, staleness: int, options: Namespace) -> Campaign:
    """Return a campaign with rounds of labels, a training of a network, and some MD.

    What comes before the first round is brought along.
    """
    rounds, every, steps = (3, 2, 100) if options.quick else (6, 8, 1000)
    rounds = options.rounds or rounds
    name, levels, own = REAL if options.real else TOYS
    folder.mkdir(parents=True)
    sizes = {"cheap": 4 * every, "expensive": every, "test": 2}
    files = {
        fidelity: write_labels(
            folder / f"{fidelity}.xyz", name, own[fidelity != "cheap"], frames
        )
        for fidelity, frames in sizes.items()
    }
    start = [
        {"labels": f"{fidelity}.xyz", "level": fidelity, **files[fidelity]}
        for fidelity in ("cheap", "expensive")
    ]
    tree = {
        "name": f"staleness-{staleness}",
        "start": start,
        "validation": {"file": "test.xyz", **files["test"]},
        "levels": dict(zip(("cheap", "expensive"), levels, strict=True)),
        "explore": {"walkers": 8, "batch": 4, "steps": steps, "temperature": 300},
        "potential": {"kind": "painn", "channels": 32, "layers": 2},
        "training": {
            **{"kind": "asteroid", "every": every, "staleness": staleness},
            **{"teacher": steps // 2, "pretrain": steps, "finetune": steps // 2},
        },
        "budget": {"cheap": 4 * every * rounds, "expensive": every * rounds},
        "cluster": {"kind": "local", "workers": options.workers},
        "store": "run.zarr",
    }
    file = folder / "campaign.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return Campaign.from_yaml(file)


def run_campaign(
    folder: Path, staleness: int, options: Namespace
) -> tuple[Campaign, float]:
    """Return a campaign that has run to its end without a pause, earlier or now.

    Return the CPU seconds of the driver too, NaN for an earlier run.
    """
    path = folder / str(staleness)
    with contextlib.suppress(StoreError):
        earlier = Campaign.from_store(path / "run.zarr")
        if earlier.history().state.finished:
            return earlier, nan
    shutil.rmtree(path, ignore_errors=True)
    own = make_campaign(path, staleness, options)
    begun, used = time.monotonic(), time.process_time()
    outcome = own.run()
    show(f"staleness {staleness}: {outcome.finished}, {time.monotonic() - begun:.0f} s")
    return own, time.process_time() - used


def main() -> None:
    """Run, measure, and show."""
    parser = make_parser(__doc__)
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--real", action="store_true", help="labels by PySCF")
    parser.add_argument("--rounds", type=int, help="how many, the first and last too")
    parser.add_argument("--folder", type=Path, help="keep what was run here")
    parser.add_argument("--store", type=Path, help="of a campaign that has ended")
    options = parser.parse_args()
    if options.store is not None:
        campaign = Campaign.from_store(options.store)
        rules = campaign.setup.rules
        row = utilisation_row(campaign.history(), rules, options.workers, whole=True)
        show(make_table("whole campaign", [row]))
        return
    workers, cores = options.workers, available_cores()
    if workers > cores:
        show(f"{workers} workers on {cores} cores: `used` will be low")
    rows, shares = [], []
    with tempfile.TemporaryDirectory() as spare:
        for staleness in (0, 1):
            campaign, driver = run_campaign(
                options.folder or Path(spare), staleness, options
            )
            history = campaign.history()
            rows.append(utilisation_row(history, campaign.setup.rules, options.workers))
            kinds = cpu_by_kind(history)
            share = driver / sum(kinds.values())
            shares.append({"staleness": staleness, **kinds, "driver": share})
            figures = {
                "workers": options.workers,
                "steady rounds": rows,
                "cpu s": shares,
            }
            write_json(options.json, figures)
    show(make_table("steady rounds", rows))
    show(make_table("CPU seconds of the whole campaign", shares))


if __name__ == "__main__":
    main()
