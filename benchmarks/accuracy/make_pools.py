"""Make the frozen pools that `benchmarks.accuracy.active` chooses from.

    python -m benchmarks.accuracy.make_pools ethanol molecules --work FOLDER

Frames are made by MD with GFN2-xTB, from normal modes and by scans, and labelled by
`alloop label` with GFN2-xTB and HF/def2-SVP. Ethanol's thermal and hot test frames come
from MD on a model trained on all expensive labels of its pool, so that they are those
of the expensive level as far as that model is; those of the other molecules from MD
with GFN2-xTB. What is done in FOLDER is not done again; the pool is written to
benchmarks/data/NAME.npz. About 25 and 15 CPU minutes.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write

from alloop import load
from alloop.core.frame import Frame
from alloop.core.records import Label
from alloop.core.roles import Potential
from alloop.core.units import Floats, Integers
from alloop.labels.direct import DirectLabeller
from alloop.labels.xtb import xtb_level
from alloop.potentials.labeller_potential import LabellerPotential
from benchmarks.accuracy.labelled_pool import DATA, LEVELS, read_pool
from benchmarks.accuracy.pool_frames import (
    Piece,
    PoolFrame,
    ethanol_minima,
    g2_frame,
    md_frames,
    minimum,
    mode_frames,
    noisy_scan_frames,
    scan_frames,
)
from benchmarks.common import make_parser, show

MOLECULES = (
    *("H2O", "NH3", "CH4", "HCN", "H2CO", "C2H2", "C2H4", "C2H6", "H2O2", "N2H4"),
    *("CH3OH", "CO2", "N2O", "HCOOH", "H3CNH2", "CH3CN", "CH3CHO", "OCHCHO"),
    *("CH2OCH2", "CH2NHCH2", "C3H4_C3v", "C3H4_D2d", "C3H4_C2v", "H2CCO", "H2CCHF"),
    *("H2CF2", "CH3NO2", "CH3ONO", "NCCN", "H2CCHCN", "CH3COF", "COF2"),
)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFrame:
    """A frame of a pool with its labels by fidelity."""

    found: PoolFrame
    labels: dict[str, Label]


def xtb() -> Potential:
    """Return the cheap level as a potential."""
    return LabellerPotential(DirectLabeller(xtb_level("gfn2-xtb")))


def ethanol_pool() -> list[PoolFrame]:
    """Return ethanol's pool and its test frames that need no model: the scans."""
    potential = xtb()
    minima = ethanol_minima(potential)
    found: list[tuple[str, Frame, str]] = []
    for degrees in (300.0, 500.0, 1000.0, 1500.0):
        name = f"md{degrees:g}"
        frames = md_frames(minima, potential, Piece(degrees, 20, 6), name)
        found += [(name, frame, "pool") for frame in frames]
    for degrees in (300.0, 1000.0):
        for frame in mode_frames(minima, degrees, 39, "pool"):
            found.append((f"modes{degrees:g}", frame, "pool"))
    for scan, frame in noisy_scan_frames(minima, 300.0, 30):
        found.append((scan, frame, "pool"))
    for scan, frame in scan_frames([frame for frame, _ in minima[:2]], 12):
        found.append((scan, frame, "scans"))
    return [PoolFrame(x, "CH3CH2OH", origin, part) for origin, x, part in found]


def molecules_pool() -> list[PoolFrame]:
    """Return the frames of all molecules, those of the test sets too."""
    potential, found = xtb(), []
    for name in MOLECULES:
        minima = [minimum(g2_frame(name), potential)]
        for degrees in (500.0, 1000.0):
            for frame in mode_frames(minima, degrees, 4, name):
                found.append(PoolFrame(frame, name, f"modes{degrees:g}", "pool"))
        for degrees in (300.0, 500.0, 1000.0):
            test = "hot" if degrees > 500.0 else "thermal"
            for stream, part, count in (("pool", "pool", 3), ("test", test, 2)):
                piece, origin = Piece(degrees, 2, count, before=120), f"md{degrees:g}"
                where = f"{name}/{origin}/{stream}"
                for frame in md_frames(minima, potential, piece, where):
                    found.append(PoolFrame(frame, name, origin, part))
    return found


def ethanol_tests(potential: Potential) -> list[PoolFrame]:
    """Return thermal and hot test frames of ethanol from MD on a potential."""
    minima, out = ethanol_minima(potential), []
    for degrees in (300.0, 500.0, 1000.0, 1500.0):
        piece = Piece(degrees, 12, 5, before=300, between=60)
        name, part = f"md{degrees:g}", "hot" if degrees > 500.0 else "thermal"
        for frame in md_frames(minima, potential, piece, f"test/{name}"):
            out.append(PoolFrame(frame, "CH3CH2OH", name, part))
    return out


