"""Make the frozen pools that `benchmarks.accuracy.selection.active` chooses from.

    python -m benchmarks.accuracy.selection.make_pools ethanol molecules --work FOLDER

Frames are made by MD with GFN2-xTB, from normal modes and by scans, and labelled by
`alloop label` with GFN2-xTB and HF/def2-SVP. Ethanol's thermal and hot test frames come
from MD on a model trained on all expensive labels of its pool, so that they are those
of the expensive level as far as that model is; those of the other molecules from MD
with GFN2-xTB. What is done in FOLDER is not done again; the pool is written to
benchmarks/data/NAME.npz. About 25 and 15 CPU minutes.

Positions are rounded to float32 before anything is labelled, so that a small file holds
the labelled geometries themselves.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.io import read, write

from alloop import load
from alloop.core.frame import Frame
from alloop.core.records import Label, Walker
from alloop.core.roles import Potential
from alloop.core.seeds import random_stream
from alloop.core.units import Floats, Integers
from alloop.labels.direct import DirectLabeller
from alloop.labels.xtb import xtb_level
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.thermal_frames import (
    NormalModes,
    harmonic_frames,
    normal_modes,
    numerical_hessian,
    relax_frame,
    thermal_walkers,
)
from alloop.potentials.labeller_potential import LabellerPotential
from benchmarks.accuracy.labelled_pool import DATA, LEVELS, read_pool
from benchmarks.common import make_parser, show

_SEED = 20_150  # of all frames
# ethanol's atoms in ASE: C(H3), C(H2), O, H(O), two H of CH2, three H of CH3
_TORSION = (0, 1, 2, 3)
SCANS = {  # the two atoms, those that move along, shortest and longest bond in Å
    "o-h": ((2, 3), (3,), 0.75, 1.50),
    "c-o": ((1, 2), (2, 3), 1.15, 2.00),
    "c-c": ((1, 0), (0, 6, 7, 8), 1.20, 2.10),
}


@dataclass(frozen=True, slots=True)
class PoolFrame:
    """A frame, its molecule's name, where it comes from and the set it belongs to.

    part: `pool`, from which a campaign chooses, or the name of a test set.
    """

    frame: Frame
    molecule: str
    origin: str
    part: str


@dataclass(frozen=True, slots=True)
class Piece:
    """MD at a temperature in K: walkers, frames of each, and fs before and between."""

    temperature: float
    walkers: int
    frames: int
    before: int = 200
    between: int = 40


def stored_frame(frame: Frame) -> Frame:
    """Return the frame with its centre at the origin and positions of float32."""
    moved = frame.positions - frame.positions.mean(axis=0)
    return replace(frame, positions=moved.astype(np.float32).astype(np.float64))


def md_frames(
    minima: Sequence[tuple[Frame, NormalModes]],
    potential: Potential,
    piece: Piece,
    name: str,
) -> list[Frame]:
    """Return frames of Langevin MD, time step 1 fs, started in turn from the minima."""
    walkers: list[Walker] = []
    for index in range(piece.walkers):
        frame, modes = minima[index % len(minima)]
        rng = random_stream(_SEED, f"{name}/start/{index}")
        walkers += thermal_walkers(frame, modes, piece.temperature, 1, rng)
    walkers = [replace(walker, index=i) for i, walker in enumerate(walkers)]
    settings = DynamicsSettings(temperature=piece.temperature, timestep=1.0)
    rngs = [random_stream(_SEED, f"{name}/{i}") for i in range(piece.walkers)]
    frames: list[Frame] = []
    for number in range(piece.frames):
        steps = piece.between if number else piece.before
        moved = run_dynamics(walkers, potential, settings, steps, rngs)
        walkers = list(moved.walkers)
        frames += [stored_frame(x.frame) for x in walkers if x.stopped is None]
    return frames


def mode_frames(
    minima: Sequence[tuple[Frame, NormalModes]],
    temperature: float,
    count: int,
    name: str,
) -> list[Frame]:
    """Return harmonic frames, equally many around each minimum."""
    out: list[Frame] = []
    for index, (frame, modes) in enumerate(minima):
        rng = random_stream(_SEED, f"{name}/modes/{temperature:g}/{index}")
        out += harmonic_frames(frame, modes, temperature, count // len(minima), rng)
    return [stored_frame(frame) for frame in out]


def g2_frame(name: str) -> Frame:
    """Return a molecule of ASE's G2 set."""
    atoms = molecule(name)
    return Frame(atoms.numbers, atoms.positions)


