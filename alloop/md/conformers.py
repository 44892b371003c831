"""Conformers of a molecule from its SMILES, by RDKit (an extra)."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.units import Floats, Integers
from alloop.md.shapes import open_bonds, turned_frame

_TRIES = 10  # embeddings for each conformer that is asked for
_SAME = 0.1  # Å, root mean square difference of distances below which shapes are one
_RATTLE = 0.05  # Å; a bond turned onto a barrier would stay there by symmetry
_TURNS = np.radians([120.0, 180.0, 240.0])


def smiles_conformers(
    smiles: str, count: int, seed: int, spin: int | None = None
) -> list[Frame]:
    """Return up to `count` different conformers, lowest force-field energy first.

    They are embedded by ETKDGv3 (Wang et al., J. Chem. Inf. Model. 60, 2044 (2020));
    each of their bonds is turned once, since that method leaves out what crystals
    hardly show, such as acids in their E form. All are relaxed with MMFF94, or with UFF
    where that lacks an atom's type. The charge is that of the SMILES. spin: 2S, by
    default the number of radical electrons. Raises InputError where the SMILES cannot
    be read or embedded, or RDKit is not installed.
    """
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import rdDistGeom
    except ImportError as error:
        raise InputError(
            "expected RDKit for `smiles:`, it is not installed; install it with: "
            "pip install 'alloop[conformers]'"
        ) from error
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None or not molecule.GetNumAtoms():
            raise InputError(f"expected a SMILES that RDKit can read, got `{smiles}`")
        molecule = Chem.AddHs(molecule)
        parameters: Any = rdDistGeom.ETKDGv3()
        parameters.randomSeed = seed % 2**31
        if not rdDistGeom.EmbedMultipleConfs(molecule, _TRIES * count, parameters):
            raise InputError(
                f"RDKit finds no structure for `{smiles}`; give one as `file:`"
            )
        radicals = sum(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())
        state = Chem.GetFormalCharge(molecule), radicals if spin is None else spin
        shapes = _relaxed_shapes(molecule, *state)[:count]
        _add_turned(molecule, shapes)
        return _relaxed_shapes(molecule, *state)[:count]


def _relaxed_shapes(molecule: Any, charge: int, spin: int) -> list[Frame]:
    """Relax all conformers of an RDKit molecule; return the different ones by energy.

    Two are one if their distances are, up to equal atoms and mirrors.
    """
    from rdkit.Chem import rdForceFieldHelpers as fields

    complete = fields.MMFFHasAllMoleculeParams(molecule)
    relax = (
        fields.MMFFOptimizeMoleculeConfs
        if complete
        else fields.UFFOptimizeMoleculeConfs
    )
    energies = [energy for _, energy in relax(molecule, maxIters=2000)]
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    conformers = list(molecule.GetConformers())
    order = np.argsort(energies, kind="stable")
    return different_shapes(
        Frame(numbers, conformers[int(place)].GetPositions(), charge, spin)
        for place in order
    )


def different_shapes(frames: Iterable[Frame]) -> list[Frame]:
    """Return the frames of a molecule whose shapes differ from those before them."""
    shapes: list[Frame] = []
    marks: list[Floats] = []
    for frame in frames:
        mark = sorted_distances(frame.numbers, frame.positions)
        if not any(same_shape(mark, x) for x in marks):
            marks.append(mark)
            shapes.append(frame)
    return shapes


def _add_turned(molecule: Any, shapes: list[Frame]) -> None:
    """Add conformers to an RDKit molecule: shapes with one bond turned."""
    from rdkit.Chem import Conformer
    from rdkit.Geometry import Point3D

    rng = np.random.default_rng(0)
    for shape in _turned_shapes(shapes):
        conformer = Conformer(len(shape))
        moves = rng.normal(0.0, _RATTLE, shape.positions.shape)
        for atom, position in enumerate(shape.positions + moves):
            conformer.SetAtomPosition(atom, Point3D(*position.tolist()))
        molecule.AddConformer(conformer, assignId=True)


def _turned_shapes(shapes: list[Frame]) -> Iterator[Frame]:
    for shape in shapes:
        for bond in open_bonds(shape):
            if bond.turns:
                yield from (turned_frame(shape, bond, angle) for angle in _TURNS)


def same_shape(distances: Floats, other: Floats) -> bool:
    """Return True if the sorted distances of two shapes are those of one."""
    return bool(np.sqrt(((distances - other) ** 2).mean()) <= _SAME)


def sorted_distances(numbers: Integers, positions: Floats) -> Floats:
    """Return all distances, sorted within each pair of elements."""
    first, second = np.triu_indices(len(numbers), 1)
    distances = np.linalg.norm(positions[first] - positions[second], axis=1)
    light, heavy = np.sort(np.stack([numbers[first], numbers[second]]), axis=0)
    out: Floats = distances[np.lexsort((distances, heavy, light))]
    return out
