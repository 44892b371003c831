"""ORCA's external program: energies and gradients from a server of `alloop serve`.

In ORCA's input (version 6):

    ! ExtOpt Opt
    %method
      ProgExt "/path/of/alloop-orca"
      Ext_Params "/home/me/.alloop/water.sock"
    end

ORCA calls it with a file NAME_EXT.extinp.tmp, whose lines are the XYZ file's name,
charge, multiplicity, cores and whether a gradient is wanted, and reads energy and
gradient from NAME_EXT.engrad (ORCA 6 manual, "External optimizer").
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.io import read

from alloop.core.errors import AlloopError, InputError
from alloop.core.units import BOHR, HARTREE, Floats
from alloop.engines.server import call_server


@dataclass(frozen=True, slots=True)
class OrcaRequest:
    """A request of ORCA: a molecule's file, charge, multiplicity, and a gradient."""

    structure: Path
    charge: int
    multiplicity: int
    gradient: bool

    @classmethod
    def of_file(cls, path: Path) -> "OrcaRequest":
        """Read a request; raise InputError where it is none.

        Point charges are refused, since models do not see them.
        """
        try:
            lines = [x.partition("#")[0].strip() for x in path.read_text().splitlines()]
            name, charge, multiplicity, _, gradient, *more = (x for x in lines if x)
            numbers = int(charge), int(multiplicity)
        except (OSError, ValueError) as error:
            raise InputError(
                f"expected ORCA's request of 5 lines in {path}, got something else; "
                "let ORCA call this program"
            ) from error
        if more:
            raise InputError(
                f"expected a molecule without point charges, ORCA sent {more[0]}; "
                "models do not see them"
            )
        return cls(path.parent / name, *numbers, gradient != "0")


def answer_orca(path: Path, place: Path) -> Path:
    """Answer ORCA's request by the server at `place`; return the file that was written.

    Raises InputError where the server refuses.
    """
    request = OrcaRequest.of_file(path)
    atoms = read(request.structure, format="xyz")
    energy, forces, _ = call_server(
        place,
        atoms.numbers.tolist(),
        atoms.positions,
        charge=request.charge,
        spin=request.multiplicity - 1,
    )
    out = request.structure.with_suffix(".engrad")
    gradient = forces if request.gradient else None
    out.write_text(_engrad_text(len(atoms), energy, gradient))
    return out


def _engrad_text(atoms: int, energy: float, forces: Floats | None) -> str:
    lines = ["# Number of atoms", f"{atoms}", "# Total energy, Eh"]
    lines.append(f"{energy / HARTREE:.12f}")
    if forces is not None:
        lines.append("# Gradient, Eh/bohr: A1X, A1Y, A1Z, A2X, ...")
        gradient = -np.asarray(forces).ravel() * (BOHR / HARTREE)
        lines += [f"{value:.12f}" for value in gradient]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer one call of ORCA: the request's file and the server's socket."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if len(words) != 2:
            raise InputError(
                f"expected ORCA's request and a socket, got {len(words)} arguments; "
                'set Ext_Params "SOCKET" in ORCA\'s input'
            )
        answer_orca(Path(words[0]), Path(words[1]))
    except AlloopError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
