"""A model in LAMMPS, by `fix external` and LAMMPS's Python module."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from alloop.core.atoms import atomic_numbers_of
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.stress import tensor_of_voigt
from alloop.core.units import KCAL_PER_MOL, Floats
from alloop.engines.evaluator import Evaluator, repeated

_ENERGIES = {"metal": 1.0, "real": KCAL_PER_MOL}  # eV, of LAMMPS's `units`
_VIRIAL = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))  # LAMMPS's order


class LammpsFix:
    """A `fix external` that adds a model's energy, forces and virial.

    lmp: a `lammps.lammps` with its atoms, in one process, `units metal` or `real`.
    elements: chemical symbols of LAMMPS's atom types 1, 2, ... charge (e) and spin (2S)
    are those of all atoms together. Atoms of a box that is periodic in all directions
    are a crystal or liquid; a molecule wants `boundary f f f` or `s s s`. evaluation:
    the last one, for surprise and limits. Raises InputError for another system.
    """

    def __init__(
        self,
        lmp: Any,
        evaluator: Evaluator,
        elements: Sequence[str],
        *,
        charge: int = 0,
        spin: int = 0,
        name: str = "alloop",
    ) -> None:
        units = lmp.extract_global("units")
        if units not in _ENERGIES:
            raise InputError(
                f"expected `units metal` or `units real`, got {units}; set one of them"
            )
        if lmp.extract_setting("world_size") != 1:
            raise InputError("expected LAMMPS in one process, got several; start one")
        self.lmp, self.evaluator, self.name = lmp, evaluator, name
        self.evaluation: Any = None
        self._energy = _ENERGIES[units]
        self._frame = self._described(elements, charge, spin)
        self._error: Exception | None = None
        lmp.command(f"fix {name} all external pf/callback 1 1")
        lmp.command(f"fix_modify {name} energy yes virial yes")
        lmp.set_fix_external_callback(name, self._add, self)

    def command(self, text: str) -> None:
        """Run LAMMPS's commands; raise what the model refused or stopped for.

        LAMMPS itself passes over errors of its callbacks: it is asked to end its run,
        which it does within ten steps, without forces of the model.
        """
        self.lmp.commands_string(text)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _described(self, elements: Sequence[str], charge: int, spin: int) -> Frame:
        periodic = [bool(x) for x in self.lmp.extract_box()[5]]
        if any(periodic) and not all(periodic):
            raise InputError(
                "expected a box periodic in all directions or in none, got "
                f"{periodic}; change `boundary`"
            )
        numbers = np.array(list(atomic_numbers_of(elements)), dtype=np.int64)
        types = np.array(self.lmp.gather_atoms("type", 0, 1))
        if types.max(initial=0) > len(numbers):
            raise InputError(
                f"expected an element for each of {types.max()} atom types, got "
                f"{len(numbers)}"
            )
        a, b, c = periodic
        size = len(types)
        cell = self._cell() if a else np.zeros((3, 3))
        zero = np.zeros((size, 3))
        kinds = numbers[types - 1]
        return Frame(kinds, zero, charge, spin, cell=cell, pbc=(a, b, c))

    def _cell(self) -> Floats:
        low, high, xy, yz, xz, *_ = self.lmp.extract_box()
        x, y, z = np.subtract(high, low)
        return np.array([[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]])

    def _add(
        self, _caller: Any, _step: int, _count: int, tags: Any, x: Any, f: Any
    ) -> None:
        f[:] = 0.0
        if self._error is not None:
            return
        try:
            self._evaluate(np.asarray(tags).reshape(-1) - 1, x, f)
        except Exception as error:  # noqa: BLE001 - ctypes would only print it
            self._error = error
            self.lmp.force_timeout()

    def _evaluate(self, places: Any, x: Any, f: Any) -> None:
        positions = np.empty((len(self._frame), 3))
        positions[places] = x
        cells = self._cell()[None] if any(self._frame.pbc) else None
        batch = repeated(self._frame, positions[None], cells)
        evaluation = self.evaluation = self.evaluator.evaluate(batch)
        f[:] = evaluation.forces[places] / self._energy
        energy = float(evaluation.energies[0]) / self._energy
        self.lmp.fix_external_set_energy_global(self.name, energy)
        virial = np.zeros(6)
        if cells is not None and evaluation.stress is not None:
            volume = abs(float(np.linalg.det(cells[0])))
            tensor = -volume * tensor_of_voigt(evaluation.stress[0]) / self._energy
            virial = np.array([tensor[a, b] for a, b in _VIRIAL])
        self.lmp.fix_external_set_virial_global(self.name, virial.tolist())
