"""Sets of frames unlike a training set, of `benchmarks.accuracy.shift.frames`."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alloop.config.load import parse_level
from alloop.core.frame import Frame
from alloop.core.records import Label, LabelSet, TrainingData
from alloop.core.seeds import random_stream
from alloop.core.units import ENERGY_UNITS, Floats, Integers
from alloop.jobs.label_frames import label_frames
from alloop.refine.shifts import force_norms
from alloop.training.label_changes import joined_labels, select_labels
from benchmarks.accuracy.labelled_pool import (
    DATA,
    LabelledPool,
    formaldehyde,
    read_pool,
)

_KCAL = ENERGY_UNITS["kcal/mol"]
_LEFT_OUT = 8  # molecules of 32
_TO_BUY = 20  # test frames at most, whose expensive labels may be bought
_SEEN = 6  # frames with the rare element
FLUORINE = 9


@dataclass(frozen=True, slots=True, eq=False)
class ShiftSet:
    """A training set, and frames that lie outside of it.

    train: labels at both levels; held_out: expensive ones, inside. cheap and expensive:
    labels of the test frames, at both levels; bought: expensive labels of other frames
    of the same systems, the first to be bought first. systems (test frames,): the index
    of each frame's system. ratio: the price of an expensive label in cheap ones.
    """

    train: TrainingData
    held_out: LabelSet
    cheap: LabelSet
    expensive: LabelSet
    bought: LabelSet
    systems: Integers
    ratio: float


@dataclass(frozen=True, slots=True, eq=False)
class BothLevels:
    """Labels of the same frames at both levels."""

    cheap: LabelSet
    expensive: LabelSet

    def select(self, chosen: Integers) -> "BothLevels":
        """Return the labels of some frames."""
        return BothLevels(
            select_labels(self.cheap, chosen), select_labels(self.expensive, chosen)
        )


def new_molecule(options: Namespace, seed: int) -> ShiftSet:
    """Return aspirin and benzene for training, ethanol for the test.

    CCSD (aspirin) and CCSD(T) labels of MD17 at 500 K (Chmiela et al., Nat. Commun. 9,
    3887, 2018); GFN2-xTB labels are made here and kept in the folder.
    """
    first = [_md17(options, name, options.train // 2 + 50) for name in _MD17[:2]]
    inside = [
        random_stream(seed, f"shift/{name}").permutation(options.train // 2 + 50)
        for name in _MD17[:2]
    ]
    learned = [x.select(indices[50:]) for x, indices in zip(first, inside, strict=True)]
    held = [x.select(indices[:50]) for x, indices in zip(first, inside, strict=True)]
    other = _md17(options, "ethanol", options.test + 50)
    order = random_stream(seed, "shift/ethanol").permutation(options.test + 50)
    test, rest = (
        other.select(order[: options.test]),
        other.select(order[options.test :]),
    )
    return ShiftSet(
        train=TrainingData(
            joined_labels(*(x.cheap for x in learned)),
            joined_labels(*(x.expensive for x in learned)),
        ),
        held_out=joined_labels(*(x.expensive for x in held)),
        cheap=test.cheap,
        expensive=test.expensive,
        bought=rest.expensive,
        systems=np.zeros(options.test, dtype=np.int64),
        ratio=options.ratio,
    )


def high_forces(options: Namespace, seed: int) -> ShiftSet:
    """Return formaldehyde, trained below the median force norm, tested on the top 10 %.

    B3LYP/cc-pVDZ under CCSD(T)/aug-cc-pVTZ (Käser et al., J. Phys. Chem. A 124, 8853,
    2020).
    """
    pool = formaldehyde(options.data)
    labels = _both(pool, np.arange(len(pool.frames)))
    norms = force_norms(labels.expensive.batch, labels.expensive.forces)
    order = random_stream(seed, "shift/formaldehyde").permutation(len(norms))
    low = order[norms[order] < np.median(norms)]
    high = order[norms[order] > np.quantile(norms, 0.9)]
    return _parts(options, labels, low, high, np.zeros(len(norms), dtype=np.int64))


def left_out_molecules(options: Namespace, seed: int) -> ShiftSet:
    """Return 32 small molecules, of which 8 are left out of the training.

    GFN2-xTB under HF/def2-SVP, frames of normal modes and MD: `data/molecules.npz`.
    """
    pool = read_pool(DATA / "molecules.npz")
    labels = _both(pool, np.arange(len(pool.frames)))
    rng = random_stream(seed, "shift/molecules")
    left = rng.permutation(len(pool.names))[:_LEFT_OUT]
    order = rng.permutation(len(pool.frames))
    out = np.isin(pool.molecules[order], left)
    return _parts(options, labels, order[~out], order[out], pool.molecules)


def left_out_indices(pool: LabelledPool, seed: int) -> list[int]:
    """Return the indices of the molecules that `left_out_molecules` leaves out."""
    order = random_stream(seed, "shift/molecules").permutation(len(pool.names))
    molecules: list[int] = order[:_LEFT_OUT].tolist()
    return molecules


def high_forces_of_ethanol(options: Namespace, seed: int) -> ShiftSet:
    """Return MD of ethanol at 300 to 1500 K, cut by force norms.

    GFN2-xTB under HF/def2-SVP: `data/ethanol.npz`. Trained below the median norm,
    tested on the top fifth.
    """
    pool, origins = _ethanol()
    moving = np.flatnonzero(np.char.startswith(origins, "md"))
    labels = _both(pool, np.arange(len(pool.frames)))
    norms = force_norms(labels.expensive.batch, labels.expensive.forces)
    order = random_stream(seed, "shift/norms").permutation(moving)
    low = order[norms[order] < np.median(norms[moving])]
    high = order[norms[order] > np.quantile(norms[moving], 0.8)]
    return _parts(options, labels, low, high, pool.molecules)


def stretched_bonds(options: Namespace, seed: int) -> ShiftSet:
    """Return ethanol, trained on ordinary MD and modes, tested on scans of its bonds.

    C-C from 1.2 to 1.9 Å, C-O to 2.0 Å and O-H, in frames of normal modes at 300 K;
    levels as above.
    """
    pool, origins = _ethanol()
    order = random_stream(seed, "shift/bonds").permutation(len(origins))
    calm = order[np.isin(origins[order], ("md300", "md500", "modes300"))]
    broken = order[np.isin(origins[order], ("c-c", "c-o", "o-h"))]
    labels = _both(pool, np.arange(len(origins)))
    return _parts(options, labels, calm, broken, pool.molecules)


def rare_element(options: Namespace, seed: int) -> ShiftSet:
    """Return the small molecules, whose fluorine is trained on in six frames alone.

    They are of H2CF2; tested on the other molecules with fluorine. An element without
    any label is refused by each refinement.
    """
    pool = read_pool(DATA / "molecules.npz")
    order = random_stream(seed, "shift/element").permutation(len(pool.frames))
    has = np.array([FLUORINE in pool.frames[i].numbers for i in order], dtype=np.bool_)
    is_known = pool.molecules[order] == pool.names.index("H2CF2")
    inside = np.concatenate([order[has & is_known][:_SEEN], order[~has]])
    labels = _both(pool, np.arange(len(pool.frames)))
    return _parts(options, labels, inside, order[has & ~is_known], pool.molecules)


def _ethanol() -> tuple[LabelledPool, np.ndarray]:
    """Return the pool of ethanol, and the origin of each frame."""
    file = DATA / "ethanol.npz"
    with np.load(file) as raw:
        return read_pool(file), raw["origins"][raw["origin"]]


SETS: Mapping[str, Callable[[Namespace, int], ShiftSet]] = {
    "molecules": left_out_molecules,
    "norms-ethanol": high_forces_of_ethanol,
    "norms-formaldehyde": high_forces,
    "bonds": stretched_bonds,
    "element": rare_element,
    "md17": new_molecule,
}
_MD17 = ("aspirin", "benzene", "ethanol")


def _parts(
    options: Namespace,
    labels: BothLevels,
    inside: Integers,
    outside: Integers,
    systems: Integers,
) -> ShiftSet:
    """Cut frames: inside, training and held-out; outside, test and those to buy.

    Where there are few, fewer are trained and tested on.
    """
    count = min(options.train, len(inside) - options.held)
    learned = labels.select(inside[:count])
    held = inside[count : count + options.held]
    tested_on = min(options.test, len(outside) - _TO_BUY)
    test, rest = outside[:tested_on], outside[tested_on:]
    tested = labels.select(test)
    return ShiftSet(
        train=TrainingData(learned.cheap, learned.expensive),
        held_out=labels.select(held).expensive,
        cheap=tested.cheap,
        expensive=tested.expensive,
        bought=labels.select(rest).expensive,
        systems=systems[test],
        ratio=options.ratio,
    )


def _both(pool: LabelledPool, indices: Integers) -> BothLevels:
    return BothLevels(
        pool.label_set("cheap", indices), pool.label_set("expensive", indices)
    )


def _md17(options: Namespace, name: str, count: int) -> BothLevels:
    """Return the first frames of MD17 in ASTEROID's order, with labels of GFN2-xTB."""
    with np.load(options.data / "md17_ccsd" / f"{name}.npz") as file:
        chosen = file["asteroid_shuffle"][:count]
        numbers, R = file["z"], file["cc_R"][chosen]
        E = _KCAL * file["cc_E"].reshape(-1)[chosen]
        F = _KCAL * file["cc_F"][chosen]
    frames = [Frame(numbers, x) for x in R.astype(np.float64)]
    energies, forces = _xtb(frames, options.out / "shift" / "labels")
    return BothLevels(
        LabelSet.of(frames, energies, forces),
        LabelSet.of(frames, E.astype(np.float64), list(F.astype(np.float64))),
    )


def _xtb(frames: Sequence[Frame], cache: Path) -> tuple[list[float], list[Floats]]:
    outcomes = label_frames(frames, parse_level("gfn2-xtb"), cache=cache)
    labels = [label for label in outcomes if isinstance(label, Label)]
    if len(labels) < len(frames):
        raise SystemExit("expected a label of GFN2-xTB for each frame")
    return [label.energy for label in labels], [label.forces for label in labels]
