"""A pool of ethanol at three temperatures, GFN1-xTB under GFN2-xTB, made in minutes."""

from pathlib import Path
from typing import Any

import numpy as np
from ase import units
from ase.build import molecule
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from alloop.config.load import parse_level
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.files.targets import replace_atomically
from alloop.labels.direct import DirectLabeller
from alloop.potentials.ase_calculator import PotentialCalculator
from alloop.potentials.labeller_potential import LabellerPotential
from benchmarks.accuracy.labelled_pool import LabelledPool, LabelTable

_LEVELS = {"cheap": "gfn1-xtb", "expensive": "gfn2-xtb"}
_KELVIN = (300, 600, 1000)
_FRAMES = 1000  # at each temperature
_SPACING = 20  # fs between frames
_SPLIT = 20_300  # the seed of the division into pool and test frames


def xtb_ethanol(folder: Path) -> LabelledPool:
    """Return ethanol: 3000 frames of MD at 300, 600 and 1000 K, on GFN2-xTB.

    They are made once and kept in the folder. Of 1500 test frames, drawn once, `all`
    are all; the others are named by their temperature.
    """
    file = folder / "xtb_ethanol.npz"
    if not file.exists():
        _make_frames(file)
    raw = np.load(file)
    numbers = raw["numbers"]
    frames = tuple(Frame(numbers, positions) for positions in raw["positions"])
    order = np.random.default_rng(_SPLIT).permutation(len(frames))
    test, chosen = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    warmth = {f"{k} K": test[test // _FRAMES == i] for i, k in enumerate(_KELVIN)}
    return LabelledPool(
        name="xtb-ethanol",
        start=frames[:1],
        frames=frames,
        molecules=np.zeros(len(frames), dtype=np.int64),
        tables={
            key: LabelTable(raw[f"{key}_energies"], tuple(raw[f"{key}_forces"]))
            for key in _LEVELS
        },
        levels=_LEVELS,
        chosen=chosen,
        tests={"all": test, **warmth},
        names=("CH3CH2OH",),
    )


def _make_frames(file: Path) -> None:
    oracles = {
        key: LabellerPotential(DirectLabeller(parse_level(level)))
        for key, level in _LEVELS.items()
    }
    frames = []
    for kelvin in _KELVIN:
        rng = np.random.default_rng(kelvin)
        atoms = molecule("CH3CH2OH")
        atoms.calc = PotentialCalculator(oracles["expensive"])
        MaxwellBoltzmannDistribution(atoms, temperature_K=2 * kelvin, rng=rng)
        moves = Langevin(
            atoms, units.fs, temperature_K=kelvin, friction=0.02 / units.fs, rng=rng
        )
        moves.run(500)
        for _ in range(_FRAMES):
            moves.run(_SPACING)
            frames.append(from_atoms(atoms))
    batch = pack_frames(frames)
    atoms_each = len(frames[0])
    arrays: dict[str, Any] = {
        "numbers": frames[0].numbers,
        "positions": batch.positions.reshape(len(frames), atoms_each, 3),
    }
    for key, oracle in oracles.items():
        found = oracle.predict(batch)
        arrays[f"{key}_energies"] = found.energies
        arrays[f"{key}_forces"] = found.forces.reshape(len(frames), atoms_each, 3)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(file) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
