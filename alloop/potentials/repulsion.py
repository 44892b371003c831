"""The short-range repulsion of nuclei, to which every network is added.

No label covers atoms at half a bond length, so nothing keeps a network from being
attractive there. The screened Coulomb repulsion of Ziegler, Biersack and Littmark (The
Stopping and Range of Ions in Solids, Pergamon, 1985) is known for every pair, and is
switched off before bonds begin: at distances that labels cover, the network is alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from ase.data import covalent_radii

from alloop.core.arrays import (
    Place,
    array_like,
    indexed_sums,
    is_numpy,
    library,
    on_host,
    true_rows,
)
from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.records import LabelSet, Predictions
from alloop.core.stress import stress_from_virial
from alloop.core.units import BOHR, HARTREE, Floats, Integers
from alloop.models.neighbours import SMALL, neighbour_pairs

_WEIGHTS = np.array([0.18175, 0.50986, 0.28022, 0.02817])
_DECAYS = np.array([3.19980, 0.94229, 0.40290, 0.20162])  # 1/screening length
_COULOMB = HARTREE * BOHR  # eV Å
_SCREENING = 0.8854 * BOHR  # Å
_POWER = 0.23  # of the atomic numbers in the screening length


class RepulsivePairs(NamedTuple):
    """Ordered pairs of a batch that may repel, and all that is constant about them.

    numbers, owner (atoms,): atomic numbers and the frame of each atom. centre,
    neighbour (pairs,) index the atoms; shifts (pairs, 3) in Å to add to the neighbour's
    position, None for molecules; end (pairs,): distance in Å at which repulsion ends.
    """

    numbers: Floats
    owner: Integers
    centre: Integers
    neighbour: Integers
    shifts: Floats | None
    end: Floats


class _Near(NamedTuple):
    """Ordered pairs within reach.

    Indices (pairs,), their vectors (pairs, 3) from centre to neighbour, their lengths
    and the distances at which their repulsion ends (pairs,), all in Å.
    """

    centre: Integers
    neighbour: Integers
    apart: Floats
    r: Floats
    end: Floats


@dataclass(frozen=True, slots=True)
class Zbl:
    """The ZBL repulsion between all pairs of atoms; implements Potential.

    reach: the distance at which it ends, in summed covalent radii (Cordero, 2008);
    hydrogen: the same for pairs with a hydrogen. Triple bonds are 0.77 of them (N2),
    bonds to hydrogen 0.9 and more. The switch is the polynomial 1 - 28 x⁶ + 48 x⁷ - 21
    x⁸, with two continuous derivatives.
    """

    reach: float = 0.75
    hydrogen: float = 0.8

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return energies (frames,) eV, forces (atoms, 3) eV/Å and the stress of cells.

        Raises InputError where descriptors are asked for.
        """
        if descriptors:
            raise InputError("expected a potential with descriptors, got a repulsion")
        return self.of_pairs(batch, self.pairs(batch))

    def pairs(
        self, batch: Batch, place: Place = on_host, small: int = SMALL
    ) -> RepulsivePairs:
        """Return the pairs that may repel in a batch of numpy's arrays.

        Those of molecules of up to `small` atoms stay the same wherever the atoms are.
        place: where they are wanted.
        """
        radii, light = covalent_radii[batch.numbers], batch.numbers == 1
        radius = 2.0 * max(self.reach, self.hydrogen) * float(radii.max(initial=0.0))
        neighbours = neighbour_pairs(batch, radius, small)
        i, j = neighbours.centres, neighbours.neighbours
        reach = np.where(light[i] | light[j], self.hydrogen, self.reach)
        return RepulsivePairs(
            numbers=place(batch.numbers.astype(np.float64)),
            owner=place(batch.frame_index),
            centre=place(i),
            neighbour=place(j),
            shifts=place(neighbours.shifts) if batch.pbc.any() else None,
            end=place(reach * (radii[i] + radii[j])),
        )

    def of_pairs(self, batch: Batch, pairs: RepulsivePairs) -> Predictions:
        """Return what `predict` does, from the batch's pairs.

        Positions lie where the pairs do; where that is a device, there is no stress.
        """
        near = _near_pairs(batch.positions, pairs)
        energy, slope = _screened(pairs.numbers, near)
        pull = (slope / near.r)[:, None] * near.apart  # (pairs, 3) eV/Å
        owner = pairs.owner[near.centre]
        return Predictions(
            energies=indexed_sums(owner, energy / 2, len(batch)),
            forces=indexed_sums(near.centre, pull, len(batch.numbers)),
            stress=_stress(batch, near, pull, owner),
        )

    def atom_energies(self, batch: Batch) -> Floats:
        """Return half of the energies of each atom's pairs, (atoms,) in eV."""
        pairs = self.pairs(batch)
        near = _near_pairs(batch.positions, pairs)
        energy, _ = _screened(pairs.numbers, near)
        out: Floats = indexed_sums(near.centre, energy / 2, len(batch.numbers))
        return out

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as JSON values, from which `repulsion` makes an equal one."""
        return {"kind": "zbl", "reach": self.reach, "hydrogen": self.hydrogen}

    def without(self, labels: LabelSet) -> LabelSet:
        """Return the labels less the repulsion, which is what a network learns."""
        if not len(labels):
            return labels
        predictions = self.predict(labels.batch)
        return replace(
            labels,
            energies=labels.energies - predictions.energies,
            forces=labels.forces - predictions.forces,
            stress=_difference(labels.stress, predictions.stress),
        )


def _near_pairs(positions: Floats, pairs: RepulsivePairs) -> _Near:
    functions = library(positions)
    i, j = pairs.centre, pairs.neighbour
    apart = positions[j] - positions[i]
    if pairs.shifts is not None:
        apart += pairs.shifts
    squares = functions.einsum("pd,pd->p", apart, apart)
    near = true_rows(squares < pairs.end * pairs.end)
    r = functions.sqrt(squares[near])
    return _Near(i[near], j[near], apart[near], r, pairs.end[near])


def _stress(batch: Batch, near: _Near, pull: Floats, owner: Integers) -> Floats | None:
    if not batch.pbc.any() or not is_numpy(pull):
        return None
    outer = 0.5 * near.apart[:, :, None] * pull[:, None, :]
    return stress_from_virial(batch, indexed_sums(owner, outer, len(batch)))


ZBL = Zbl()  # the repulsion that networks are added to by default


def repulsion(settings: Mapping[str, Any] | None) -> Zbl | None:
    """Return the repulsion with a checkpoint's settings.

    None where there are none, as in models that are older than it. Raises InputError
    for an unknown kind.
    """
    if settings is None:
        return None
    if settings.get("kind") != "zbl":
        raise InputError(
            f"expected a repulsion of kind zbl, got {settings.get('kind')!r}; "
            "use a newer alloop"
        )
    return Zbl(float(settings["reach"]), float(settings["hydrogen"]))


def added(predictions: Predictions, more: Predictions) -> Predictions:
    """Return the sum of two potentials' predictions, with the first's descriptors.

    The stress is that of both, None where one of them gives none.
    """
    stress = None
    if predictions.stress is not None and more.stress is not None:
        stress = predictions.stress + more.stress
    return replace(
        predictions,
        energies=predictions.energies + more.energies,
        forces=predictions.forces + more.forces,
        stress=stress,
    )


def _difference(stress: Floats | None, other: Floats | None) -> Floats | None:
    return None if stress is None or other is None else stress - other


def _screened(numbers: Floats, near: _Near) -> tuple[Floats, Floats]:
    """Return energies (pairs,) in eV and derivatives dE/dr in eV/Å, switched off."""
    if not len(near.r):
        return near.r, near.r
    weights, decays = array_like(_WEIGHTS, near.r), array_like(_DECAYS, near.r)
    z, w = numbers[near.centre], numbers[near.neighbour]
    scale = (z**_POWER + w**_POWER)[:, None] / _SCREENING  # (pairs, 1) 1/Å
    waves = weights * library(near.r).exp(-decays * scale * near.r[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):  # atoms at one position
        coulomb = _COULOMB * z * w / near.r
        bare = coulomb * waves.sum(axis=1)
        fall = -bare / near.r - coulomb * (decays * scale * waves).sum(axis=1)
    x = near.r / near.end
    switch = 1.0 - x**6 * (28.0 - x * (48.0 - 21.0 * x))
    turn = -168.0 * x**5 * (1.0 - x) ** 2 / near.end
    return bare * switch, fall * switch + bare * turn
