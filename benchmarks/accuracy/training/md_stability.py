"""Stability of MD on trained models: long runs, and short ones by time step.

    python -m benchmarks.accuracy.training.md_stability --data FILE.npz
        --model NAME=FILE ... [--part long|steps|both] [--work FOLDER] [--quick]
        [--json FILE]

FILE.npz holds a molecule: `z` (atoms,) and positions `cc_R` (frames, atoms, 3) in Å, as
the CCSD(T) data of MD17 (sgdml.org) do. Models are files of `alloop export --model`.

long: Figure 6a of ASTEROID (Bukharin et al., ICML 2023), benzene there: Langevin
dynamics at 500 K, 0.5 fs, friction 0.002 in ASE's units, 10,000 steps. steps: Figure
6b, aspirin there: of 20 runs of 1 ps each, how many hold, by time step.

A run holds while its largest distance between two atoms stays under 1.5 times the
largest in the reference frames, and everything is finite; it is checked every 10 steps
(5 fs at most). The paper states no threshold. No guard rail stops a walker; the last
column counts runs that alloop's guards would have stopped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import units

from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.generation import load, to_bytes
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.frame_collector import ScoredFrames
from alloop.md.guards import Guards
from alloop.md.integrate import Langevin, maxwell_boltzmann
from alloop.potentials.compiled import compiled_for
from benchmarks.common import Row, Rows, make_parser, make_table, show, write_json

TEMPERATURE = 500.0  # K
FRICTION = 0.002 * units.fs  # 1/fs: 0.002 in ASE's unit of time
LIMIT_FACTOR = 1.5  # times the largest distance of the reference
CHECK_INTERVAL = 5.0  # fs at most between two looks
GRID = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)  # fs
_OFF = Guards(force=None, contact=None, bond=None, heat=None)


@dataclass(frozen=True)
class Workload:
    """Steps of the long run; runs, and fs of each, of the short ones."""

    steps: int
    runs: int
    length: float
    grid: tuple[float, ...]


FULL = Workload(10_000, 20, 1000.0, GRID)
QUICK = Workload(1000, 5, 100.0, (0.5, 2.0))


@dataclass(frozen=True, slots=True, eq=False)
class Molecule:
    """Reference frames, and the largest distance in Å at which a run still holds."""

    frames: tuple[Frame, ...]
    limit: float


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A trained potential, and the id of its content."""

    potential: Potential
    id: str


@dataclass(slots=True, eq=False)
class HeldRuns:
    """The runs that hold so far, and the times (fs) at which the others were lost."""

    limit: float
    timestep: float
    lost: dict[int, float] = field(default_factory=dict)

    def look(self, scored: ScoredFrames) -> None:
        """Measure the walkers that move."""
        for index in map(int, np.flatnonzero(scored.eligible)):
            span = slice(*scored.batch.offsets[index : index + 2])
            if not largest_distance(scored.batch.positions[span]) < self.limit:
                self.lost.setdefault(index, scored.step * self.timestep)


def load_molecule(file: Path) -> Molecule:
    """Read the molecule of an npz file; raise InputError where it holds none."""
    try:
        with np.load(file) as data:
            numbers, positions = data["z"], data["cc_R"]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"expected z and cc_R in {file}: {error}") from error
    frames = tuple(Frame(numbers, x) for x in positions)
    return Molecule(
        frames, LIMIT_FACTOR * max(largest_distance(x.positions) for x in frames)
    )


def largest_distance(positions: Floats) -> float:
    """Return the largest distance between two atoms, Å."""
    apart = positions[:, None] - positions[None]
    return float(np.sqrt((apart**2).sum(axis=-1)).max())


def make_walkers(of: Molecule, count: int, seed: int) -> list[Walker]:
    """Return walkers at random reference frames, at the thermostat's temperature."""
    walkers = []
    for index in range(count):
        rng = random_stream(seed, f"run/{index}")
        frame = of.frames[int(rng.integers(len(of.frames)))]
        velocities = maxwell_boltzmann(frame, TEMPERATURE, rng)
        walkers.append(Walker(index, 0, frame, velocities))
    return walkers


