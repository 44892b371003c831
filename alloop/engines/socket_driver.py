"""A model as the driver of a program that waits on a socket: i-PI, ASE.

ASE's own client speaks the protocol; the calculator that it asks is the evaluator, with
its domain and its watch.
"""

import re
from collections.abc import Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import all_changes
from ase.calculators.socketio import SocketClient

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.engines.evaluator import Evaluator
from alloop.potentials.ase_calculator import StatefulCalculator, frame_results

_PORT = re.compile(r"(?P<host>[^:]+):(?P<port>\d+)")


class EvaluatorCalculator(StatefulCalculator):
    """An evaluator as an ASE calculator; raises what it raises."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self, evaluator: Evaluator) -> None:
        super().__init__()
        self.evaluator = evaluator

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results` for the atoms."""
        super().calculate(atoms, properties, system_changes)
        said = self.evaluator.evaluate(pack_frames([from_atoms(self.atoms)]))
        stress = None if said.stress is None else said.stress[0]
        self.results = frame_results(float(said.energies[0]), said.forces, stress)


def drive(evaluator: Evaluator, atoms: Atoms, address: str) -> None:
    """Answer the program at an address until it says that it is done.

    atoms: elements, charge, spin and periodic axes; positions and cell come from the
    program. address: HOST:PORT, or the name of a UNIX socket as i-PI and ASE give it
    (/tmp/ipi_NAME), or its path. Raises InputError where nobody waits there.
    """
    try:
        client = SocketClient(**_place(address))
    except OSError as error:
        raise InputError(
            f"expected a program that waits at {address} ({error.strerror}); start "
            "i-PI or ASE's SocketIOCalculator first"
        ) from error
    atoms = atoms.copy()
    atoms.calc = EvaluatorCalculator(evaluator)
    client.run(atoms, use_stress=bool(atoms.pbc.all()))


def _place(address: str) -> dict[str, Any]:
    match = _PORT.fullmatch(address)
    if match is None:
        return {"unixsocket": address}
    return {"host": match["host"], "port": int(match["port"])}
