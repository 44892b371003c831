"""Frames at two levels as labels in eV and Å: who trains, who judges.

A molecule is an npz file: `z` (atoms,), the atomic numbers; `cc_R` (frames, atoms, 3)
in Å with `cc_E` (frames,) in kcal/mol and `cc_F` in kcal/mol/Å at the expensive level;
`dft_R`, `dft_E` and `dft_F` likewise at the cheap one (of other frames, or of the
same). It may hold `cctest_R`, `cctest_E` and `cctest_F`, a test set; `asteroid_shuffle`
(frames,), the order in which expensive frames are taken, otherwise drawn once; `dft2_*`
in place of `dft_*`; and `dft_kind`, a text with the word "approximate" where the cheap
energies are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from scipy.spatial import cKDTree

from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Label, LabelSet
from alloop.core.seeds import random_stream
from alloop.core.units import KCAL_PER_MOL, Floats, Integers
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import level_from_name
from alloop.training.label_changes import joined_labels, select_labels

MD17 = ("ethanol", "benzene", "aspirin")
MOLECULES = (*MD17, "h2co")
MOST = 400  # expensive labels that training may see
PER_RATIO = 50  # cheap frames for each unit of the cost ratio: 50 expensive labels less
_TWIN = 1e-4  # Å between sorted distances: the same geometry
_H2CO = {  # files of the same geometries, by level
    "b3lyp": "h2co_B3LYP_cc-pVDZ_4001.npz",
    "mp2": "h2co_mp2_avtz_4001.npz",
    "ccsd(t)": "h2co_ccsdt_avtz_4001.npz",
}
_PLACES = {  # of ASTEROID's shuffle of 1000, and a test set beyond them
    "expensive": slice(MOST),
    "choosing": slice(400, 450),
    "stopping": slice(950, 1000),
    "test": slice(1000, 1500),
}
_SHARES = {  # the same places as shares of the expensive frames that a file holds
    "expensive": (0.0, 0.4),
    "choosing": (0.4, 0.45),
    "test": (0.45, 0.95),
    "stopping": (0.95, 1.0),
}
_SMALLEST_FILE = 40  # expensive frames of a file, of which two are left to judge


@dataclass(frozen=True, slots=True, eq=False)
class Sets:
    """The label sets of one row of the benchmark.

    expensive: of these standard training takes 250 and the others 200. twins: cheap
    labels of the same geometries, set by set, where there are any. stopping and
    choosing judge: the paper's validation frames, and 50 more for γ and ideas.
    approximate: the data call the cheap energies so, and no loss may see them.
    left_out: how many frames of which set are not used, since their geometry stands in
    a set that judges (or, of a set that judges, in one that teaches).
    """

    cheap: LabelSet
    expensive: LabelSet
    stopping: LabelSet
    choosing: LabelSet
    test: LabelSet
    twins: Mapping[str, LabelSet] = field(default_factory=dict)
    approximate: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict)


def load(folder: Path, molecule: str, ratio: int, multi: bool = False) -> Sets:
    """Return the sets of a molecule at a cost ratio.

    molecule: `h2co`, the name of a file in md17_ccsd/ or in the folder itself, or the
    path of a file. multi: with cheap labels of all three molecules of MD17. Raises
    InputError where there is no such file, where it lacks something, and where there
    are fewer cheap frames than the ratio stands for.
    """
    if molecule == "h2co":
        return _h2co(folder / "h2co", ratio)
    sets = _md17(molecule_file(folder, molecule), ratio)
    if not multi:
        return sets
    if molecule not in MD17:
        raise InputError(
            f"expected one of {', '.join(MD17)} with cheap labels of all three, got "
            f"{molecule}"
        )
    names = [name for name in MD17 if name != molecule]
    others = [_md17(molecule_file(folder, name), ratio) for name in names]
    return replace(
        sets,
        cheap=joined_labels(sets.cheap, *(other.cheap for other in others)),
        approximate=sets.approximate or any(other.approximate for other in others),
    )


def molecule_file(folder: Path, molecule: str) -> Path:
    """Return the file of a molecule; raise InputError where there is none."""
    name = f"{molecule}.npz"
    places = (folder / "md17_ccsd" / name, folder / name, Path(molecule))
    for place in places:
        if place.is_file():
            return place
    raise InputError(
        f"expected the name or the path of an npz file, found no {molecule} in "
        f"{folder / 'md17_ccsd'} or {folder}"
    )


def molecule_name(molecule: str) -> str:
    """Return the name of a molecule that was given as a name or as a file."""
    return Path(molecule).name.removesuffix(".npz")


def first_labels(labels: LabelSet, count: int) -> LabelSet:
    """Return the first labels of a set; raise InputError where there are fewer."""
    if count > len(labels):
        raise InputError(
            f"expected {count} expensive labels to train on, the data have "
            f"{len(labels)}; ask for fewer"
        )
    return select_labels(labels, np.arange(count))


def _read_arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of a file; raise InputError where it lacks one."""
    try:
        with np.load(path) as file:
            data: dict[str, Any] = dict(file)
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise InputError(
            f"expected an npz of plain arrays, {path} cannot be read ({error})"
        ) from error
    missing = [x for x in ("z", "cc_R", "cc_E", "cc_F") if x not in data]
    if missing:
        raise InputError(
            f"expected {', '.join(missing)} in {path}, it holds {', '.join(data)}"
        )
    if len(data["cc_R"]) < _SMALLEST_FILE:
        raise InputError(
            f"expected {_SMALLEST_FILE} expensive frames or more in {path}, got "
            f"{len(data['cc_R'])}"
        )
    _require_shapes(path, data)
    return data


