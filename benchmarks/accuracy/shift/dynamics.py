"""MD of a molecule left out of the training: is it stable, and are distances right?

    python -m benchmarks.accuracy.shift.dynamics --out FOLDER
    python -m benchmarks.accuracy.shift.dynamics --out FOLDER --table

The model is that of the set `molecules` of `shift.frames`, trained where FOLDER does
not hold it; the molecule is the one among those left out whose HF label
costs least, of five atoms or more. Arms: nothing; test-time training on cheap labels of
the test frames as published; the same kept only where held-out labels get worse by no
more than 2 %. Walkers begin at frames of MD at 300 K and move at constant temperature
(Langevin) and at constant energy.

A run is lost where its largest distance exceeds 1.5 times that of the pool's frames of
the molecule, or is no number. h(r) is the histogram of all distances (bins of 0.05 Å,
integral 1) of frames that hold, every 5 fs after the first 25; its error is ∫|h - h_HF|
dr, 0 to 2, against MD with HF/def2-SVP at 300 K. `halves` is that between two halves of
the reference's walkers: what its length leaves open.

A row (a seed, an arm, an ensemble, or a reference) is a line in FOLDER/shift_md.jsonl:
what is there is skipped.
"""

from argparse import Namespace
from dataclasses import dataclass, field

import numpy as np

from alloop.config.load import parse_level
from alloop.core.batch import Batch
from alloop.core.frame import Frame
from alloop.core.records import Predictions, Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.labels.child.labeller import IsolatedLabeller
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.frame_collector import ScoredFrames
from alloop.md.guards import Guards
from alloop.md.integrate import Integrator, Langevin, VelocityVerlet, maxwell_boltzmann
from alloop.potentials.labeller_potential import LabellerPotential
from benchmarks.accuracy.labelled_pool import DATA, LabelledPool, read_pool
from benchmarks.accuracy.shift.arms import ARMS
from benchmarks.accuracy.shift.frames import (
    add_options,
    parse_options,
    row_key,
    trained_model,
)
from benchmarks.accuracy.shift.sets import left_out_indices, left_out_molecules
from benchmarks.accuracy.training.md_stability import LIMIT_FACTOR, largest_distance
from benchmarks.common import Row, Rows, make_parser, make_table, show, write_json

SET = "molecules"
REFINED = ("nothing", "test-time", "guarded")
ENSEMBLES: dict[str, Integrator] = {"NVT": Langevin(0.01), "NVE": VelocityVerlet()}
LEVEL = "{level: hf/def2-svp, density_fit: true}"
KELVIN, STEP, STRIDE = 300.0, 0.5, 10  # K, fs, steps
_SETTLED = 50  # steps before the histogram
_BIN = 0.05  # Å
_OFF = Guards(force=None, contact=None, bond=None, heat=None)
_SMALLEST = 5  # atoms


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """A molecule, its frames of MD at 300 K, and the largest distance that holds, Å."""

    name: str
    frames: tuple[Frame, ...]
    limit: float


@dataclass(slots=True, eq=False)
class Distances:
    """Distances of walkers that hold, by walker, and the fs at which others are lost.

    counts (walkers, bins): of all distances.
    """

    limit: float
    counts: Floats
    lost: dict[int, float] = field(default_factory=dict)

    def look(self, scored: ScoredFrames) -> None:
        """Add the distances of a step."""
        for index in map(int, np.flatnonzero(scored.eligible)):
            r = scored.batch.positions[slice(*scored.batch.offsets[index : index + 2])]
            if not largest_distance(r) < self.limit:
                self.lost.setdefault(index, scored.step * STEP)
            if index not in self.lost and scored.step >= _SETTLED:
                pairs = np.triu_indices(len(r), 1)
                lengths = np.linalg.norm(r[:, None] - r, axis=2)[pairs]
                np.add.at(self.counts[index], (lengths / _BIN).astype(np.int64), 1.0)

    def histogram(self, walkers: slice = slice(None)) -> Floats:
        """Return h (bins,), of integral 1; NaN where no frame holds."""
        total = self.counts[walkers].sum(axis=0)
        with np.errstate(invalid="ignore"):
            out: Floats = total / (total.sum() * _BIN)
        return out


@dataclass(frozen=True, slots=True)
class Exact:
    """A level of theory as a potential of MD that is looked at; no descriptors."""

    inner: LabellerPotential

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:  # noqa: ARG002
        """Return energies (eV) and forces (eV/Å)."""
        return self.inner.predict(batch)


def left_out(pool: LabelledPool, seed: int) -> LeftOut:
    """Return the cheapest of the molecules left out, of five atoms or more."""
    seconds = pool.tables["expensive"].cpu_seconds
    assert seconds is not None
    assert pool.plain is not None
    large = [i for i in left_out_indices(pool, seed) if len(pool.start[i]) >= _SMALLEST]
    chosen = min(large, key=lambda i: seconds[pool.molecules == i].mean())
    frames = [pool.frames[i] for i in np.flatnonzero(pool.molecules == chosen)]
    calm = [pool.frames[i] for i in pool.plain if pool.molecules[i] == chosen]
    largest = max(largest_distance(frame.positions) for frame in frames)
    return LeftOut(pool.names[chosen], tuple(calm), LIMIT_FACTOR * largest)


