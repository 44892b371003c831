"""Labels per core hour: this package's labellers against a plain PySCF loop.

    python -m benchmarks.labels.throughput [--quick] [--json FILE]

Both label the same frames in two processes of one thread each, warm (imports are paid
before), at equal tolerances and with grid response; this package also keeps each label
in a cache, as `alloop label` does. Rounds are interleaved: plain, ours, ours, plain.
A ratio is that of a round: plain's time over ours, so 1 is equal and less is slower;
median, low and high are over the rounds. CPU seconds are those of all processes
involved; wall times mean something on a quiet machine only. Both must give the same
numbers.

The plain loop is what PySCF's manual shows. For CCSD(T) it is the loop that gives the
right gradient: `ccsd_t_lambda.kernel` solves the lambda equations of CCSD(T), whereas
the shorter `pyscf.grad.ccsd_t.Gradients(cc).kernel()` takes those of CCSD and so gives
other forces, for less time.

The cost of isolation is that of a label of the toy level through a child, less that of
the same label in this process.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
import psutil
from ase.build import molecule

from alloop.core.frame import Frame
from alloop.core.records import Label
from alloop.labels.child.labeller import IsolatedLabeller
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import level_from_name
from alloop.labels.toy import toy_level
from alloop.store.cache import LabelCache
from benchmarks.common import (
    Row,
    make_parser,
    make_table,
    median_range,
    show,
    write_json,
)
from benchmarks.labels.plain_pyscf import Numbers, plain_loop

PROCESSES = 2
Loop: TypeAlias = Callable[[Sequence[Frame]], list[Numbers]]


@dataclass(frozen=True, slots=True)
class Case:
    """A molecule at a level; frames each process labels in a block."""

    molecule: str
    level: str
    frames: int
    rounds: int


CASES = (
    Case("CH3CH2OH", "hf/sto-3g", 12, 6),
    Case("CH3CH2OH", "b3lyp/def2-svp", 2, 4),
    Case("H2O", "ccsd(t)/cc-pvdz", 4, 6),
)
QUICK = (Case("CH3CH2OH", "hf/sto-3g", 4, 2), Case("H2O", "ccsd(t)/cc-pvdz", 1, 2))


def main() -> None:
    """Measure, check, show."""
    options = make_parser(__doc__).parse_args()
    rows = [measure_case(case) for case in (QUICK if options.quick else CASES)]
    title = f"labels in {PROCESSES} processes: ours against a plain loop"
    show(make_table(title, rows), "")
    overhead = isolation_cost(100 if options.quick else 400)
    show(make_table("what isolation costs a label", [overhead]))
    write_json(options.json, {"rows": rows, "isolation": overhead})


# --- measuring ---------------------------------------------------------------------


@dataclass(slots=True)
class Arm:
    """One way to label, with a loop for each process."""

    loops: Sequence[Loop]
    threads: ThreadPoolExecutor

    def block(
        self, shares: Sequence[Sequence[Frame]]
    ) -> tuple[float, float, list[Numbers]]:
        """Label all shares at once; return wall and CPU seconds, and the labels."""
        wall, cpu = time.perf_counter(), _cpu()
        call = lambda loop, share: loop(share)  # noqa: E731
        labels = list(chain(*self.threads.map(call, self.loops, shares)))
        spent = _cpu() - cpu
        return time.perf_counter() - wall, spent, labels


def measure_case(case: Case) -> Row:
    """Measure throughput and CPU time of a case, both ways, and their ratios."""
    with ExitStack() as stack:
        arms = _arms(case, stack)
        for arm in arms.values():
            arm.block([_frames(case, 1, seed=-1)] * PROCESSES)  # imports, first guesses
        rounds = [_round(case, arms, number) for number in range(case.rounds)]
    wall, cpu = (
        median_range(timing[key] for timing in rounds) for key in ("wall", "cpu")
    )
    ours, other = (median_range(timing[x] for timing in rounds)["median"] for x in arms)
    return {
        "molecule": case.molecule,
        "level": case.level,
        "labels": 2 * PROCESSES * case.frames * case.rounds,
        "ours/core h": round(3600 / ours),
        "ours CPU s": ours,
        "plain CPU s": other,
        "CPU ratio": cpu["median"],
        "low": cpu["low"],
        "high": cpu["high"],
        "wall ratio": wall["median"],
        "low ": wall["low"],
        "high ": wall["high"],
        "dF meV/Å": 1e3 * max(timing["apart"] for timing in rounds),
    }


def _round(case: Case, arms: dict[str, Arm], number: int) -> dict[str, float]:
    shares = [_frames(case, case.frames, 10 * number + i) for i in range(PROCESSES)]
    walls, cpus = dict.fromkeys(arms, 0.0), dict.fromkeys(arms, 0.0)
    numbers: dict[str, list[Numbers]] = {}
    for name in ("plain", "ours", "ours", "plain"):
        wall, cpu, numbers[name] = arms[name].block(shares)
        walls[name] += wall
        cpus[name] += cpu
    labels = 2 * PROCESSES * case.frames
    return {
        "wall": walls["plain"] / walls["ours"],
        "cpu": cpus["plain"] / cpus["ours"],
        "apart": _apart(numbers["plain"], numbers["ours"]),
        **{name: cpu / labels for name, cpu in cpus.items()},
    }


def _arms(case: Case, stack: ExitStack) -> dict[str, Arm]:
    os.environ["OMP_NUM_THREADS"] = "1"  # of the plain processes; ours see to it
    context = get_context("spawn")
    threads = stack.enter_context(ThreadPoolExecutor(PROCESSES))
    cache = LabelCache(Path(stack.enter_context(TemporaryDirectory())))
    plains, ours = list[Loop](), list[Loop]()
    for _ in range(PROCESSES):
        pool = stack.enter_context(ProcessPoolExecutor(1, context))
        child = stack.enter_context(IsolatedLabeller(level_from_name(case.level)))
        plains.append(partial(_elsewhere, pool, case.level))
        ours.append(partial(_ours, child, cache))
    return {"ours": Arm(ours, threads), "plain": Arm(plains, threads)}


def _elsewhere(
    pool: ProcessPoolExecutor, level: str, frames: Sequence[Frame]
) -> list[Numbers]:
    return pool.submit(plain_loop, level, frames).result()


def _ours(
    child: IsolatedLabeller, cache: LabelCache, frames: Sequence[Frame]
) -> list[Numbers]:
    numbers = []
    for frame in frames:
        label = child.label(frame)
        cache.put(label)
        if not isinstance(label, Label):
            raise RuntimeError(f"no label: {label.failure.name} {label.message}")
        numbers.append((label.energy, label.forces))
    return numbers


def _frames(case: Case, count: int, seed: int) -> list[Frame]:
    """Return frames shaken by 0.05 Å rms, new ones for each block."""
    atoms = molecule(case.molecule)
    rng = np.random.default_rng(abs(seed) + 1000 * (seed < 0))
    return [
        Frame(atoms.numbers, atoms.positions + rng.normal(0, 0.05, (len(atoms), 3)))
        for _ in range(count)
    ]


def _apart(first: Sequence[Numbers], other: Sequence[Numbers]) -> float:
    """Return the largest force difference, eV/Å; energies must agree to 1e-5 eV."""
    pairs = list(zip(first, other, strict=True))
    for (e1, _), (e2, _) in pairs:
        if abs(e1 - e2) > 1e-5:
            raise RuntimeError(f"the two ways give {e1} and {e2} eV")
    return max(float(np.abs(f1 - f2).max()) for (_, f1), (_, f2) in pairs)


def _cpu() -> float:
    """Return the CPU seconds so far of this process and all that it started."""
    family = psutil.Process().children(recursive=True)
    times = [process.cpu_times() for process in family]
    return time.process_time() + sum(timing.user + timing.system for timing in times)


def isolation_cost(labels: int) -> Row:
    """Return the cost of a label through a child process beside the label itself."""
    level, frames = toy_level(), _frames(CASES[2], labels, 0)
    with IsolatedLabeller(level) as child, TemporaryDirectory() as folder:
        child.label(frames[0])
        through = _each(child.label, frames)
        direct = _each(DirectLabeller(level).label, frames)
        cache, label = LabelCache(folder), DirectLabeller(level).label(frames[0])
        seconds = _each(lambda frame: cache.put(replace(label, frame=frame.id)), frames)
    extra = (through - direct) * 1e3  # ms
    return {
        "through a child, ms": through * 1e3,
        "directly, ms": direct * 1e3,
        "isolation, ms": extra,
        "cache, ms": seconds * 1e3,
        "% of a one-second label": (extra + seconds * 1e3) / 10,
    }


def _each(do: Callable[[Frame], object], frames: Sequence[Frame]) -> float:
    """Return the median wall seconds."""
    times = []
    for frame in frames:
        began = time.perf_counter()
        do(frame)
        times.append(time.perf_counter() - began)
    return median_range(times)["median"]


if __name__ == "__main__":
    main()
