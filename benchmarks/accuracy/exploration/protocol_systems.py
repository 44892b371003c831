"""Systems on which protocols of fine-tuning are compared: a molecule, or a cluster.

What both have: a start, a truth, MD under their conditions, and frames that no protocol
learns from.
"""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from alloop.config.load import parse_level
from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.records import LabelSet, Predictions, Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.files.targets import replace_atomically
from alloop.labels.direct import DirectLabeller
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.frame_collector import ScoredFrames
from alloop.md.integrate import maxwell_boltzmann
from alloop.models.network import build_network
from alloop.potentials.labeller_potential import LabellerPotential
from alloop.potentials.learned import LearnedPotential
from alloop.training.label_changes import select_labels
from alloop.training.stages import Optimiser
from benchmarks.accuracy.exploration.clusters import (
    Sphere,
    histogram_distance,
    packed_cluster,
    pair_histogram,
    relaxed_cluster,
    wall_of,
)
from benchmarks.accuracy.labelled_pool import DATA, LabelledPool, read_pool
from benchmarks.common import (
    Rows,
    show,
)

NOTHING = LabelSet.of([], [], [])
_STRIDE = 10  # MD steps between two frames
_RELAXING = 100  # steps, of a packed cluster on the universal model
_SIZES = (
    *("molecule", "truth", "channels", "known", "pretrain", "generations", "labels"),
    *("walkers", "steps", "tune", "lr", "share", "own", "own_steps", "true_steps"),
    *("long_steps", "test"),
)


