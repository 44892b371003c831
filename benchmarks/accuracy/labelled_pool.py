"""Frozen pools: frames whose labels at both levels are known, and their test sets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import LabelSet
from alloop.core.units import Floats, Integers

_SPLIT = 20_100  # the seed of the division into pool and test frames, for all arms
_TEST = 1000  # frames


@dataclass(frozen=True, slots=True, eq=False)
class LabelTable:
    """Labels of all frames at one level: energies (frames,) eV, forces eV/Å."""

    energies: Floats
    forces: tuple[Floats, ...]


@dataclass(frozen=True, eq=False)
class LabelledPool:
    """Frames of one or more molecules with labels at two levels.

    molecules (frames,): index of each frame's molecule in `start`. tables: by fidelity.
    levels: by fidelity, the names in a campaign file, which nothing computes. chosen
    and tests: indices of the frames that a campaign may label and, by name, of those it
    is judged on.
    """

    name: str
    start: tuple[Frame, ...]
    frames: tuple[Frame, ...]
    molecules: Integers
    tables: Mapping[str, LabelTable]
    levels: Mapping[str, str]
    chosen: Integers
    tests: Mapping[str, Integers]

    @cached_property
    def indices(self) -> dict[str, int]:
        """The index of each frame by its id."""
        return {frame.id: index for index, frame in enumerate(self.frames)}

    def label_set(self, fidelity: str, indices: Integers) -> LabelSet:
        """Return the labels of these frames at the fidelity."""
        table = self.tables[fidelity]
        return LabelSet(
            pack_frames([self.frames[i] for i in indices]),
            table.energies[indices],
            np.concatenate([table.forces[i] for i in indices]),
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
            np.asarray(each["E"], dtype=np.float64).reshape(-1),
            tuple(np.array(each["F"][i, :n]) for i, n in enumerate(counts)),
        )
        for key, each in raw.items()
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
    )


POOLS: Mapping[str, Callable[[Path], LabelledPool]] = {"formaldehyde": formaldehyde}
