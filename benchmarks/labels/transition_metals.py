"""Compare labels of transition metals with the lowest of five independent starts.

    python -m benchmarks.labels.transition_metals [--quick] [--rows FILE]

CuO, FeO, VO, MnO and NiCO, the metal's bond a tenth too long, by PBE and B3LYP in
def2-SVP. Each label is compared with an independent route: plain PySCF from
five starts (four guesses, and one whose frontier orbitals are mixed), each made
internally stable, the lowest of them. A label above it by more than a meV that raises
no doubt is a silent error. Beside it stands what the first start alone would have been,
made stable: a label without rivals.

Rows (JSON lines) are kept: a killed run goes on.
"""

from argparse import Namespace
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from alloop.core import doubts
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Label
from alloop.core.units import HARTREE
from alloop.labels.direct import label_frame
from alloop.labels.levels import pyscf_level
from benchmarks.common import Row, Rows, make_parser, make_table, show, write_json
from benchmarks.labels.stable_states import GUESSES, SAME, mean_field, stable_energy

LEVELS = tuple(
    pyscf_level(method, "def2-svp", density_fit=True, grid=1)
    for method in ("pbe", "b3lyp")
)
STARTS = (*GUESSES, "mixed")
_ALONG = np.array([0.48, 0.6, 0.64])  # off the axes


@dataclass(frozen=True, slots=True)
class LinearMolecule:
    """A linear molecule: elements, distances (Å) between neighbours, 2S."""

    elements: tuple[str, ...]
    distances: tuple[float, ...]
    spin: int

    def frame(self, stretch: float) -> Frame:
        """Return the molecule with its first bond `stretch` times as long."""
        first, *others = self.distances
        places = np.cumsum([0.0, first * stretch, *others])  # Å
        numbers = np.array([atomic_numbers[element] for element in self.elements])
        return Frame(numbers, np.outer(places, _ALONG), spin=self.spin)


MOLECULES = {
    "CuO": LinearMolecule(("Cu", "O"), (1.72,), 1),
    "FeO": LinearMolecule(("Fe", "O"), (1.62,), 4),
    "VO": LinearMolecule(("V", "O"), (1.59,), 3),
    "MnO": LinearMolecule(("Mn", "O"), (1.65,), 5),
    "NiCO": LinearMolecule(("Ni", "C", "O"), (1.67, 1.15), 0),
}
STRETCH = 1.1  # of the bond of the metal


def main() -> None:
    """Label, start five times, show."""
    options = _options()
    rows = Rows(options.rows)
    chosen = ("CuO",) if options.quick else tuple(MOLECULES)
    cases = [
        (name, level)
        for level in LEVELS[: 1 if options.quick else None]
        for name in chosen
    ]
    lines = [compare_starts(*case, rows) for case in cases]
    show(make_table("labels beside the lowest of five starts, meV", lines))
    show(make_table("in all", [_summary(lines)]))
    write_json(options.json, {"cases": lines, **_summary(lines)})


def _options() -> Namespace:
    parser = make_parser(__doc__)
    default = Path("runs/benchmarks/metals/rows.jsonl")
    parser.add_argument("--rows", type=Path, default=default)
    return parser.parse_args()


def compare_starts(name: str, level: Level, rows: Rows) -> Row:
    """Compare a label with the lowest of the starts; kept rows are not made again."""
    frame = MOLECULES[name].frame(STRETCH)
    for start in STARTS:
        key = f"{level.id}/{frame.id}/{start}"
        if key not in rows:
            rows[key] = _start(frame, level, start)
    if (key := f"{level.id}/{frame.id}/label") not in rows:
        rows[key] = _label(frame, level)
    starts = [rows[f"{level.id}/{frame.id}/{start}"] for start in STARTS]
    return {"molecule": name, "level": level.title} | _judged(rows[key], starts)


def _judged(label: Row, starts: list[Row]) -> Row:
    energies = [row["energy"] for row in starts if row["energy"] is not None]
    lowest, first = min(energies), starts[0]["energy"]
    above = None if label["energy"] is None else label["energy"] - lowest
    return {
        "starts agree": sum(energy < lowest + SAME for energy in energies),
        "first start": None if first is None else 1e3 * (first - lowest),
        "label": label["failure"] if above is None else 1e3 * above,
        "doubts": label["doubts"],
        "silent": above is not None and above > SAME and not label["doubts"],
        "CPU s": label["cpu"],
        "CPU, first start": starts[0]["cpu"],
    }


def _summary(rows: list[Row]) -> Row:
    """Return silent errors of labels and of first starts, and the cost of labels."""
    firsts = [row["first start"] for row in rows]
    labels = [row["label"] for row in rows]
    return {
        "labels": len(rows),
        "silent errors": sum(row["silent"] for row in rows),
        "labels too high": sum(not isinstance(x, str) and x > 1 for x in labels),
        "lower than all starts": sum(not isinstance(x, str) and x < -1 for x in labels),
        "refused": sum(isinstance(x, str) for x in labels),
        "doubted": sum(bool(row["doubts"]) for row in rows),
        "first starts too high": sum(x is None or x > 1 for x in firsts),
        "CPU ratio": sum(row["CPU s"] for row in rows)
        / sum(row["CPU, first start"] for row in rows),
    }


def _label(frame: Frame, level: Level) -> Row:
    record = label_frame(level, frame)
    good = isinstance(record, Label)
    return {
        "energy": record.energy if isinstance(record, Label) else None,
        "failure": "" if isinstance(record, Label) else record.failure.name,
        "doubts": doubts.doubts_to_text(doubts.doubts_of_details(record.details))
        if good
        else "",
        "cpu": record.cpu_seconds,
        "details": dict(record.details),
    }


def _start(frame: Frame, level: Level, start: str) -> Row:
    """Return the energy in eV of one start made stable, None if lost; CPU seconds."""
    from pyscf import lib

    lib.num_threads(1)
    began, energy = process_time(), None
    with suppress(np.linalg.LinAlgError):
        mf = mean_field(frame, level.settings)
        density = None if start != "mixed" else _mixed(mf)
        guess = start if start != "mixed" else "minao"
        energy = stable_energy(mf, frame, level.settings, guess, density)
    cpu = process_time() - began
    return {"energy": None if energy is None else energy * HARTREE, "cpu": cpu}


def _mixed(mf: Any) -> Any:
    """Return a density of minao orbitals whose frontier pairs are rotated."""
    density = mf.get_init_guess(mf.mol, "minao")
    energies, orbitals = mf.eig(mf.get_fock(dm=density), mf.get_ovlp())
    filled = mf.get_occ(energies, orbitals)
    turned = np.array(orbitals, dtype=float)
    angle = np.pi / 5
    spins = [turned] if turned.ndim == 2 else list(turned)
    for c, occupied in zip(spins, np.atleast_2d(filled) > 0, strict=True):
        o, v = int(occupied.sum()) - 1, int(occupied.sum())
        if 0 < v < c.shape[1]:
            top, low = c[:, o].copy(), c[:, v].copy()
            c[:, o] = np.cos(angle) * top + np.sin(angle) * low
            c[:, v] = np.cos(angle) * low - np.sin(angle) * top
    return mf.make_rdm1(turned, filled)


if __name__ == "__main__":
    main()