def minimum(frame: Frame, potential: Potential) -> tuple[Frame, NormalModes]:
    """Return the nearest minimum of the potential, and its normal modes."""
    relaxed = relax_frame(frame, potential)
    return relaxed, normal_modes(relaxed, numerical_hessian(relaxed, potential))


def turned(frame: Frame, degrees: float) -> Frame:
    """Return ethanol with this dihedral C-C-O-H."""
    atoms = molecule("CH3CH2OH", positions=frame.positions)
    atoms.set_dihedral(*_TORSION, degrees, indices=[3])
    return replace(frame, positions=atoms.positions)


def stretched(frame: Frame, bond: str, length: float) -> Frame:
    """Return ethanol with one bond of this length in Å, the groups kept rigid."""
    (first, second), moving, *_ = SCANS[bond]
    axis = frame.positions[second] - frame.positions[first]
    old = float(np.linalg.norm(axis))
    positions = frame.positions.copy()
    positions[list(moving)] += axis * (length / old - 1.0)
    return replace(frame, positions=positions)


def scan_frames(minima: Sequence[Frame], points: int) -> Iterator[tuple[str, Frame]]:
    """Yield rigid scans of the torsion and three bonds, `points` of each."""
    for frame in minima:
        for degrees in np.arange(points) * 360.0 / points:
            yield "torsion", stored_frame(turned(frame, float(degrees)))
        for bond, (_, _, low, high) in SCANS.items():
            for length in np.linspace(low, high, points):
                yield bond, stored_frame(stretched(frame, bond, float(length)))


def noisy_scan_frames(
    minima: Sequence[tuple[Frame, NormalModes]], temperature: float, count: int
) -> Iterator[tuple[str, Frame]]:
    """Yield random points of the scans, `count` each, from frames of normal modes."""
    rng = random_stream(_SEED, "scan points")
    for scan in ("torsion", *SCANS):
        bases = mode_frames(minima, temperature, count, f"scan {scan}")
        for base, share in zip(bases, rng.random(len(bases)), strict=True):
            if scan == "torsion":
                yield scan, stored_frame(turned(base, 360.0 * float(share)))
            else:
                _, _, low, high = SCANS[scan]
                length = low + (high - low) * float(share)
                yield scan, stored_frame(stretched(base, scan, length))


def ethanol_minima(potential: Potential) -> list[tuple[Frame, NormalModes]]:
    """Return the trans and the two gauche minima."""
    start = g2_frame("CH3CH2OH")
    return [minimum(turned(start, angle), potential) for angle in (180.0, 60.0, 300.0)]


MOLECULES = (
    *("H2O", "NH3", "CH4", "HCN", "H2CO", "C2H2", "C2H4", "C2H6", "H2O2", "N2H4"),
    *("CH3OH", "CO2", "N2O", "HCOOH", "H3CNH2", "CH3CN", "CH3CHO", "OCHCHO"),
    *("CH2OCH2", "CH2NHCH2", "C3H4_C3v", "C3H4_D2d", "C3H4_C2v", "H2CCO", "H2CCHF"),
    *("H2CF2", "CH3NO2", "CH3ONO", "NCCN", "H2CCHCN", "CH3COF", "COF2"),
)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFrame:
    """A frame of a pool with its labels by fidelity."""

    source: PoolFrame
    labels: dict[str, Label]


def xtb() -> Potential:
    """Return the cheap level as a potential."""
    return LabellerPotential(DirectLabeller(xtb_level("gfn2-xtb")))


def ethanol_pool() -> list[PoolFrame]:
    """Return ethanol's pool and its test frames that need no model: the scans."""
    potential = xtb()
    minima = ethanol_minima(potential)
    pool_frames: list[tuple[str, Frame, str]] = []
    for degrees in (300.0, 500.0, 1000.0, 1500.0):
        name = f"md{degrees:g}"
        frames = md_frames(minima, potential, Piece(degrees, 20, 6), name)
        pool_frames += [(name, frame, "pool") for frame in frames]
    for degrees in (300.0, 1000.0):
        for frame in mode_frames(minima, degrees, 39, "pool"):
            pool_frames.append((f"modes{degrees:g}", frame, "pool"))
    for scan, frame in noisy_scan_frames(minima, 300.0, 30):
        pool_frames.append((scan, frame, "pool"))
    for scan, frame in scan_frames([frame for frame, _ in minima[:2]], 12):
        pool_frames.append((scan, frame, "scans"))
    return [PoolFrame(x, "CH3CH2OH", origin, part) for origin, x, part in pool_frames]


