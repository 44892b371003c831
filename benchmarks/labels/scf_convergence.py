"""SCF convergence on hard frames: which rung saves them, at what cost, how right.

    python -m benchmarks.labels.scf_convergence [--quick] [--rows FILE]
        [--cache FOLDER] [--workers N]

Distorted frames of five species (closed shells, a radical, a cation): half displaced by
0.1 to 0.3 Å rms an atom, half with one bond stretched to 1.3 to 3 times its length. At
each level the tables give how many labels converged on which rung of the ladder, how
many were followed downhill from a saddle, how many were refused and why, and the CPU
seconds that failed rungs cost.

Every rescued label, and every fifth of the others, is compared with an independent
route: plain PySCF from four initial guesses, each made stable, the lowest of them. A
label above it by more than a meV is a wrong state.

Rows (JSON lines) and labels are kept: a killed run goes on.
"""

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import molecule
from ase.data import covalent_radii

from alloop.core import doubts
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Label, Unlabelled
from alloop.core.units import Floats
from alloop.jobs.label_frames import label_frames
from alloop.labels.child.labeller import Limits
from alloop.labels.levels import pyscf_level
from benchmarks.common import Row, Rows, make_parser, make_table, show, write_json
from benchmarks.labels.stable_states import SAME, lowest_energy

# What is asked for is convergence, not numbers: a coarse grid does.
LEVELS = (
    pyscf_level("hf", "6-31g"),
    pyscf_level("pbe", "6-31g", density_fit=True, grid=1),
    pyscf_level("b3lyp", "6-31g", density_fit=True, grid=1),
)
_CLOSEST = 0.6  # of the sum of covalent radii: closer ones are the geometry gate's


@dataclass(frozen=True, slots=True)
class Species:
    """A molecule of ASE's collection, with the state it is in."""

    name: str
    charge: int = 0
    spin: int = 0


SPECIES = (
    *(Species("H2O"), Species("H2CO"), Species("CH3OH")),
    *(Species("CH3O", spin=1), Species("H2O", charge=1, spin=1)),
)


def main() -> None:
    """Label, check, show."""
    options = _options()
    frames = [
        frame
        for species in SPECIES
        for frame in distort_molecule(species, 4 if options.quick else options.frames)
    ]
    rows = Rows(options.rows)
    lines = []
    for level in LEVELS[:1] if options.quick else LEVELS:
        records = label_frames(
            frames,
            level,
            workers=options.workers,
            limits=Limits(seconds=600.0),
            cache=options.cache,
        )
        checks = _compare_labels(frames, records, level, rows)
        lines.append(_level_row(level.title, records) | _agreement(checks))
    show(*(make_table(title, part) for title, part in _split_tables(lines)))
    write_json(options.json, {"levels": lines})


def _options() -> Namespace:
    parser = make_parser(__doc__)
    folder = Path("runs/benchmarks/rescue")
    parser.add_argument("--frames", type=int, default=50, help="of each species")
    parser.add_argument("--rows", type=Path, default=folder / "rows.jsonl")
    parser.add_argument("--cache", type=Path, default=folder / "labels")
    parser.add_argument("--workers", type=int, default=1, help="child processes")
    return parser.parse_args()


# --- frames --------------------------------------------------------------------------


def distort_molecule(species: Species, count: int) -> list[Frame]:
    """Return frames far from equilibrium, none with atoms on top of each other."""
    seed = sum(map(ord, species.name)) + 1000 * species.charge
    rng, atoms = np.random.default_rng(seed), molecule(species.name)
    frames: list[Frame] = []
    while len(frames) < count:
        moved = atoms.positions.copy()
        if len(frames) % 2:
            moved = _stretched(atoms.numbers, moved, rng)
        else:
            moved += rng.normal(0, rng.uniform(0.1, 0.3), moved.shape)
        state = (species.charge, species.spin)
        if _ratios(atoms.numbers, moved).min() > _CLOSEST:
            frames.append(Frame(atoms.numbers, moved, *state))
    return frames


