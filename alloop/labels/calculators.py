"""ASE calculators of levels and labellers."""

from collections.abc import Sequence
from typing import Self

from ase import Atoms
from ase.calculators.calculator import CalculationFailed, all_changes

from alloop.core.atoms import from_atoms, unpaired_electrons
from alloop.core.levels import Level
from alloop.core.records import Detail, Unlabelled
from alloop.core.roles import Labeller
from alloop.labels.child.labeller import IsolatedLabeller, Limits
from alloop.labels.levels import level_from_name
from alloop.potentials.ase_calculator import StatefulCalculator, frame_results


class LabelCalculator(StatefulCalculator):
    """An ASE calculator that takes its results from a labeller.

    It gives energy (eV), forces (atoms, 3) in eV/Å and, for a cell at a level that
    provides it, stress (6,) in eV/Å³. A failed label raises CalculationFailed. charge
    and spin (2S) default to those in `atoms.info`, then to 0. The child process ends
    when the calculator, a context manager, is left or garbage-collected.
    """

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(
        self, labeller: Labeller, charge: int | None = None, spin: int | None = None
    ) -> None:
        super().__init__()
        self.labeller = labeller
        self.charge = charge
        self.spin = spin
        self.details: dict[str, Detail] = {}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Label the atoms, and keep the label's details in `details`."""
        super().calculate(atoms, properties, system_changes)
        label = self.labeller.label(from_atoms(self.atoms, self.charge, self.spin))
        if isinstance(label, Unlabelled):
            advice = label.message or str(label.failure)
            raise CalculationFailed(f"{label.failure.name}: {advice}")
        self.details = dict(label.details)
        self.results = frame_results(label.energy, label.forces, label.stress)

    def close(self) -> None:
        """End the child process, if there is one; the next label starts another."""
        close = getattr(self.labeller, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()


def calculator(
    level: str | Level | Labeller,
    *,
    charge: int | None = None,
    spin: int | None = None,
    multiplicity: int | None = None,
    limits: Limits | None = None,
) -> LabelCalculator:
    """Return an ASE calculator of a level.

    Use it as in `atoms.calc = calculator("hf/sto-3g")`. level: a short name such as
    `b3lyp/def2-svp` or `gfn2-xtb`, a Level, or any object with a Labeller's `label`
    method. charge (e) and spin (2S), or multiplicity (2S + 1) in its place, default to
    those of the atoms. A level runs in a child process within `limits` of time and
    memory. Raises InputError for a name that is not a level's, and for both a spin and
    a multiplicity.
    """
    unpaired = unpaired_electrons(spin, multiplicity)
    if isinstance(level, str):
        level = level_from_name(level)
    if isinstance(level, Level):
        level = IsolatedLabeller(level, limits)
    return LabelCalculator(level, charge, unpaired)
