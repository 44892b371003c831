"""Residuals of a universal potential before and after fine-tuning, from published data.

    python -m benchmarks.accuracy.exploration.bias_residuals --data DIR [--system NAME]

Wong and Yang (arXiv 2603.10159) ran MD of a deep eutectic solvent (197 atoms, C51 H90
N3 O45 Cl6 Li Co) with MACE-MP-0b small (U) and with models fine-tuned from it: naively
on 10 to 50 frames of five parallel runs (N), periodically along one trajectory (FT1 to
FT5), on one uninterrupted trajectory (NP). DIR holds their frames with DFT labels and
the energy of the model that drove the MD (`ChClCA_eval__*.extxyz`, of
github.com/YangLab-GT/umlip_bias_finetuning). The residual is model less DFT energy in
meV an atom: its mean and standard deviation over frames (as a population), beside the
printed values, and its slope against the DFT energy, both an atom. The files hold no
forces of the models, so that force residuals cannot be made from them.

Files of another system, `NAME_eval__SET.extxyz`, are shown likewise, without printed
values; without --system all systems in DIR are.
"""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import iread

from alloop.core.errors import InputError
from alloop.core.units import Floats
from alloop.files.ase_files import UNREADABLE
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
PUBLISHED = "ChClCA"  # the system of `SETS`
_PART = "_eval__"  # between the name of a system and that of a set
_MILLI = 1e3


def residuals(path: Path) -> tuple[Floats, Floats]:
    """Return the residuals (frames,) of a file and its DFT energies, meV an atom.

    Raises InputError where the file, a DFT energy or that of a model is missing.
    """
    if not path.is_file():
        raise InputError(f"expected the published frames at {path}, found none")
    rows = []
    for atoms in _frames(path):
        values = {**atoms.info, **({} if atoms.calc is None else atoms.calc.results)}
        missing = [key for key in ("mlip_energy", "energy") if key not in values]
        if missing:
            raise InputError(
                f"expected an `{missing[0]}` in each frame of {path}, found "
                f"{', '.join(values) or 'no values'}"
            )
        energy = float(values["energy"])
        difference = float(values["mlip_energy"]) - energy
        rows.append((difference / len(atoms), energy / len(atoms)))
    if not rows:
        raise InputError(f"expected frames in {path}, found none")
    residuals = _MILLI * np.array(rows)
    return residuals[:, 0], residuals[:, 1]


def _frames(path: Path) -> list[Atoms]:
    try:
        return list(iread(path))
    except UNREADABLE as error:
        raise InputError(
            f"expected frames in extended XYZ, {path} cannot be read ({error})"
        ) from error


def system_files(folder: Path, system: str | None) -> dict[str, list[Path]]:
    """Return the files of each system in a folder, or of one.

    The sets of the paper come in its order, others after them. Raises InputError where
    there are none, and where a set of the paper is missing.
    """
    paths_by_system: dict[str, list[Path]] = {}
    for path in sorted(folder.glob(f"*{_PART}*.extxyz")):
        paths_by_system.setdefault(path.name.split(_PART)[0], []).append(path)
    if PUBLISHED in paths_by_system:
        names = [f"{PUBLISHED}{_PART}{name}.extxyz" for name in SETS]
        others = [path for path in paths_by_system[PUBLISHED] if path.name not in names]
        paths_by_system[PUBLISHED] = [*(folder / name for name in names), *others]
    if system is not None:
        paths_by_system = {
            name: paths for name, paths in paths_by_system.items() if name == system
        }
    if not paths_by_system:
        what = f"{system or 'NAME'}{_PART}SET.extxyz"
        raise InputError(f"expected files {what} in {folder}, found none")
    return paths_by_system


def set_row(path: Path, name: str, mean: float | None, std: float | None) -> Row:
    """Return the figures of a set, beside the printed ones."""
    off, energies = residuals(path)
    several = float(np.ptp(energies)) > 0.0  # one energy has no slope
    slope = float(np.polyfit(energies, off, 1)[0]) if several else None
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
    parser.add_argument("--system", help="by default all that the folder has")
    options = parser.parse_args()
    try:
        rows = {
            name: [_file_row(name, path) for path in paths]
            for name, paths in system_files(options.data, options.system).items()
        }
    except InputError as error:
        raise SystemExit(str(error)) from error
    for name, system_rows in rows.items():
        shown = [
            {k: f"{v:.2f}" if isinstance(v, float) else v or "" for k, v in row.items()}
            for row in system_rows
        ]
        show(make_table(f"{name}: energies, model less DFT, meV/atom", shown))
    write_json(options.json, {"residuals": rows})


def _file_row(system: str, path: Path) -> Row:
    """Return the figures of a file, with printed ones where it is a published set."""
    name = path.stem.split(_PART, 1)[1]
    printed = SETS.get(name) if system == PUBLISHED else None
    return set_row(path, *(printed or (name, None, None)))


if __name__ == "__main__":
    main()