def molecules_pool() -> list[PoolFrame]:
    """Return the frames of all molecules, those of the test sets too."""
    potential, pool_frames = xtb(), []
    for name in MOLECULES:
        minima = [minimum(g2_frame(name), potential)]
        for degrees in (500.0, 1000.0):
            for frame in mode_frames(minima, degrees, 4, name):
                pool_frames.append(PoolFrame(frame, name, f"modes{degrees:g}", "pool"))
        for degrees in (300.0, 500.0, 1000.0):
            test = "hot" if degrees > 500.0 else "thermal"
            for stream, part, count in (("pool", "pool", 3), ("test", test, 2)):
                piece, origin = Piece(degrees, 2, count, before=120), f"md{degrees:g}"
                where = f"{name}/{origin}/{stream}"
                for frame in md_frames(minima, potential, piece, where):
                    pool_frames.append(PoolFrame(frame, name, origin, part))
    return pool_frames


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
    for pool_frame in frames:
        facts = {
            "molecule": pool_frame.molecule,
            "origin": pool_frame.origin,
            "part": pool_frame.part,
        }
        frame = pool_frame.frame
        atoms.append(Atoms(frame.numbers, frame.positions, info=facts))
    part = path.with_suffix(".part")
    write(part, atoms, format="extxyz")
    part.replace(path)


def label_file(path: Path) -> None:
    """Label the frames of a file at both levels, if they are not."""
    for fidelity, level in LEVELS.items():
        level_text = level if isinstance(level, str) else json.dumps(level)
        out = path.with_suffix(f".{fidelity}.xyz")
        options = ["--level", level_text, "--workers", "1", "--out", out, "--quiet"]
        alloop("label", path, *options)


def alloop(*arguments: Any) -> None:
    """Run a command of alloop."""
    subprocess.run([sys.executable, "-m", "alloop", *map(str, arguments)], check=True)


def labelled(path: Path) -> list[LabelledFrame]:
    """Return the frames of a file that have labels at both levels."""
    tables: dict[str, dict[str, Label]] = {}
    for fidelity in LEVELS:
        structures = read(path.with_suffix(f".{fidelity}.xyz"), index=":")
        tables[fidelity] = {x.info["frame"]: _label(x) for x in structures}
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
    length = max(len(x.source.frame) for x in frames)
    arrays: dict[str, Any] = {
        "Z": np.array(
            [_padded(x.source.frame.numbers, length) for x in frames], np.uint8
        ),
        "R": np.array(
            [_padded(x.source.frame.positions, length) for x in frames], np.float32
        ),
    }
    for key in ("molecule", "origin", "part"):
        names, index = np.unique(
            [getattr(x.source, key) for x in frames], return_inverse=True
        )
        arrays[key], arrays[f"{key}s"] = index.astype(np.uint8), names
    for fidelity in LEVELS:
        labels = [x.labels[fidelity] for x in frames]
        arrays[f"E_{fidelity}"] = np.array([label.energy for label in labels])
        forces = [_padded(label.forces, length) for label in labels]
        arrays[f"F_{fidelity}"] = np.array(forces, np.float32)
        seconds = np.array([label.cpu_seconds for label in labels], np.float32)
        arrays[f"cpu_{fidelity}"] = seconds
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)
    part.replace(path)


def _padded(values: Floats | Integers, length: int) -> Floats:
    out: Floats = np.zeros((length, *values.shape[1:]))
    out[: len(values)] = values
    return out


def main() -> None:
    """Make the pools that are asked for."""
    parser = make_parser(__doc__)
    makers = {"ethanol": make_ethanol, "molecules": make_molecules}
    parser.add_argument("pools", nargs="+", choices=list(makers))
    parser.add_argument("--work", type=Path, required=True, help="folder of the steps")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for name in options.pools:
        file = makers[name](options.work)
        pool = read_pool(file)
        sizes = {test: len(indices) for test, indices in pool.tests.items()}
        show(file.name, file.stat().st_size, len(pool.chosen), sizes, pool.prices(None))


if __name__ == "__main__":
    main()
