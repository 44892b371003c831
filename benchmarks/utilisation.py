"""How busy a campaign keeps its workers, with a barrier between rounds and without.

    python -m benchmarks.utilisation [--quick] [--json FILE] [--workers N] [--real]

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

Labels take a second or more. They are toys that burn CPU time: honest for what the
scheduler does, since it sees only how long a task takes; `--real` labels methanol with
PySCF instead. Networks and MD are real. Numbers count on an idle machine only: what
others take away lowers `used`, not `busy`.
"""

import heapq
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml
from ase.build import molecule
from ase.io import write

from alloop import Campaign
from alloop.core.atoms import from_atoms
from alloop.core.levels import Level
from alloop.core.records import Label
from alloop.labels.levels import pyscf_level
from alloop.labels.open import DirectLabeller
from alloop.labels.toy import toy_level
from alloop.loop import events as e
from alloop.loop.history import History
from alloop.loop.learning import absorb, ask
from alloop.loop.policy import decide
from alloop.loop.pools import Task
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState
from benchmarks.common import arguments, say, table, write_json

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
_FOREVER = 10**9  # workers: only what waits for one another takes time


@dataclass(frozen=True, slots=True)
class Ran:
    """A task: when it ran, s, and the CPU seconds spent inside what it was for."""

    started: float
    ended: float
    inside: float


@dataclass(slots=True)
class Trace:
    """What ran, and when the first exploration of each round was asked for."""

    tasks: list[Ran] = field(default_factory=list)
    rounds: dict[int, float] = field(default_factory=dict)

    def note(self, commands: tuple[e.Command, ...], now: float) -> None:
        """Take in what was asked for."""
        for command in commands:
            if isinstance(command, e.Explore):
                self.rounds.setdefault(command.round, now)

    @property
    def wall(self) -> float:
        """Seconds of the steady rounds."""
        return self.rounds[max(self.rounds)] - self.rounds[2]

    def steady(self) -> Iterator[tuple[float, float]]:
        """Seconds and CPU seconds of each task in the steady rounds."""
        begin, end = self.rounds[2], self.rounds[max(self.rounds)]
        for task in self.tasks:
            within = min(task.ended, end) - max(task.started, begin)
            if within > 0:
                yield within, task.inside * within / (task.ended - task.started)


def inside(event: e.Event) -> float:
    """CPU seconds in PySCF (or its toy), in training or in MD."""
    match event:
        case e.Labelled(label=label):
            return label.cpu_seconds
        case e.NotLabelled(unlabelled=unlabelled):
            return unlabelled.cpu_seconds
        case e.Rechecked(noise=noise):
            return noise.cpu_seconds
    return float(getattr(event, "timing", e.Timing()).cpu_seconds)


def measured(history: History) -> Trace:
    """What the journal says."""
    trace = Trace()
    for entry, event in history.events():
        if isinstance(event, e.Answer) and length(event) > 0:
            timing = event.timing
            trace.tasks.append(Ran(timing.started, timing.ended, inside(event)))
        trace.note(entry.turn.commands, entry.time)
    return trace


def simulated(history: History, rules: Rules, workers: int) -> Trace:
    """The campaign again, by its own rules: each task gets the answer that it got, as
    long after its start as it took, and nothing else takes time."""
    known = {x.name: x for _, x in history.events() if isinstance(x, e.Answer)}
    trace, now, order, running = Trace(), 0.0, count(), 0
    state = LoopState()
    queue: list[tuple[float, int, e.Answer]] = []
    ends: list[tuple[float, int, e.Answer]] = []
    events: list[e.Event] = [history.opened]
    while events or ends:
        if not events:
            now, _, event = heapq.heappop(ends)
            running -= 1
            events = [event]
        seen = absorb(state, events[0])
        commands = decide(seen, events.pop(0), rules)
        state = ask(seen, commands)
        trace.note(commands, now)
        for command in (x for x in commands if not isinstance(x, e.Stop)):
            answer = known[command.name]
            seconds = length(answer)
            if seconds == 0:  # the driver answered
                events.append(answer)
                continue
            task = Task(command, 1, seconds=seconds)
            heapq.heappush(queue, (-task.priority, next(order), answer))
        while queue and running < workers and not events:
            _, _, answer = heapq.heappop(queue)
            end = now + length(answer)
            trace.tasks.append(Ran(now, end, inside(answer)))
            heapq.heappush(ends, (end, next(order), answer))
            running += 1
    return trace