def _require_shapes(path: Path, data: Mapping[str, Any]) -> None:
    """Raise InputError where arrays do not fit each other, or are not finite."""
    atoms = np.size(data["z"])
    for prefix in ("cc", "cctest", "dft", "dft2"):
        if f"{prefix}_R" not in data:
            continue
        frames = len(data[f"{prefix}_R"])
        shapes = {"R": (frames, atoms, 3), "E": (frames,), "F": (frames, atoms, 3)}
        for name, shape in shapes.items():
            array = np.asarray(data.get(f"{prefix}_{name}"))
            if array.shape != shape or array.dtype.kind not in "iuf":
                raise InputError(
                    f"expected numbers {prefix}_{name} {shape} for {frames} frames of "
                    f"{atoms} atoms in {path}, got {array.dtype} {array.shape}"
                )
            if not np.isfinite(array).all():
                raise InputError(
                    f"expected finite numbers in {prefix}_{name} of {path}, got nan or "
                    "inf"
                )
    frames = len(data["cc_R"])
    order = np.asarray(data.get("asteroid_shuffle", np.zeros(0, np.int64)))
    inside = order.dtype.kind in "iu" and bool(((order >= 0) & (order < frames)).all())
    if order.ndim != 1 or not inside or len(np.unique(order)) < len(order):
        raise InputError(
            f"expected an asteroid_shuffle of different numbers from 0 to {frames - 1} "
            f"in {path}"
        )


def _md17(path: Path, ratio: int) -> Sets:
    data, molecule = _read_arrays(path), molecule_name(path.name)
    z, unit = data["z"], KCAL_PER_MOL

    def labels(prefix: str) -> LabelSet:
        if f"{prefix}_R" not in data:
            return select_labels(labels("cc"), np.zeros(0, np.int64))
        R, E, F = (data[f"{prefix}_{name}"] for name in "REF")
        return _labels(np.tile(z, (len(R), 1)), R, E * unit, F * unit)

    cc = labels("cc")
    order = data.get("asteroid_shuffle")
    if order is None:
        order = random_stream(0, molecule).permutation(len(cc))
    places = {
        name: order[round(low * len(order)) : round(high * len(order))]
        for name, (low, high) in _SHARES.items()
    }
    label_sets = {
        name: select_labels(cc, places[name]) for name in ("stopping", "choosing")
    }
    official = "cctest_R" in data
    label_sets["test"] = (
        labels("cctest") if official else select_labels(cc, places["test"])
    )
    expensive = select_labels(cc, places["expensive"])
    judges: dict[str, LabelSet] = {}
    left_out: dict[str, int] = {}
    for name, labels_ in label_sets.items():
        apart = find_unlike(labels_, expensive, *judges.values())
        judges[name], left_out[name] = (
            select_labels(labels_, apart),
            len(labels_) - len(apart),
        )
    source = "dft2" if "dft2_R" in data else "dft"
    cheap = labels(source)
    apart = find_unlike(cheap, cc, *judges.values())
    if len(apart) < PER_RATIO * ratio:
        # Both levels have the same frames: the twins of expensive labels that are
        # learned from may teach too; those of frames that judge may not.
        aside = np.setdiff1d(order, places["expensive"])
        apart = find_unlike(cheap, select_labels(cc, aside), *judges.values())
    left_out["cheap"] = len(cheap) - len(apart)
    own = {"expensive": expensive, **judges}
    return Sets(
        cheap=_take_cheap(select_labels(cheap, apart), molecule, ratio),
        expensive=expensive,
        stopping=judges["stopping"],
        choosing=judges["choosing"],
        test=judges["test"],
        twins=_twins(cheap, own),
        approximate="approximate" in str(data.get(f"{source}_kind", "")),
        left_out={name: many for name, many in left_out.items() if many},
    )


