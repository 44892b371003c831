"""Residuals of a universal potential before and after fine-tuning, from published data.

    python -m benchmarks.accuracy.bias_residuals --data DIR

Wong and Yang (arXiv 2603.10159) ran MD of a deep eutectic solvent (197 atoms, C51 H90
N3 O45 Cl6 Li Co) with MACE-MP-0b small (U) and with models fine-tuned from it: naively
on 10 to 50 frames of five parallel runs (N), periodically along one trajectory (FT1 to
FT5), on one uninterrupted trajectory (NP). DIR holds their frames with DFT labels and
the energy of the model that drove the MD (`ChClCA_eval__*.extxyz`, of
github.com/YangLab-GT/umlip_bias_finetuning). The residual is model less DFT energy in
meV an atom: its mean and standard deviation over frames (as a population), beside the
printed values, and its slope against the DFT energy, both an atom. The files hold no
forces of the models, so that force residuals cannot be made from them.
"""

from pathlib import Path

import numpy as np
from ase.io import iread

from alloop.core.errors import InputError
from alloop.core.units import Floats
from benchmarks.common import Row, make_parser, make_table, show, write_json

# Sets by file: name, printed mean and standard deviation (None: not printed), meV/atom
SETS: dict[str, tuple[str, float | None, float | None]] = {
    "Periodic_U": ("U", -16.2, 1.5),
    "Naive_N-10pts": ("N-10", -10.0, 2.1),
    "Naive_N-21pts": ("N-21", -12.8, 1.6),
    "Naive_N-31pts": ("N-31", -18.1, 0.4),
    "Naive_N-40pts": ("N-40", -9.7, 1.5),
    "Naive_N-50pts": ("N-50", -10.7, 0.6),
    "Periodic_FT1": ("FT1", -14.7, 1.6),
    "Periodic_FT2": ("FT2", -8.9, 1.9),
    "Periodic_FT3": ("FT3", -4.1, 1.3),
    "Periodic_FT4": ("FT4", -3.9, 1.0),
    "Periodic_FT5": ("FT5", -4.8, 0.9),
    "Nonperiodic_NP-10pts": ("NP-10", -20.9, None),
    "Nonperiodic_NP-21pts": ("NP-21", -6.3, None),
    "Nonperiodic_NP-31pts": ("NP-31", -5.5, None),
    "Nonperiodic_NP-40pts": ("NP-40", -3.0, None),
    "Nonperiodic_NP-50pts": ("NP-50", -3.2, None),
    "Long_Runs_Naive": ("N-50, 9 ns", -9.8, 3.8),
    "Long_Runs_Periodic": ("FT5, 9 ns", -6.1, 1.9),
}
_MILLI = 1e3


def residuals(path: Path) -> tuple[Floats, Floats]:
    """Return the residuals (frames,) of a file and its DFT energies, meV an atom.

    Raises InputError where the file or the energy of a model is missing.
    """
    if not path.is_file():
        raise InputError(f"expected the published frames at {path}, found none")
    rows = []
    for atoms in iread(path):
        if "mlip_energy" not in atoms.info:
            raise InputError(f"expected an `mlip_energy` in each frame of {path}")
        energy = float(atoms.get_potential_energy())
        difference = float(atoms.info["mlip_energy"]) - energy
        rows.append((difference / len(atoms), energy / len(atoms)))
    found = _MILLI * np.array(rows)
    return found[:, 0], found[:, 1]


def set_row(path: Path, name: str, mean: float | None, std: float | None) -> Row:
    """Return the figures of a set, beside the printed ones."""
    off, energies = residuals(path)
    slope = float(np.polyfit(energies, off, 1)[0])
    return {
        "model": name,
        "frames": len(off),
        "mean": float(off.mean()),
        "printed": mean,
        "std": float(off.std()),
        "printed std": std,
        "slope": slope,
    }


def main() -> None:
    """Show the residuals of all sets."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of frames")
    given = parser.parse_args()
    rows = [
        set_row(given.data / f"ChClCA_eval__{file}.extxyz", *printed)
        for file, printed in SETS.items()
    ]
    shown = [
        {k: f"{v:.2f}" if isinstance(v, float) else v or "" for k, v in row.items()}
        for row in rows
    ]
    show(make_table("Energy residuals, model less DFT, meV/atom", shown))
    write_json(given.json, {"residuals": rows})


if __name__ == "__main__":
    main()
