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

from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.records import LabelSet, Predictions
from alloop.core.stress import stress_from_virial
from alloop.core.units import BOHR, HARTREE, Floats, Integers
from alloop.models.neighbours import neighbour_pairs

_WEIGHTS = np.array([0.18175, 0.50986, 0.28022, 0.02817])
_DECAYS = np.array([3.19980, 0.94229, 0.40290, 0.20162])  # 1/screening length
_COULOMB = HARTREE * BOHR  # eV Å
_SCREENING = 0.8854 * BOHR  # Å
_POWER = 0.23  # of the atomic numbers in the screening length


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
        near = self._near(batch)
        energy, slope = _screened(batch.numbers, near)
        pull = (slope / near.r)[:, None] * near.apart  # (pairs, 3) eV/Å
        owner = batch.frame_index[near.centre]
        return Predictions(
            energies=_added(owner, energy / 2, len(batch)),
            forces=_added(near.centre, pull, len(batch.numbers)),
            stress=self._stress(batch, near, pull, owner),
        )

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

    def _near(self, batch: Batch) -> _Near:
        radii, light = covalent_radii[batch.numbers], batch.numbers == 1
        most = 2.0 * max(self.reach, self.hydrogen) * float(radii.max(initial=0.0))
        found = neighbour_pairs(batch, most)
        i, j = found.centres, found.neighbours
        apart = batch.positions[j] - batch.positions[i]
        if batch.pbc.any():
            apart += found.shifts
        squares = np.einsum("pd,pd->p", apart, apart)
        reach = np.where(light[i] | light[j], self.hydrogen, self.reach)
        end = reach * (radii[i] + radii[j])
        near = np.flatnonzero(squares < end * end)
        r = np.sqrt(squares[near])
        return _Near(i[near], j[near], apart[near], r, end[near])

    def _stress(
        self, batch: Batch, near: _Near, pull: Floats, owner: Integers
    ) -> Floats | None:
        if not batch.pbc.any():
            return None
        virial = _added(
            owner, 0.5 * near.apart[:, :, None] * pull[:, None, :], len(batch)
        )
        return stress_from_virial(batch, virial)


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


def _screened(numbers: Integers, near: _Near) -> tuple[Floats, Floats]:
    """Return energies (pairs,) in eV and derivatives dE/dr in eV/Å, switched off."""
    one, other = numbers[near.centre], numbers[near.neighbour]
    scale = (one**_POWER + other**_POWER)[:, None] / _SCREENING  # (pairs, 1) 1/Å
    waves = _WEIGHTS * np.exp(-_DECAYS * scale * near.r[:, None])  # (pairs, 4)
    with np.errstate(divide="ignore", invalid="ignore"):  # atoms at one position
        coulomb = _COULOMB * one * other / near.r
        bare = coulomb * waves.sum(axis=1)
        fall = -bare / near.r - coulomb * (_DECAYS * scale * waves).sum(axis=1)
    x = near.r / near.end
    switch = 1.0 - x**6 * (28.0 - x * (48.0 - 21.0 * x))
    turn = -168.0 * x**5 * (1.0 - x) ** 2 / near.end
    return bare * switch, fall * switch + bare * turn


def _added(index: Integers, values: Floats, size: int) -> Floats:
    """Return sums of rows (rows, ...) with the same index: (size, ...)."""
    out = np.zeros((size, *values.shape[1:]))
    np.add.at(out, index, values)
    return out