@dataclass(frozen=True, slots=True)
class Truth:
    """A level of theory as a potential of MD that is looked at; no descriptors."""

    inner: LabellerPotential

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:  # noqa: ARG002
        """Return energies (eV) and forces (eV/Å)."""
        return self.inner.predict(batch)

    def label(self, frames: Sequence[Frame]) -> LabelSet:
        """Return the labels of frames."""
        batch = pack_frames(frames)
        said = self.inner.predict(batch)
        return LabelSet(batch, said.energies, said.forces)


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of all MD: temperature in K, time step in fs, and a wall."""

    kelvin: float = 500.0
    timestep: float = 0.5
    wall: Sphere | None = None


METHANOL = Conditions()


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """A molecule that the universal model has not seen, and what that model knows.

    start: the molecule; independent: frames of MD at the true level; old: labelled
    frames of other molecules that the pretraining left out; known: frames of the
    pretraining. kind, settings, optimiser: of the network and its fine-tuning.
    histogram: distances in MD at the true level, of clusters.
    """

    start: Frame
    truth: Truth
    independent: LabelSet
    old: LabelSet
    known: LabelSet
    kind: str
    settings: Mapping[str, Any]
    optimiser: Optimiser = "muon"
    conditions: Conditions = METHANOL
    histogram: Floats | None = None


@dataclass(slots=True, eq=False)
class Seen:
    """Frames of MD with their step and walker, in the order of time."""

    frames: list[Frame] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    walkers: list[int] = field(default_factory=list)

    def look(self, scored: ScoredFrames) -> None:
        frames = scored.batch.frames()
        for index in np.flatnonzero(scored.eligible):
            self.frames.append(frames[int(index)])
            self.steps.append(scored.step)
            self.walkers.append(int(index))

    def spread(self, count: int, after: int = 0) -> "Seen":
        """Return `count` frames, evenly spread over the time after a step."""
        late = [i for i, step in enumerate(self.steps) if step > after]
        late = late or list(range(len(self.frames)))
        places = np.linspace(0, len(late) - 1, min(count, len(late))).round()
        return self.select([late[int(x)] for x in places])

    def select(self, chosen: Sequence[int]) -> "Seen":
        """Return the frames with these indices."""
        return Seen(
            [self.frames[i] for i in chosen],
            [self.steps[i] for i in chosen],
            [self.walkers[i] for i in chosen],
        )

    def late(self, after: int) -> "Seen":
        """Return all frames after a step."""
        return self.select([i for i, step in enumerate(self.steps) if step > after])


def make_system(options: Namespace, seed: int, rows: Rows) -> System:
    """Return the molecule or cluster, with frames that no arm learns from."""
    if options.cluster:
        return make_cluster(options, seed, rows)
    pool = read_pool(DATA / "molecules.npz")
    index = pool.names.index(options.molecule)
    truth = Truth(LabellerPotential(DirectLabeller(parse_level(options.truth))))
    start = pool.start[index]
    seen, _ = move(
        fresh_walkers(start, options.walkers, seed, "independent"),
        truth,
        options.true_steps,
        seed,
        "independent",
    )
    learned, old = _pretraining_frames(pool, index, options, seed)
    frames = seen.spread(options.test, options.true_steps // 4).frames
    return System(
        start=start,
        truth=truth,
        independent=truth.label(frames),
        old=old,
        known=learned,
        kind="painn",
        settings={"channels": options.channels},
    )


def make_cluster(options: Namespace, seed: int, rows: Rows) -> System:
    """Return a packed cluster; its MD at the true level is a file once it has run.

    The row of the arm `truth` says how far its walkers' distances are apart.
    """
    universal = LearnedPotential(build_network("so3lr"), {})
    conditions = Conditions(options.kelvin, options.timestep, wall_of(options.cluster))
    truth = Truth(LabellerPotential(DirectLabeller(parse_level(options.truth))))
    packed = packed_cluster(options.cluster, seed)
    covering = universal.covering(pack_frames([packed]))
    start = relaxed_cluster(packed, covering, _RELAXING)
    seen = _true_run(start, truth, conditions, options, seed)
    halves = [
        pair_histogram(
            [f for f, w in zip(seen.frames, seen.walkers, strict=True) if w % 2 == half]
        )
        for half in (0, 1)
    ]
    key = row_key(options, seed, "truth", "long")
    if key not in rows:
        rows[key] = {"rdf": histogram_distance(*halves)}
    pool = read_pool(DATA / "molecules.npz")
    learned, old = (
        _labelled_by(universal, labels.batch)
        for labels in _pretraining_frames(pool, -1, options, seed)
    )
    return System(
        start=start,
        truth=truth,
        independent=truth.label(seen.spread(options.test).frames),
        old=old,
        known=learned,
        kind="so3lr",
        settings={},
        optimiser="adamw",
        conditions=conditions,
        histogram=pair_histogram(seen.frames),
    )


def _true_run(
    start: Frame,
    truth: Truth,
    conditions: Conditions,
    options: Namespace,
    seed: int,
) -> Seen:
    """Return three quarters of MD at the true level, from a file once it has run."""
    file = generation_folder(options, seed) / "truth.npz"
    if not file.exists():
        seen, _ = move(
            fresh_walkers(start, options.walkers, seed, "independent", conditions),
            truth,
            options.true_steps,
            seed,
            "independent",
            conditions,
        )
        late = seen.late(options.true_steps // 4)
        write_arrays(
            file,
            positions=np.array([frame.positions for frame in late.frames]),
            steps=np.array(late.steps),
            walkers=np.array(late.walkers),
        )
        show(f"MD at the true level, seed {seed}")
    with np.load(file) as arrays:
        frames = [replace(start, positions=r) for r in arrays["positions"]]
        return Seen(frames, arrays["steps"].tolist(), arrays["walkers"].tolist())


def _labelled_by(universal: LearnedPotential, frames: Batch) -> LabelSet:
    said = universal.covering(frames).predict(frames)
    return LabelSet(frames, said.energies, said.forces)


def _pretraining_frames(
    pool: LabelledPool, index: int, options: Namespace, seed: int
) -> tuple[LabelSet, LabelSet]:
    """Return GFN2-xTB labels of the other molecules: to learn, and held out."""
    others = np.flatnonzero(pool.molecules != index)
    order = random_stream(seed, "protocols/pretraining").permutation(others)
    labels = pool.label_set("cheap", order[: options.known + options.test])
    train = np.arange(len(labels))
    return select_labels(labels, train[: options.known]), select_labels(
        labels, train[options.known :]
    )


def fresh_walkers(
    start: Frame, count: int, seed: int, name: str, at: Conditions = METHANOL
) -> tuple[Walker, ...]:
    """Return walkers at a structure, with velocities of their own."""
    rngs = _streams(count, seed, f"{name}/start")
    return tuple(
        Walker(i, 0, start, maxwell_boltzmann(start, 2 * at.kelvin, rng))
        for i, rng in enumerate(rngs)
    )


def move(
    walkers: Sequence[Walker],
    potential: Potential,
    steps: int,
    seed: int,
    name: str,
    at: Conditions = METHANOL,
) -> tuple[Seen, tuple[Walker, ...]]:
    """Return the frames that walkers pass, and the walkers after these steps."""
    seen, rngs = Seen(), _streams(len(walkers), seed, f"{name}/noise")
    begin = [replace(walker, step=0) for walker in walkers]
    if isinstance(potential, LearnedPotential):
        potential = potential.covering(pack_frames([begin[0].frame]))
    settings = DynamicsSettings(
        temperature=at.kelvin, timestep=at.timestep, stride=_STRIDE
    )
    biases = () if at.wall is None else (at.wall,)
    moved = run_dynamics(
        begin, potential, settings, steps, rngs, observe=seen.look, biases=biases
    )
    return seen, moved.walkers


def _streams(count: int, seed: int, name: str) -> list[np.random.Generator]:
    return [random_stream(seed, f"protocols/{name}/{i}") for i in range(count)]


def row_key(options: Namespace, seed: int, arm: str, what: object) -> str:
    """Return the key of a row: all that it depends on."""
    return f"{all_sizes(options)}/{seed}/{arm}/{what}"


def all_sizes(options: Namespace) -> str:
    """Return all that the rows of an arm and a seed depend on besides."""
    values = {name: getattr(options, name) for name in _SIZES}
    if options.cluster:
        at = f"{options.kelvin:g}K-{options.timestep:g}fs"
        values |= {"molecule": f"{options.cluster}-{at}", "channels": 0, "pretrain": 0}
    return "-".join(map(str, values.values()))


def generation_folder(options: Namespace, seed: int) -> Path:
    """Return the folder of a seed's labels, walkers and models."""
    folder: Path = options.out / "periodic" / all_sizes(options) / str(seed)
    return folder


def write_arrays(file: Path, **arrays: np.ndarray[Any, Any]) -> None:
    """Write an npz file as a whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(file) as partial, partial.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