def _stretched(numbers: Any, x: Floats, rng: np.random.Generator) -> Floats:
    """Draw out one bond, its smaller side moved as a whole; add a little noise."""
    bonded = _ratios(numbers, x) < 1.3
    pairs = np.argwhere(np.triu(bonded, 1))
    i, j = pairs[rng.integers(len(pairs))]
    bonded[i, j] = bonded[j, i] = False
    side = np.zeros(len(x), bool)
    side[j] = True
    for _ in x:
        side |= bonded[side].any(axis=0)
    side = ~side if side.sum() > len(x) / 2 else side
    apart = (x[j] - x[i]) * (1 if side[j] else -1)
    moved = x + np.outer(side, apart * rng.uniform(0.3, 2.0))
    out: Floats = moved + rng.normal(0, 0.05, x.shape)
    return out


def _ratios(numbers: Any, x: Floats) -> Floats:
    """Return distances over sums of covalent radii (atoms, atoms), diagonal inf."""
    radii = covalent_radii[numbers]
    apart = np.linalg.norm(x[:, None] - x, axis=-1) + np.diag(np.full(len(x), np.inf))
    out: Floats = apart / (radii[:, None] + radii)
    return out


# --- tables --------------------------------------------------------------------------


def _compare_labels(
    frames: Sequence[Frame],
    records: Sequence[Label | Unlabelled],
    level: Level,
    rows: Rows,
) -> list[Row]:
    """Compare all rescued labels, and some others, with the independent route."""
    figures = []
    for index, (frame, record) in enumerate(zip(frames, records, strict=True)):
        if not isinstance(record, Label):
            continue
        if index % 5 and not needed_rescue(record):
            continue
        key = f"{level.id}/{frame.id}"
        if key not in rows:
            rows[key] = {"lowest": lowest_energy(frame, level)}
        other = rows[key]["lowest"]
        above = None if other is None else record.energy - other
        figures.append({"rescued": needed_rescue(record), "above": above})
    return figures


def needed_rescue(label: Label) -> bool:
    """Return whether the first rung was not enough."""
    details = label.details
    return details["rung"] != "default" or bool(details.get("followed"))


def _level_row(name: str, records: Sequence[Label | Unlabelled]) -> Row:
    labels = [record for record in records if isinstance(record, Label)]
    refused = [record for record in records if isinstance(record, Unlabelled)]
    rungs = Counter(str(label.details["rung"]) for label in labels)
    signs = Counter(
        x.name for label in labels for x in doubts.doubts_of_details(label.details)
    )
    lost = sum(float(x.details.get("lost_seconds") or 0.0) for x in records)
    return {
        "level": name,
        "frames": len(records),
        "rungs": dict(rungs.most_common()),
        "followed": sum(bool(label.details.get("followed")) for label in labels),
        "refused": dict(Counter(x.failure.name for x in refused).most_common()),
        "doubts": dict(signs.most_common()),
        "CPU s": sum(record.cpu_seconds for record in records),
        "lost CPU s": lost,
        "refused CPU s": sum(record.cpu_seconds for record in refused),
    }


def _agreement(checks: Sequence[Row]) -> Row:
    """Compare labels with the independent route, rescued ones and others apart."""
    out: Row = {}
    for name, is_rescued in (("rescued", True), ("others", False)):
        above = [row["above"] for row in checks if row["rescued"] is is_rescued]
        differences = [x for x in above if x is not None]
        out |= {
            f"{name} checked": len(above),
            f"{name} same": sum(abs(x) <= SAME for x in differences),
            f"{name} lower": sum(x < -SAME for x in differences),
            f"{name} higher": sum(x > SAME for x in differences),
            f"{name} highest eV": max(differences, default=None),
        }
    return out


def _split_tables(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Split the figures into three tables that fit a page."""
    cuts = (
        ("rungs", ("frames", "rungs", "followed", "refused")),
        ("costs and doubts", ("CPU s", "lost CPU s", "refused CPU s", "doubts")),
        (
            "against the lowest of several starts",
            tuple(key for key in rows[0] if key.startswith(("rescued", "others"))),
        ),
    )
    return [
        (
            title,
            [
                {"level": row["level"], **{k: _format_counts(row[k]) for k in keys}}
                for row in rows
            ],
        )
        for title, keys in cuts
    ]


def _format_counts(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{n} {k.lower()}" for k, n in value.items()) or "none"
    return value


if __name__ == "__main__":
    main()