def make_ethanol(work: Path) -> Path:
    """Make ethanol's pool; return its file."""
    pool, tests, model = (
        work / "ethanol.xyz",
        work / "tests.xyz",
        work / "ethanol.model",
    )
    if not pool.exists():
        write_frames(pool, ethanol_pool())
    label_file(pool)
    if not model.exists():
        training = "{kind: standard, steps: 2500}"
        labels = pool.with_suffix(".expensive.xyz")
        alloop("train", "--expensive", labels, "--training", training, "--out", model)
    if not tests.exists():
        write_frames(tests, ethanol_tests(load(model).potential))
    label_file(tests)
    write_pool(DATA / "ethanol.npz", [*labelled(pool), *labelled(tests)])
    return DATA / "ethanol.npz"


def make_molecules(work: Path) -> Path:
    """Make the pool of many molecules; return its file."""
    pool = work / "molecules.xyz"
    if not pool.exists():
        write_frames(pool, molecules_pool())
    label_file(pool)
    write_pool(DATA / "molecules.npz", labelled(pool))
    return DATA / "molecules.npz"


def write_frames(path: Path, frames: Sequence[PoolFrame]) -> None:
    """Write frames for `alloop label`, whole or not at all."""
    atoms = []
    for found in frames:
        facts = {"molecule": found.molecule, "origin": found.origin, "part": found.part}
        frame = found.frame
        atoms.append(Atoms(frame.numbers, frame.positions, info=facts))
    part = path.with_suffix(".part")
    write(part, atoms, format="extxyz")
    part.replace(path)


def label_file(path: Path) -> None:
    """Label the frames of a file at both levels, if they are not."""
    for fidelity, level in LEVELS.items():
        given = level if isinstance(level, str) else json.dumps(level)
        out = path.with_suffix(f".{fidelity}.xyz")
        options = ["--level", given, "--workers", "1", "--out", out, "--quiet"]
        alloop("label", path, *options)


def alloop(*arguments: Any) -> None:
    """Run a command of alloop."""
    subprocess.run([sys.executable, "-m", "alloop", *map(str, arguments)], check=True)


def labelled(path: Path) -> list[LabelledFrame]:
    """Return the frames of a file that have labels at both levels."""
    tables: dict[str, dict[str, Label]] = {}
    for fidelity in LEVELS:
        found = read(path.with_suffix(f".{fidelity}.xyz"), index=":")
        tables[fidelity] = {x.info["frame"]: _label(x) for x in found}
    out = []
    for atoms in read(path, index=":"):
        frame = Frame(atoms.numbers, atoms.positions)
        key = f"frame/{frame.id}"
        if all(key in table for table in tables.values()):
            facts = (atoms.info[name] for name in ("molecule", "origin", "part"))
            labels = {fidelity: table[key] for fidelity, table in tables.items()}
            out.append(LabelledFrame(PoolFrame(frame, *facts), labels))
    return out


def _label(atoms: Atoms) -> Label:
    info = atoms.info
    return Label(
        info["frame"],
        info["level"],
        info["REF_energy"],
        atoms.arrays["REF_forces"],
        info["cpu_seconds"],
    )


def write_pool(path: Path, frames: Sequence[LabelledFrame]) -> None:
    """Write a pool, whole or not at all."""
    most = max(len(x.found.frame) for x in frames)
    arrays: dict[str, Any] = {
        "Z": np.array([_padded(x.found.frame.numbers, most) for x in frames], np.uint8),
        "R": np.array(
            [_padded(x.found.frame.positions, most) for x in frames], np.float32
        ),
    }
    for key in ("molecule", "origin", "part"):
        names, index = np.unique(
            [getattr(x.found, key) for x in frames], return_inverse=True
        )
        arrays[key], arrays[f"{key}s"] = index.astype(np.uint8), names
    for fidelity in LEVELS:
        labels = [x.labels[fidelity] for x in frames]
        arrays[f"E_{fidelity}"] = np.array([label.energy for label in labels])
        forces = [_padded(label.forces, most) for label in labels]
        arrays[f"F_{fidelity}"] = np.array(forces, np.float32)
        seconds = np.array([label.cpu_seconds for label in labels], np.float32)
        arrays[f"cpu_{fidelity}"] = seconds
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)
    part.replace(path)


def _padded(values: Floats | Integers, most: int) -> Floats:
    out: Floats = np.zeros((most, *values.shape[1:]))
    out[: len(values)] = values
    return out


def main() -> None:
    """Make the pools that are asked for."""
    parser = make_parser(__doc__)
    makers = {"ethanol": make_ethanol, "molecules": make_molecules}
    parser.add_argument("pools", nargs="+", choices=list(makers))
    parser.add_argument("--work", type=Path, required=True, help="folder of the steps")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    for name in given.pools:
        file = makers[name](given.work)
        pool = read_pool(file)
        sizes = {test: len(found) for test, found in pool.tests.items()}
        show(file.name, file.stat().st_size, len(pool.chosen), sizes, pool.prices(None))


if __name__ == "__main__":
    main()
