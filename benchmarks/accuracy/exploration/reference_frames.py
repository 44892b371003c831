"""Test frames at GFN2-xTB of molecules, which no campaign sees, declared before.

MD at 300, 500 and 1000 K, rigid scans of torsions and bonds, relaxed torsions,
conformers that RDKit finds, the path between the lowest two, and that to an isomer.
"""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.constraints import FixInternals
from ase.io import write
from ase.optimize import BFGS

from alloop.config.load import parse_campaign, parse_level
from alloop.config.molecules import NAMES
from alloop.config.yaml_text import dump_yaml
from alloop.core.atoms import to_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import LabelSet
from alloop.core.seeds import random_stream
from alloop.labels.direct import DirectLabeller
from alloop.md.conformers import smiles_conformers
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.reaction_path import PathSettings, find_path
from alloop.md.shapes import open_bonds, stretched_frame, turned_frame
from alloop.md.thermal_frames import (
    NormalModes,
    normal_modes,
    numerical_hessian,
    relax_frame,
    thermal_walkers,
)
from alloop.potentials.ase_calculator import PotentialCalculator
from alloop.potentials.labeller_potential import LabelFailed, LabellerPotential

TEST_SEED = 16_100  # the seed of the test frames, for all benchmarks
LEVEL = "gfn2-xtb"
_TEST_FRAMES, _SPACING = 10, 25  # frames of a test walker, MD steps of 1 fs between two
SMILES: Mapping[str, str] = {
    "ethanol": "CCO",
    "CH3COOH": "CC(=O)O",
    "ethylene glycol": "OCCO",
    "butane": "CCCC",
    "formamide": "NC=O",
    "hydrogen peroxide": "OO",
    "hydrogen cyanide": "C#N",
    "glycine": "NCC(=O)O",
}
# A hydrogen and the atom that it goes to: formimidic acid, hydrogen isocyanide.
ISOMERS: Mapping[str, tuple[int, int]] = {
    "formamide": (3, 2),
    "hydrogen cyanide": (2, 1),
}
BOTH = " and isomer"  # behind a molecule's name: campaigns begin with both isomers


def start_item(options: Namespace) -> dict[str, Any]:
    """Return the start: a molecule's name, its lowest conformer, or two isomers."""
    molecule = options.molecule
    if molecule.endswith(BOTH):
        return {"file": str(isomer_file(options)), "conformers": True}
    if molecule in SMILES and molecule not in NAMES:
        return {"smiles": SMILES[molecule], "conformers": 1}
    return {"molecule": molecule}


def reference_minimum(options: Namespace) -> tuple[Frame, NormalModes]:
    """Return the minimum at GFN2-xTB with its normal modes."""
    oracle = expensive_potential()
    tree = {
        "name": "start",
        "start": [start_item(options)],
        "levels": {"expensive": LEVEL},
    }
    setup = parse_campaign(dump_yaml(tree), ".")
    minimum = relax_frame(setup.start[0], oracle)
    return minimum, normal_modes(minimum, numerical_hessian(minimum, oracle))


def test_sets(
    options: Namespace, minimum: Frame, modes: NormalModes
) -> dict[str, LabelSet]:
    """Return the labelled test frames by name; made once, then read from the folder."""
    path = options.out / f"sets-{options.molecule}-{options.frames}.npz"
    if not path.exists():
        oracle = expensive_potential()
        arrays: dict[str, Any] = {}
        for name, frames in _test_frames(options, minimum, modes).items():
            predictions = oracle.predict(pack_frames(frames))
            arrays[f"{name}/numbers"] = frames[0].numbers
            arrays[f"{name}/positions"] = np.stack([x.positions for x in frames])
            arrays[f"{name}/energies"] = predictions.energies
            arrays[f"{name}/forces"] = predictions.forces.reshape(len(frames), -1, 3)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez(file, **arrays)
    with np.load(path) as held:
        names = dict.fromkeys(key.split("/")[0] for key in held)
        return {
            name: LabelSet.of(
                [
                    replace(minimum, numbers=held[f"{name}/numbers"], positions=x)
                    for x in held[f"{name}/positions"]
                ],
                held[f"{name}/energies"],
                list(held[f"{name}/forces"]),
            )
            for name in names
        }


def _test_frames(
    options: Namespace, minimum: Frame, modes: NormalModes
) -> dict[str, list[Frame]]:
    sets = {
        "300 K": _md_frames(options, minimum, modes, 300.0),
        "500 K": _md_frames(options, minimum, modes, 500.0),
        "1000 K": _md_frames(options, minimum, modes, 1000.0),
        **scan_frames(minimum),
        "relaxed torsions": relaxed_torsions(minimum),
        **conformer_frames(options),
        "isomer": isomer_frames(options, minimum),
    }
    return {name: frames for name, frames in sets.items() if frames}