def distances(
    potential: Potential, of: LeftOut, ensemble: str, options: Namespace, steps: int
) -> Distances:
    """Return the distances in MD of walkers from frames of the pool."""
    bins = int(of.limit / _BIN) + 2
    histogram = Distances(of.limit, np.zeros((options.walkers, bins)))
    settings = DynamicsSettings(ENSEMBLES[ensemble], KELVIN, STEP, STRIDE, guards=_OFF)
    begin, rngs = [], []
    for index in range(options.walkers):
        rng = random_stream(0, f"shift/md/{of.name}/{index}")
        frame = of.frames[int(rng.integers(len(of.frames)))]
        begin.append(Walker(index, 0, frame, maxwell_boltzmann(frame, KELVIN, rng)))
        rngs.append(rng)
    with np.errstate(all="ignore"):  # what explodes overflows
        moved = run_dynamics(
            begin, potential, settings, steps, rngs, observe=histogram.look
        )
    for walker in moved.walkers:
        if walker.stopped is not None:  # not finite
            histogram.lost.setdefault(walker.index, walker.step * STEP)
    return histogram


def reference_key(of: LeftOut, options: Namespace) -> str:
    """Return the key of the reference of a molecule."""
    return f"reference/{of.name}/{options.walkers}-{options.reference_steps}"


def reference(of: LeftOut, options: Namespace, rows: Rows) -> Row:
    """Return the histogram of MD with HF (NVT), made where it is missing."""
    key = reference_key(of, options)
    if key not in rows:
        show(f"MD of {of.name} with HF/def2-SVP")
        with IsolatedLabeller(parse_level(LEVEL)) as labeller:
            exact = Exact(LabellerPotential(labeller))
            histogram = distances(exact, of, "NVT", options, options.reference_steps)
        half = options.walkers // 2
        halves = [histogram.histogram(x) for x in (slice(half), slice(half, None))]
        rows[key] = {
            "h": histogram.histogram().tolist(),
            "halves": apart(*halves),
            "lost": len(histogram.lost),
        }
    return rows[key]


def apart(first: Floats, second: Floats) -> float:
    """Return ∫|h - h'| dr of two histograms."""
    return float(np.abs(first - second).sum() * _BIN)


def md_key(options: Namespace, seed: int, arm: str, ensemble: str) -> str:
    """Return the key of a run: all that it depends on."""
    amount = f"{options.walkers}-{options.md_steps}-{options.reference_steps}"
    return f"{row_key(options, SET, seed, arm)}/{ensemble}/{amount}"


def make_rows(options: Namespace, rows: Rows) -> None:
    """Run what is missing."""
    pool = read_pool(DATA / "molecules.npz")
    for seed in options.seed:
        pairs = [(arm, name) for arm in REFINED for name in ENSEMBLES]
        missing = [x for x in pairs if md_key(options, seed, *x) not in rows]
        if not missing:
            continue
        of = left_out(pool, seed)
        exact = np.array(reference(of, options, rows)["h"])
        test = left_out_molecules(options, seed)
        model = trained_model(options, SET, seed, test)
        system = pool.names.index(of.name)
        for arm in dict.fromkeys(arm for arm, _ in missing):
            refined = ARMS[arm](model, test, options)
            potential = refined.each.get(system, refined.inside)
            for ensemble in (name for arm_name, name in missing if arm_name == arm):
                histogram = distances(
                    potential, of, ensemble, options, options.md_steps
                )
                rows[md_key(options, seed, arm, ensemble)] = {
                    "molecule": of.name,
                    "held": options.walkers - len(histogram.lost),
                    "of": options.walkers,
                    "first lost, ps": min(histogram.lost.values(), default=np.nan)
                    / 1000,
                    "h(r) error": apart(histogram.histogram(), exact),
                }


def summary(options: Namespace, rows: Rows) -> list[Row]:
    """Return the rows that are there, seed by seed, those of a reference beside."""
    out: list[Row] = []
    pool = read_pool(DATA / "molecules.npz")
    for seed in options.seed:
        floor = reference_key(left_out(pool, seed), options)
        for arm in REFINED:
            for ensemble in ENSEMBLES:
                key = md_key(options, seed, arm, ensemble)
                if key in rows:
                    halves = rows[floor]["halves"]
                    names = {"seed": seed, "arm": arm, "ensemble": ensemble}
                    out.append({**names, **rows[key], "halves": halves})
    return out


def main() -> None:
    """Run what is missing, and show what is there."""
    parser = make_parser(__doc__)
    add_options(parser)
    add = parser.add_argument
    add("--walkers", type=int, default=4)
    add("--md-steps", type=int, default=4000, help=f"of {STEP} fs")
    add("--reference-steps", type=int, default=300, help="of MD with HF")
    options = parse_options(parser)
    if options.quick:
        options.walkers, options.md_steps, options.reference_steps = 2, 70, 60
    rows = Rows(options.out / "shift_md.jsonl")
    if not options.table:
        make_rows(options, rows)
    lines = summary(options, rows)
    if lines:
        show(make_table("MD of a molecule left out", lines))
    write_json(options.json, {"rows": lines})


if __name__ == "__main__":
    main()