def run_walkers(
    model: Potential, of: Molecule, timestep: float, steps: int, runs: int
) -> Row:
    """Return how many runs hold, when the first was lost, and how many guards stop."""
    begin = make_walkers(of, runs, seed=0)
    potential, _ = compiled_for(model, pack_frames([walker.frame for walker in begin]))
    stride = max(1, min(10, int(CHECK_INTERVAL / timestep)))
    plain = DynamicsSettings(Langevin(FRICTION), TEMPERATURE, timestep, stride)
    holding = HeldRuns(of.limit, timestep)
    walkers = _run(begin, potential, replace(plain, guards=_OFF), steps, holding)
    for walker in walkers:
        if walker.stopped is not None:  # not finite
            holding.lost.setdefault(walker.index, walker.step * timestep)
    guarded = _run(begin, potential, plain, steps, HeldRuns(np.inf, timestep))
    return {
        "time step, fs": timestep,
        "ps": timestep * steps / 1000,
        "runs": runs,
        "held": runs - len(holding.lost),
        "first lost, ps": min(holding.lost.values(), default=np.nan) / 1000,
        "guard trips": sum(walker.stopped is not None for walker in guarded),
    }


def _run(
    begin: Sequence[Walker],
    potential: Potential,
    dynamics: DynamicsSettings,
    steps: int,
    holding: HeldRuns,
) -> tuple[Walker, ...]:
    rngs = [random_stream(1, f"noise/{walker.index}") for walker in begin]
    with np.errstate(all="ignore"):  # what explodes overflows
        return run_dynamics(
            begin, potential, dynamics, steps, rngs, observe=holding.look
        ).walkers


# --- the two figures -----------------------------------------------------------------


def long_runs(models: Mapping[str, Model], of: Molecule, amount: Workload) -> list[Row]:
    """Return one long run of each model at 0.5 fs."""
    return [
        {"model": name} | run_walkers(model.potential, of, 0.5, amount.steps, 1)
        for name, model in models.items()
    ]


def short_runs(
    models: Mapping[str, Model], of: Molecule, amount: Workload, done: Rows
) -> list[Row]:
    """Return short runs of each model at each time step, kept as they come."""
    rows = []
    for timestep in amount.grid:
        for name, model in models.items():
            key = f"{model.id}/{timestep}/{amount.runs}/{amount.length}"
            if key not in done:
                steps = round(amount.length / timestep)
                done[key] = run_walkers(
                    model.potential, of, timestep, steps, amount.runs
                )
            rows.append({"model": name} | done[key])
    return rows


def load_models(texts: Sequence[str]) -> dict[str, Model]:
    """Load models by name; raise InputError where a name or a file is missing."""
    pairs = [text.partition("=") for text in texts]
    if wrong := [name for name, _, file in pairs if not file]:
        raise InputError(f"expected --model NAME=FILE, got {wrong[0]}")
    opened = {name: load(file) for name, _, file in pairs}
    return {name: Model(x.potential, to_bytes(x)[0]) for name, x in opened.items()}


def main() -> None:
    """Run, show, keep."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--part", choices=("long", "steps", "both"), default="both")
    parser.add_argument("--work", type=Path, default=Path("runs/md"))
    options = parser.parse_args()
    amount = QUICK if options.quick else FULL
    of, models = load_molecule(options.data), load_models(options.model)
    figures: dict[str, Any] = {"limit": of.limit}
    show(f"a run holds while no two atoms are {of.limit:.2f} Å apart")
    if options.part != "steps":
        figures["long"] = long_runs(models, of, amount)
        show(make_table("Long runs", figures["long"]))
    if options.part != "long":
        done = Rows(options.work / f"{options.data.stem}.jsonl")
        figures["steps"] = short_runs(models, of, amount, done)
        show(make_table("Short runs by time step", figures["steps"]))
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
