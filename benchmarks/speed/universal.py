"""Force calls of universal potentials: batched, one by one, and by their packages.

    python -m benchmarks.speed.universal [--quick] [--json FILE]

needs `pip install 'alloop[chgnet]'` and so3krates-torch with what its calculator needs
(`pip install --no-deps so3krates-torch==0.2.1 matscipy h5py`). CPU milliseconds a frame
on one thread, neighbours included, in alternating rounds: many frames in one call (and
by compiled code, where the network can be compiled; not with --quick), the same frames
in a call each, and the ASE calculator of the package. Ratios are the median of rounds
and their range; `best` is compiled code where there is any. Frames: shaken ethanol
(SO3LR, ANI-1x), shaken rock salt of eight atoms (CHGNet).
"""

import contextlib
import io
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from ase import Atoms
from ase.build import bulk, molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.models.network import build_network
from alloop.potentials.compiled import compiled_for
from alloop.potentials.learned import LearnedPotential
from benchmarks.common import (
    Row,
    make_parser,
    make_table,
    median_range,
    show,
    write_json,
)


@dataclass(frozen=True, slots=True)
class Size:
    """Frames in a batch, rounds of timing, and whether compiled code is timed too."""

    frames: int
    rounds: int
    compiled: bool


FULL, QUICK = Size(50, 7, True), Size(20, 3, False)


def main() -> None:
    """Time, show."""
    options = make_parser(__doc__).parse_args()
    size = QUICK if options.quick else FULL
    torch.set_num_threads(1)
    rows = [
        compare_times("so3lr", molecule("CH3CH2OH"), _so3lr_calculator, size),
        compare_times("ani", molecule("CH3CH2OH"), None, size),
        compare_times(
            "chgnet",
            bulk("NaCl", "rocksalt", a=5.6, cubic=True),
            _chgnet_calculator,
            size,
        ),
    ]
    show(make_table(f"CPU ms a frame, {size.frames} frames in a batch", rows))
    write_json(options.json, {"speed": rows})


def compare_times(
    kind: str, atoms: Atoms, package: Callable[[], Any] | None, size: Size
) -> Row:
    """Time force calls in turn; return medians and ratios."""
    shaken = _shaken(atoms, size.frames)
    batch = pack_frames([from_atoms(x) for x in shaken])
    elements = {int(z): 0.0 for z in atoms.numbers}
    potential = LearnedPotential(build_network(kind), elements)
    fast: Potential = potential
    if size.compiled:
        fast, _ = compiled_for(potential, batch)
    calls = {
        "batched": lambda: potential.predict(batch),
        "compiled": (lambda: fast.predict(batch)) if fast is not potential else None,
        "one by one": lambda: _each(potential, batch),
        "package": None if package is None else _package_calls(package(), shaken),
    }
    times = {name: [] for name in calls}  # type: dict[str, list[float]]
    for _ in range(size.rounds + 1):
        for name, call in calls.items():
            if call is not None:
                times[name].append(_cpu_milliseconds(call) / size.frames)
    row: Row = {"potential": kind}
    timed = {name: seconds[1:] for name, seconds in times.items()}  # the first warms up
    row |= {name: median(x) if x else None for name, x in timed.items()}
    best = timed["compiled"] or timed["batched"]
    for title, slow, quick in (
        ("one by one / batched", timed["one by one"], timed["batched"]),
        ("package / batched", timed["package"], timed["batched"]),
        ("package / best", timed["package"], best),
    ):
        ratios = [a / b for a, b in zip(slow, quick, strict=False)]
        row[title] = _range_text(ratios)
    return row


def _shaken(atoms: Atoms, count: int) -> list[Atoms]:
    shifts = random_stream(0, "speed").normal(0.0, 0.05, (count, len(atoms), 3))
    frames = []
    for shift in shifts:
        moved = atoms.copy()
        moved.positions += shift
        frames.append(moved)
    return frames


def _each(potential: Potential, batch: Batch) -> None:
    for index in range(len(batch)):
        potential.predict(pack_frames([batch.frame(index)]))


def _package_calls(calculator: Any, frames: Sequence[Atoms]) -> Callable[[], None]:
    def call() -> None:
        for atoms in frames:
            calculator.reset()
            calculator.calculate(atoms, ["energy", "forces"], ["positions"])

    return call


def _so3lr_calculator() -> Any:
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SO3LRCalculator(r_max_lr=1000.0, default_dtype="float32")


def _chgnet_calculator() -> Any:
    from chgnet.model.dynamics import CHGNetCalculator

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CHGNetCalculator(use_device="cpu")


def _cpu_milliseconds(call: Callable[[], Any]) -> float:
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, in the packages
        call()
    return 1e3 * (time.process_time() - began)


def _range_text(ratios: Sequence[float]) -> str | None:
    if not ratios:
        return None
    ratio = median_range(ratios)
    return f"{ratio['median']:.1f} ({ratio['low']:.1f} to {ratio['high']:.1f})"


if __name__ == "__main__":
    main()
