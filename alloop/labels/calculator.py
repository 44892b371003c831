"""Any labeller as an ASE calculator."""

from collections.abc import Sequence

from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes

from alloop.core.atoms import from_atoms
from alloop.core.records import Detail, Unlabelled
from alloop.core.roles import Labeller


class LabelCalculator(Calculator):  # type: ignore[misc]
    """Energy (eV) and forces (eV/Å) of a labeller; a failed label is CalculationFailed.

    charge and spin (2S) default to those in `atoms.info`, then to 0.
    """

    implemented_properties = ("energy", "forces")

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
        """Label the atoms; the label's details stand in `details`."""
        super().calculate(atoms, properties, system_changes)
        label = self.labeller.label(from_atoms(self.atoms, self.charge, self.spin))
        if isinstance(label, Unlabelled):
            advice = label.message or str(label.failure)
            raise CalculationFailed(f"{label.failure.name}: {advice}")
        self.details = dict(label.details)
        self.results = {"energy": label.energy, "forces": label.forces}
