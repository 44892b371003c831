"""How do time and memory grow with molecules and walkers? One thread, float32.

    python -m benchmarks.speed.sizes --out FOLDER [--quick] [--only KIND ...] [--table]
        [--figure FILE]

Alkanes, clusters of water at its density, polyalanine (RDKit) and cells of water, from
9 to 1000 atoms; one molecule, and so many that a call gets some 2000 atoms; mixtures of
all sizes of alkanes up to 100 atoms; 1 to 256 walkers of an alkane. Positions move by a
normal number of 0.02 Å from call to call, so that pairs are listed anew as in MD.

    plain, compiled  CPU microseconds of an atom in a force call, least of some
    training         CPU microseconds of an atom in a plain training step of ten
    pairs            directed edges of an atom
    memory           MB that the process needs beyond what it needed before, at most

A row is a process of its own and a line in FOLDER/sizes.jsonl; what is there is
skipped. --figure draws compiled and plain calls against size.
"""

import resource
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.models.graph import to_graph
from alloop.models.network import build_network
from alloop.potentials.compiled import compiled_for
from alloop.potentials.learned import LearnedPotential
from alloop.training.losses import LabelLoss, Targets, eager_gradients
from benchmarks.common import Row, Rows, make_parser, make_table, show

_ATOMS_OF_A_CALL = 2000
_SHAKE = 0.02  # Å
_SPACING = 3.1  # Å, of waters at their density
_ALKANES = (2, 3, 6, 7, 10, 16, 20, 21, 33, 66, 166, 333)  # carbons
_WATERS = (3, 7, 17, 21, 33, 67, 167, 333)
_ALANINES = (1, 2, 5, 10)  # more RDKit does not embed
_CELLS = (32, 64, 125, 333)  # waters
_WALKERS = (1, 4, 16, 64, 256)
_REFERENCES = {1: -13.6, 6: -1036.0, 7: -1490.0, 8: -2045.0}


# --- molecules ------------------------------------------------------------------------


def alkane(carbons: int) -> Frame:
    """Return a stretched alkane, all bonds about as they should be."""
    numbers, positions = [], []
    for index in range(carbons):
        side = (-1.0) ** index
        centre = np.array([1.26 * index, 0.43 * side, 0.0])
        hydrogens = centre + np.array([[0.0, 0.63 * side, up] for up in (0.89, -0.89)])
        numbers += [6, 1, 1]
        positions += [centre, *hydrogens]
    for end, outwards in ((0, -1.0), (carbons - 1, 1.0)):
        step = np.array([outwards, -0.5 * (-1.0) ** end, 0.0])
        numbers.append(1)
        positions.append(positions[3 * end] + step)
    return Frame(np.array(numbers), np.array(positions))


def water_cluster(waters: int) -> Frame:
    """Return the waters of a lattice that are nearest to a point, turned at random."""
    reach = np.arange(-8, 9)
    lattice = np.stack(np.meshgrid(reach, reach, reach), -1).reshape(-1, 3) + 0.3
    order = np.argsort((lattice**2).sum(axis=1), kind="stable")
    return _waters(_SPACING * lattice[order[:waters]])


def water_cell(waters: int) -> Frame:
    """Return a periodic cube of water at its density."""
    edge = round(waters ** (1 / 3) + 0.499)
    places = np.stack(np.meshgrid(*3 * [np.arange(edge)]), -1).reshape(-1, 3)[:waters]
    frame = _waters(_SPACING * places)
    length = _SPACING * waters ** (1 / 3)
    scale = length / (_SPACING * edge)
    centres = frame.positions.reshape(-1, 3, 3)[:, :1]
    moved = frame.positions.reshape(-1, 3, 3) + (scale - 1.0) * centres
    cell = length * np.eye(3)
    return Frame(frame.numbers, moved.reshape(-1, 3), cell=cell, pbc=(True, True, True))


def _waters(centres: np.ndarray) -> Frame:
    from scipy.spatial.transform import Rotation

    shape = np.array([[0.0, 0.0, 0.0], [0.757, 0.587, 0.0], [-0.757, 0.587, 0.0]])
    turns = Rotation.random(len(centres), random_state=0).as_matrix()
    positions = centres[:, None] + np.einsum("nij,aj->nai", turns, shape)
    return Frame(np.tile([8, 1, 1], len(centres)), positions.reshape(-1, 3))


def polyalanine(residues: int) -> Frame:
    """Return a peptide of alanines as RDKit embeds it."""
    from ase import Atoms
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    peptide = Chem.AddHs(Chem.MolFromSequence("A" * residues))
    rdDistGeom.EmbedMolecule(peptide, randomSeed=0)
    positions = peptide.GetConformer().GetPositions()
    return from_atoms(
        Atoms([atom.GetSymbol() for atom in peptide.GetAtoms()], positions)
    )


