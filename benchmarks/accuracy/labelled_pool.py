"""Frozen pools: frames whose labels at both levels are known, and their test sets.

A shipped pool is a compressed npz. Arrays of all frames: Z (atomic numbers, padded by
0), R (Å, float32, the geometries that were labelled), molecule, origin and part
(indices into molecules, origins and parts) and, for each fidelity, E (eV), F (eV/Å,
float32) and cpu (CPU seconds). `benchmarks.accuracy.selection.make_pools` makes them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import LabelSet
from alloop.core.units import Floats, Integers

DATA = Path(__file__).parents[1] / "data"
LEVELS: Mapping[str, Any] = {  # of the shipped pools, as in a campaign file
    "cheap": "gfn2-xtb",
    "expensive": {"level": "hf/def2-svp", "density_fit": True},
}
PLAIN = ("md300", "md500")  # origins of frames of MD at ordinary temperatures
_SPLIT = 20_100  # the seed of the division into pool and test frames, for all arms
_TEST = 1000  # frames


@dataclass(frozen=True, slots=True, eq=False)
class LabelTable:
    """Labels of all frames at one level: energies (frames,) eV, forces eV/Å.

    cpu_seconds (frames,): what each label cost, None where nobody measured it.
    """

    energies: Floats
    forces: tuple[Floats, ...]
    cpu_seconds: Floats | None = None


@dataclass(frozen=True, eq=False)
class LabelledPool:
    """Frames of one or more molecules with labels at two levels.

    molecules (frames,): index of each frame's molecule in `start`. tables: by fidelity.
    levels: by fidelity, as in a campaign file; nothing computes them. chosen and tests:
    indices of the frames that a campaign may label and, by name, of those it is judged
    on.

    names: of the molecules in a campaign file. first and plain: those of the chosen
    that a campaign may begin with, None for all, and those of MD at ordinary
    temperatures, where that is known.
    """

    name: str
    start: tuple[Frame, ...]
    frames: tuple[Frame, ...]
    molecules: Integers
    tables: Mapping[str, LabelTable]
    levels: Mapping[str, Any]
    chosen: Integers
    tests: Mapping[str, Integers]
    names: tuple[str, ...] = ()
    first: Integers | None = None
    plain: Integers | None = None

    @cached_property
    def indices(self) -> dict[str, int]:
        """The index of each frame by its id."""
        return {frame.id: index for index, frame in enumerate(self.frames)}

    def prices(self, ratio: float | None) -> dict[str, Floats]:
        """Return by fidelity the price of each frame's label (frames,).

        In CPU seconds, the mean measured for the frame's molecule, or, where a ratio is
        given, in cheap labels. A pool that was not measured needs one: ValueError.
        """
        if ratio is not None:
            ones = np.ones(len(self.frames))
            return {"cheap": ones, "expensive": ratio * ones}
        counts, out = np.bincount(self.molecules), {}
        for fidelity, table in self.tables.items():
            if table.cpu_seconds is None:
                raise ValueError(f"expected --ratio, {self.name} has no prices")
            sums = np.bincount(self.molecules, weights=table.cpu_seconds)
            out[fidelity] = (sums / counts)[self.molecules]
        return out

    def label_set(self, fidelity: str, indices: Integers) -> LabelSet:
        """Return the labels of these frames at the fidelity."""
        table = self.tables[fidelity]
        return LabelSet(
            pack_frames([self.frames[i] for i in indices]),
            table.energies[indices],
            np.concatenate([np.zeros((0, 3)), *(table.forces[i] for i in indices)]),
        )


def formaldehyde(data: Path) -> LabelledPool:
    """Return formaldehyde: 4001 frames, B3LYP/cc-pVDZ under CCSD(T)/aug-cc-pVTZ.

    From normal modes and MD up to high energies (Käser et al., J. Phys. Chem. A 124,
    8853, 2020). Of 1000 test frames, drawn once, `all` are all and `hot` those whose
    energy lies above the pool's 90th percentile.
    """
    files = {"cheap": "h2co_B3LYP_cc-pVDZ_4001", "expensive": "h2co_ccsdt_avtz_4001"}
    raw = {key: np.load(data / "h2co" / f"{name}.npz") for key, name in files.items()}
    first = raw["expensive"]
    if not np.allclose(first["R"], raw["cheap"]["R"], rtol=0.0, atol=1e-12):
        raise ValueError("the two files hold other geometries")
    counts = first["N"]
    frames = tuple(
        Frame(first["Z"][i, :n], first["R"][i, :n]) for i, n in enumerate(counts)
    )
    tables = {
        key: LabelTable(
            np.asarray(arrays["E"], dtype=np.float64).reshape(-1),
            tuple(np.array(arrays["F"][i, :n]) for i, n in enumerate(counts)),
        )
        for key, arrays in raw.items()
    }
    order = np.random.default_rng(_SPLIT).permutation(len(frames))
    test, chosen = np.sort(order[:_TEST]), np.sort(order[_TEST:])
    energies = tables["expensive"].energies
    hot = test[energies[test] > np.quantile(energies[chosen], 0.9)]
    lowest = frames[int(np.argmin(energies))]
    return LabelledPool(
        name="formaldehyde",
        start=(lowest,),
        frames=frames,
        molecules=np.zeros(len(frames), dtype=np.int64),
        tables=tables,
        levels={"cheap": "b3lyp/cc-pvdz", "expensive": "ccsd(t)/aug-cc-pvtz"},
        chosen=chosen,
        tests={"all": test, "hot": hot},
        names=("H2CO",),
    )


def read_pool(path: Path) -> LabelledPool:
    """Return the pool in a file; campaigns begin with frames of normal modes."""
    with np.load(path) as file:
        raw = dict(file)
    counts = (raw["Z"] > 0).sum(axis=1)
    frames = tuple(
        Frame(raw["Z"][i, :n], raw["R"][i, :n].astype(np.float64))
        for i, n in enumerate(counts)
    )
    tables = {
        key: LabelTable(
            energies=raw[f"E_{key}"],
            forces=tuple(
                raw[f"F_{key}"][i, :n].astype(np.float64) for i, n in enumerate(counts)
            ),
            cpu_seconds=raw[f"cpu_{key}"].astype(np.float64),
        )
        for key in LEVELS
    }
    molecules = raw["molecule"].astype(np.int64)
    parts, origins = raw["parts"][raw["part"]], raw["origins"][raw["origin"]]
    chosen = np.flatnonzero(parts == "pool")
    energies = tables["expensive"].energies
    start = [
        min(np.flatnonzero(molecules == i), key=lambda index: energies[index])
        for i in range(len(raw["molecules"]))
    ]
    return LabelledPool(
        name=path.stem,
        names=tuple(map(str, raw["molecules"])),
        start=tuple(frames[index] for index in start),
        frames=frames,
        molecules=molecules,
        tables=tables,
        levels=LEVELS,
        chosen=chosen,
        tests={
            str(name): np.flatnonzero(parts == name)
            for name in raw["parts"]
            if name != "pool"
        },
        first=chosen[np.char.startswith(origins[chosen], "modes")],
        plain=chosen[np.isin(origins[chosen], PLAIN)],
    )


def _reader(path: Path) -> Callable[[Path], LabelledPool]:
    return lambda _data: read_pool(path)


def useless_cheap(data: Path) -> LabelledPool:
    """Return formaldehyde whose cheap labels are those of other frames, at random."""
    pool = formaldehyde(data)
    other = np.random.default_rng(_SPLIT).permutation(len(pool.frames))
    table = pool.tables["cheap"]
    forces = tuple(table.forces[i] for i in other)
    wrong = replace(table, energies=table.energies[other], forces=forces)
    tables = {**pool.tables, "cheap": wrong}
    return replace(pool, name="useless-cheap", tables=tables)


POOLS: Mapping[str, Callable[[Path], LabelledPool]] = {
    "formaldehyde": formaldehyde,
    "useless-cheap": useless_cheap,
    **{path.stem: _reader(path) for path in sorted(DATA.glob("*.npz"))},
}
