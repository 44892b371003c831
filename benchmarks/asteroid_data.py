"""Published frames at two levels as labels in eV and Å: who trains, who judges."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from alloop.core.batch import pack
from alloop.core.frame import Frame
from alloop.core.records import LabelSet
from alloop.core.seeds import stream
from alloop.core.units import KCAL_PER_MOL, Floats, Integers
from alloop.training.correct import joined, rows

MD17 = ("ethanol", "benzene", "aspirin")
MOLECULES = (*MD17, "h2co")
MOST = 400  # expensive labels that training may see
PER_RATIO = 50  # cheap frames for each unit of the cost ratio: 50 expensive labels less
_TWIN = 1e-4  # Å between sorted distances: the same geometry
_LEVELS = ("h2co_B3LYP_cc-pVDZ_4001.npz", "h2co_ccsdt_avtz_4001.npz")
_PLACES = {  # of ASTEROID's shuffle of 1000, and a test set beyond them
    "expensive": slice(MOST),
    "choosing": slice(400, 450),
    "stopping": slice(950, 1000),
    "test": slice(1000, 1500),
}


@dataclass(frozen=True, slots=True, eq=False)
class Sets:
    """What one row of the benchmark sees, but for the test set.

    expensive: of these standard training takes 250 and the others 200. twins: cheap
    labels of the same geometries, set by set, where there are any. stopping and
    choosing judge: the paper's validation frames, and 50 more for γ and ideas.
    """

    cheap: LabelSet
    expensive: LabelSet
    stopping: LabelSet
    choosing: LabelSet
    test: LabelSet
    twins: Mapping[str, LabelSet] = field(default_factory=dict)


def load(folder: Path, molecule: str, ratio: int, multi: bool = False) -> Sets:
    """The sets of a molecule at a cost ratio; with multi, cheap labels of all three
    molecules of MD17."""
    if molecule == "h2co":
        return _h2co(folder / "h2co", ratio)
    sets = _md17(folder / "md17_ccsd", molecule, ratio)
    if not multi:
        return sets
    others = [name for name in MD17 if name != molecule]
    more = [_md17(folder / "md17_ccsd", name, ratio).cheap for name in others]
    return replace(sets, cheap=joined(sets.cheap, *more))


def _md17(folder: Path, molecule: str, ratio: int) -> Sets:
    with np.load(folder / f"{molecule}.npz") as file:
        data: dict[str, Any] = dict(file)
    z, unit = data["z"], KCAL_PER_MOL

    def labels(prefix: str) -> LabelSet:
        R, E, F = (data[f"{prefix}_{name}"] for name in "REF")
        return _labels(np.tile(z, (len(R), 1)), R, E * unit, F * unit)

    cc, order = labels("cc"), data["asteroid_shuffle"]
    cheap = labels("dft2" if "dft2_R" in data else "dft")
    apart = _unlike(cheap, cc)
    test = labels("cctest") if "cctest_R" in data else rows(cc, order[450:950])
    return Sets(
        cheap=rows(cheap, apart[: PER_RATIO * ratio]),
        expensive=rows(cc, order[:MOST]),
        stopping=rows(cc, order[950:1000]),
        choosing=rows(cc, order[400:450]),
        test=test,
    )


def _h2co(folder: Path, ratio: int) -> Sets:
    with np.load(folder / _LEVELS[0]) as low, np.load(folder / _LEVELS[1]) as high:
        # The geometries differ in their last bit, which a rounding may make visible.
        Z, R = high["Z"], high["R"]
        cheap, expensive = (_labels(Z, R, x["E"], x["F"]) for x in (low, high))
    order = stream(0, "h2co").permutation(len(cheap))
    twins, own = (
        {k: rows(x, order[v]) for k, v in _PLACES.items()} for x in (cheap, expensive)
    )
    return Sets(
        cheap=rows(cheap, order[1500 : 1500 + PER_RATIO * ratio]), twins=twins, **own
    )


def _labels(Z: Integers, R: Floats, E: Floats, F: Floats) -> LabelSet:
    frames = [Frame(z, x) for z, x in zip(Z, R.astype(np.float64), strict=True)]
    return LabelSet(
        pack(frames), E.astype(np.float64), F.astype(np.float64).reshape(-1, 3)
    )


def _unlike(labels: LabelSet, known: LabelSet) -> Integers:
    """Frames of a molecule whose geometry does not occur among the known ones."""
    ours, theirs = (_distances(x) for x in (labels, known))
    apart = [float(np.abs(theirs - row).max(axis=1).min()) for row in ours]
    return np.flatnonzero(np.array(apart) > _TWIN)


def _distances(labels: LabelSet) -> Floats:
    """All distances of each frame of one molecule (frames, pairs), Å."""
    size = int(labels.batch.sizes[0])
    x = labels.batch.positions.reshape(-1, size, 3)
    i, j = np.triu_indices(size, 1)
    out: Floats = np.linalg.norm(x[:, i] - x[:, j], axis=2)
    return out