def _systems(quick: bool) -> Iterator[tuple[str, Callable[[int], Frame], int, int]]:
    """Yield the name, the maker, the size of a system and its number of walkers."""
    kinds: tuple[tuple[str, Callable[[int], Frame], Sequence[int]], ...] = (
        ("alkane", alkane, _ALKANES),
        ("water", water_cluster, _WATERS),
        ("peptide", polyalanine, _ALANINES),
        ("cell", water_cell, _CELLS),
    )
    for name, make, sizes in kinds:
        if quick and name != "alkane":
            continue
        for size in sizes[: 9 if quick else None]:
            many = max(_ATOMS_OF_A_CALL // len(make(size).numbers), 1)
            yield from ((name, make, size, walkers) for walkers in {1, many})
    if not quick:
        yield from (("alkane", alkane, 10, walkers) for walkers in _WALKERS)
        yield ("mixture", alkane, 33, 1)


# --- what is measured -----------------------------------------------------------------


def make_row(kind: str, name: str, size: int, walkers: int) -> Row:
    """Return the figures of one system, measured in this process."""
    torch.set_num_threads(1)
    makers = {
        "alkane": alkane,
        "water": water_cluster,
        "peptide": polyalanine,
        "cell": water_cell,
    }
    if name == "mixture":
        batch = pack_frames(
            [alkane(carbons) for carbons in _ALKANES if carbons <= size]
        )
    else:
        batch = pack_frames([makers[name](size)] * walkers)
    potential = LearnedPotential(build_network(kind), _REFERENCES)
    graph = to_graph(batch, potential.cutoff)
    row: Row = {"system": name, "atoms": int(batch.sizes.max()), "frames": len(batch)}
    row["pairs"] = graph.edge_index.shape[1] / len(batch.numbers)
    before = _peak_memory()
    row["plain"] = call_time(potential.predict, batch)
    row["memory"] = _peak_memory() - before
    code, why = compiled_for(potential, batch)
    row["compiled"] = None if why else call_time(code.predict, batch)
    row["training"] = step_time(kind, batch) if len(batch) >= 10 else None
    return row


def call_time(predict: Callable[[Batch], object], batch: Batch) -> float:
    """Return the CPU time of a force call, microseconds an atom."""
    rng, times = np.random.default_rng(0), []
    for _ in range(6):
        noise = _SHAKE * rng.standard_normal(batch.positions.shape)
        moved = batch.with_positions(batch.positions + noise)
        began = time.process_time()
        predict(moved)
        times.append(time.process_time() - began)
    return 1e6 * min(times) / len(batch.numbers)


def step_time(kind: str, batch: Batch) -> float:
    """Return the CPU time of a gradient for 10 molecules, microseconds an atom."""
    frames = [batch.frame(index) for index in range(10)]
    ten = pack_frames(frames)
    network = build_network(kind)
    graph = to_graph(ten, network.cutoff)
    zero, ones = torch.zeros(10), torch.ones(10)
    targets = Targets(zero, torch.zeros_like(graph.pos), ones, graph.batch)
    gradients = eager_gradients(network, LabelLoss(0.0))
    times = []
    for _ in range(4):
        began = time.process_time()
        gradients(graph, targets, ())
        times.append(time.process_time() - began)
    return 1e6 * min(times) / len(ten.numbers)


def _peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- tables and figures ---------------------------------------------------------------


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the time of an atom against the size of its molecule."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 3.4), layout="constrained")
    for axes, column in zip(
        figure.subplots(1, 2, sharey=True), ("plain", "compiled"), strict=True
    ):
        for name in ("alkane", "water", "peptide", "cell"):
            points = sorted(
                (row["atoms"], row[column])
                for row in rows
                if row["system"] == name and row[column] and row["frames"] != 1
            )
            if points:
                axes.loglog(*zip(*points, strict=True), "o-", label=name)
        axes.set(title=column, xlabel="atoms of a molecule")
    figure.axes[0].set_ylabel("µs an atom and force call")
    figure.axes[0].legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Make the rows that are missing, and show what is there."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the folder of the rows")
    add("--only", nargs="+", default=["painn", "tensor-painn"], metavar="KIND")
    add("--table", action="store_true", help="show what the folder holds")
    add("--figure", type=Path, help="draw the first network's rows to this file")
    options: Namespace = parser.parse_args()
    rows = Rows(options.out / "sizes.jsonl")
    spawn = get_context("spawn")
    for kind in () if options.table else options.only:
        for name, _, size, walkers in _systems(options.quick):
            key = f"{kind}/{name}/{size}/{walkers}"
            if key in rows:
                continue
            with ProcessPoolExecutor(1, mp_context=spawn) as process:
                rows[key] = process.submit(make_row, kind, name, size, walkers).result()
            show(key, rows[key])
    for kind in options.only:
        some = _rows_of(rows, kind)
        show(make_table(f"{kind}: CPU microseconds an atom", some))
    if options.figure:
        draw(_rows_of(rows, options.only[0]), options.figure)


def _rows_of(rows: Rows, kind: str) -> list[Row]:
    return [rows[key] for key in rows if key.startswith(f"{kind}/")]


if __name__ == "__main__":
    main()