def _twins(cheap: LabelSet, sets: Mapping[str, LabelSet]) -> dict[str, LabelSet]:
    """Return cheap labels of the frames of all sets; none where one has no twin.

    A twin has the same positions: forces of a turned one are turned too.
    """
    if not len(cheap):
        return {}
    size = int(cheap.batch.sizes[0])
    tree = cKDTree(cheap.batch.positions.reshape(len(cheap), -1))
    by_name: dict[str, LabelSet] = {}
    for name, labels in sets.items():
        there = labels.batch.positions.reshape(len(labels), -1)
        apart, rows = tree.query(there, p=np.inf)
        if not (apart < _TWIN).all():
            return {}
        forces = cheap.forces.reshape(-1, size, 3)[rows].reshape(-1, 3)
        by_name[name] = LabelSet(labels.batch, cheap.energies[rows], forces)
    return by_name


def _take_cheap(cheap: LabelSet, molecule: str, ratio: int) -> LabelSet:
    """Return the cheap frames of a ratio; raise InputError where there are fewer."""
    count = PER_RATIO * ratio
    if len(cheap) < count:
        raise InputError(
            f"expected {count} cheap frames of {molecule} for ratio {ratio}, the data "
            f"have {len(cheap)} that are not judged on; take ratio "
            f"{len(cheap) // PER_RATIO} or lower, {PER_RATIO} cheap labels each"
            if len(cheap) >= PER_RATIO
            else f"expected cheap frames of {molecule}, the data have {len(cheap)} "
            "that are not judged on; bring some"
        )
    return select_labels(cheap, np.arange(count))


def h2co_labels(folder: Path, level: str) -> LabelSet:
    """Return all labels of formaldehyde at b3lyp, mp2 or ccsd(t), of the same frames.

    folder: that which holds h2co/; InputError where the files are not there.
    """
    return _h2co_level(folder / "h2co", level)


def _h2co_level(folder: Path, level: str) -> LabelSet:
    names = (_H2CO[level], _H2CO["ccsd(t)"])
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise InputError(f"expected {' and '.join(absent)} in {folder}, found none")
    with np.load(folder / names[0]) as labels, np.load(folder / names[1]) as frames:
        # The geometries differ in their last bit, which a rounding may make visible.
        return _labels(frames["Z"], frames["R"], labels["E"], labels["F"])


def _h2co(folder: Path, ratio: int) -> Sets:
    cheap, expensive = (_h2co_level(folder, level) for level in ("b3lyp", "ccsd(t)"))
    order = random_stream(0, "h2co").permutation(len(cheap))
    twins, own = (
        {k: select_labels(x, order[v]) for k, v in _PLACES.items()}
        for x in (cheap, expensive)
    )
    spare = select_labels(cheap, order[1500:])
    return Sets(
        cheap=_take_cheap(spare, "h2co", ratio),
        expensive=own["expensive"],
        stopping=own["stopping"],
        choosing=own["choosing"],
        test=own["test"],
        twins=twins,
    )


def _labels(Z: Integers, R: Floats, E: Floats, F: Floats) -> LabelSet:
    frames = [Frame(z, x) for z, x in zip(Z, R.astype(np.float64), strict=True)]
    return LabelSet(
        pack_frames(frames), E.astype(np.float64), F.astype(np.float64).reshape(-1, 3)
    )


def find_unlike(labels: LabelSet, *known: LabelSet) -> Integers:
    """Return the indices of frames whose geometry is new.

    It occurs neither in the known sets nor earlier in their own; turned and mirrored
    ones are the same.
    """
    if not len(labels):
        return np.zeros(0, np.int64)
    ours = _distances(labels)
    fresh = np.ones(len(ours), dtype=np.bool_)
    for other in known:
        nearest, _ = cKDTree(_distances(other)).query(ours, p=np.inf)
        fresh &= nearest > _TWIN
    fresh[[j for _, j in sorted(cKDTree(ours).query_pairs(_TWIN, p=np.inf))]] = False
    return np.flatnonzero(fresh)


def _distances(labels: LabelSet) -> Floats:
    """Return all distances in each frame of one molecule (frames, pairs), Å."""
    size = int(labels.batch.sizes[0])
    x = labels.batch.positions.reshape(-1, size, 3)
    i, j = np.triu_indices(size, 1)
    out: Floats = np.linalg.norm(x[:, i] - x[:, j], axis=2)
    return out


def label_at_level(frames: Sequence[Frame], level: str) -> LabelSet:
    """Return labels of all frames, eV and eV/Å; raise RuntimeError where one fails."""
    labeller = DirectLabeller(level_from_name(level))
    made = [labeller.label(frame) for frame in frames]
    good = [label for label in made if isinstance(label, Label)]
    if len(good) < len(made):
        failed = len(made) - len(good)
        raise RuntimeError(f"expected {level} labels of all frames, {failed} failed")
    energies = np.array([label.energy for label in good])
    return LabelSet(
        pack_frames(frames), energies, np.concatenate([x.forces for x in good])
    )