def scan_frames(minimum: Frame) -> dict[str, list[Frame]]:
    """Return rigid scans of torsions and of bonds; one may be empty, as in water."""
    bonds = open_bonds(minimum)
    return {
        "torsions": [
            turned_frame(minimum, bond, np.radians(angle))
            for bond in bonds
            if bond.turns
            for angle in range(0, 360, 5)
        ],
        "stretches": [
            stretched_frame(minimum, bond, factor)
            for bond in bonds
            for factor in np.linspace(0.85, 1.45, 13)
        ],
    }


def relaxed_torsions(minimum: Frame) -> list[Frame]:
    """Return scans of torsions in steps of 30°, all else relaxed at GFN2-xTB."""
    frames = []
    for bond in (x for x in open_bonds(minimum) if x.turns):
        inside = ~bond.part & (np.arange(len(minimum)) != bond.fixed)
        outside = bond.part & (np.arange(len(minimum)) != bond.moved)
        ends = [
            min(
                np.flatnonzero(x).tolist(),
                key=lambda atom: distance(minimum, atom, place),
            )
            for x, place in ((inside, bond.fixed), (outside, bond.moved))
        ]
        torsion = [ends[0], bond.fixed, bond.moved, ends[1]]
        for angle in range(0, 360, 30):
            atoms = to_atoms(turned_frame(minimum, bond, np.radians(angle)))
            held = [[atoms.get_dihedral(*torsion), torsion]]
            atoms.set_constraint(FixInternals(dihedrals_deg=held))
            atoms.calc = PotentialCalculator(expensive_potential())
            BFGS(atoms, logfile=None).run(fmax=0.05, steps=100)
            frames.append(replace(minimum, positions=atoms.positions))
    return frames


def distance(frame: Frame, first: int, second: int) -> float:
    """Return the distance of two atoms, Å."""
    return float(np.linalg.norm(frame.positions[first] - frame.positions[second]))


def conformer_frames(options: Namespace) -> dict[str, list[Frame]]:
    """Return the relaxed conformers, and the path between the two lowest of them."""
    if options.molecule not in SMILES:
        return {}
    oracle = expensive_potential()
    shapes = smiles_conformers(SMILES[options.molecule], 20, seed=TEST_SEED)
    frames = [relax_frame(frame, oracle) for frame in shapes]
    frames.sort(key=lambda x: float(oracle.predict(pack_frames([x])).energies[0]))
    if len(frames) < 2:
        return {}
    try:
        settings = PathSettings(images=7, relax=False, match=True)
        path = find_path(frames[0], frames[1], oracle, settings)
    except (InputError, LabelFailed):  # two that relaxed to one; atoms too close
        return {"conformers": frames}
    return {"conformers": frames, "path": list(path.batch.frames())}


def isomer_file(options: Namespace) -> Path:
    """Return the file of a molecule and its isomer, relaxed at GFN2-xTB."""
    path: Path = options.out.absolute() / f"{options.molecule}.xyz"
    if not path.exists():
        alone = Namespace(**vars(options))
        alone.molecule = options.molecule.removesuffix(BOTH)
        minimum, _ = reference_minimum(alone)
        path_frames = isomer_frames(alone, minimum)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, [to_atoms(path_frames[place]) for place in (0, -1)])
    return path


def isomer_frames(options: Namespace, minimum: Frame) -> list[Frame]:
    """Return the path to the isomer that a hydrogen's transfer makes, at GFN2-xTB."""
    molecule = options.molecule.removesuffix(BOTH)
    if molecule not in ISOMERS:
        return []
    hydrogen, atom = ISOMERS[molecule]
    positions = np.array(minimum.positions)
    arm = positions[hydrogen] - positions[atom]
    away = positions[atom] - positions[np.argmax(minimum.numbers == 6)]
    # On the far side where the hydrogen would meet the carbon on its way.
    arm = (
        away if arm @ away < -0.9 * np.linalg.norm(arm) * np.linalg.norm(away) else arm
    )
    positions[hydrogen] = positions[atom] + arm / np.linalg.norm(arm)
    isomer = replace(minimum, positions=positions)
    path = find_path(minimum, isomer, expensive_potential(), PathSettings())
    return list(path.batch.frames())


def _md_frames(
    options: Namespace, minimum: Frame, modes: NormalModes, kelvin: float
) -> list[Frame]:
    """Return frames of MD at GFN2-xTB; each walker's first stretch is left out."""
    rng = random_stream(TEST_SEED, f"{kelvin:g} K")
    count = -(-options.frames // _TEST_FRAMES)
    walkers = thermal_walkers(minimum, modes, kelvin, count, rng)
    settings = DynamicsSettings(temperature=kelvin, timestep=1.0)
    frames = []
    for number in range(_TEST_FRAMES):
        rngs = [
            random_stream(TEST_SEED, f"{kelvin:g}/{number}/{x.index}") for x in walkers
        ]
        walkers = run_dynamics(
            walkers, expensive_potential(), settings, _SPACING, rngs
        ).walkers
        frames += [walker.frame for walker in walkers if walker.stopped is None]
    return frames


def expensive_potential() -> LabellerPotential:
    """Return the potential of GFN2-xTB."""
    return LabellerPotential(DirectLabeller(parse_level(LEVEL)))