def length(event: e.Event) -> float:
    """Seconds that the event's task took, 0 where there was none."""
    timing = getattr(event, "timing", e.Timing())
    return float(timing.ended - timing.started)


def figures(history: History, rules: Rules, workers: int) -> dict[str, Any]:
    """A row of the table."""
    trace = measured(history)
    greedy = simulated(history, rules, workers)
    chain = simulated(history, rules, _FOREVER)
    steady = list(trace.steady())
    seconds = sum(within for within, _ in steady)
    place = workers * trace.wall
    waste = place - seconds - (workers * greedy.wall - _work(greedy))
    lags = [
        entry.time - event.timing.ended
        for entry, event in history.events()
        if isinstance(event, e.Answer) and length(event) > 0
    ]
    return {
        "staleness": rules.staleness,
        "rounds": max(trace.rounds) - 2,
        "tasks": len(steady),
        "wall s": trace.wall,
        "used": sum(cpu for _, cpu in steady) / place,
        "busy": seconds / place,
        "greedy": _work(greedy) / (workers * greedy.wall),
        "packed": min(1.0, _work(chain) / (workers * chain.wall)),
        "overhead ms": 1e3 * waste / len(steady),
        "commit ms": 1e3 * median(lags),
    }


def _work(trace: Trace) -> float:
    return sum(within for within, _ in trace.steady())


def spent(history: History) -> dict[str, float]:
    """CPU seconds by kind of task."""
    found: dict[str, float] = {}
    for _, event in history.events():
        if isinstance(event, e.Answer) and inside(event) > 0:
            kind = type(event).__name__.lower()
            found[kind] = found.get(kind, 0.0) + inside(event)
    return found


def labelled(path: Path, name: str, level: Level, frames: int) -> dict[str, str]:
    """Write labelled frames around a molecule; their section in a campaign."""
    rng, shape, found = (
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
        found.append(atoms)
    write(path, found)
    return {"energy_unit": "eV", "length_unit": "angstrom"}


def campaign(folder: Path, staleness: int, chosen: Namespace) -> Campaign:
    """Rounds of so many labels, a training of a network, MD of some seconds; what
    comes before the first round is brought along."""
    rounds, every, steps = (3, 2, 100) if chosen.quick else (8, 8, 1000)
    name, levels, own = REAL if chosen.real else TOYS
    folder.mkdir()
    sizes = {"cheap": 4 * every, "expensive": every, "test": 2}
    files = {
        each: labelled(folder / f"{each}.xyz", name, own[each != "cheap"], frames)
        for each, frames in sizes.items()
    }
    start = [
        {"labels": f"{each}.xyz", "level": each, **files[each]}
        for each in ("cheap", "expensive")
    ]
    tree = {
        "name": f"staleness-{staleness}",
        "start": start,
        "test": {"file": "test.xyz", **files["test"]},
        "levels": dict(zip(("cheap", "expensive"), levels, strict=True)),
        "explore": {"walkers": 8, "batch": 4, "steps": steps, "temperature": 300},
        "potential": {"kind": "painn", "channels": 32, "layers": 2},
        "training": {
            **{"kind": "asteroid", "every": every, "staleness": staleness},
            **{"teacher": steps // 2, "pretrain": steps, "finetune": steps // 2},
        },
        "budget": {"cheap": 4 * every * rounds, "expensive": every * rounds},
        "cluster": {"kind": "local", "workers": chosen.workers},
        "store": "run.zarr",
    }
    file = folder / "campaign.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return Campaign.from_yaml(file)


def main() -> None:
    """Run, measure, and show."""
    parser = arguments(__doc__)
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--real", action="store_true", help="labels by PySCF")
    chosen = parser.parse_args()
    rows, shares = [], []
    with tempfile.TemporaryDirectory() as folder:
        for staleness in (0, 1):
            own = campaign(Path(folder) / str(staleness), staleness, chosen)
            outcome = own.run()
            say(f"staleness {staleness}: {outcome.finished}")
            history = own.history()
            rows.append(figures(history, own.setup.rules, chosen.workers))
            shares.append({"staleness": staleness, **spent(history)})
            found = {"workers": chosen.workers, "steady rounds": rows, "cpu s": shares}
            write_json(chosen.json, found)
    say(table("steady rounds", rows))
    say(table("CPU seconds of the whole campaign", shares))


if __name__ == "__main__":
    main()
