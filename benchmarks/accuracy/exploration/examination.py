"""Is the examination's error the one of long MD?

    python -m benchmarks.accuracy.exploration.examination --molecule butane --out FOLDER
    python -m benchmarks.accuracy.exploration.examination --out FOLDER --table

A row is a campaign on a molecule, GFN1-xTB under GFN2-xTB, as in `explorers`, that is
examined twice at 500 K: by short MD from first frames, as campaigns once were, and from
all conformers known with bonds turned. Beside them stands the error of the same model
on MD at GFN2-xTB that knows nothing of the campaign: walkers begin at the conformers
that RDKit finds, relaxed at that level and drawn by their Boltzmann weights, and frames
of each are taken every --spacing steps of 1 fs, after as many steps as half of all.
Errors are mean absolute force components, meV/Å, with their standard error over
walkers for that MD.
"""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

import numpy as np

from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.seeds import random_stream
from alloop.generation import Generation
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.integrate import maxwell_boltzmann
from alloop.md.rotamers import drawn_conformer
from alloop.report.analysis.examination import beyond_md, last_examination
from benchmarks.accuracy.exploration.explorers import campaign_tree, run_campaign
from benchmarks.accuracy.exploration.reference_frames import (
    conformer_frames,
    expensive_potential,
    reference_minimum,
)
from benchmarks.common import Row, Rows, make_parser, make_table, show

_KELVIN = 500.0
_ARM = {"explore": {"temperature": [500, 1000], "shapes": {}}}
_EXAMINATIONS = {"short": 0, "equilibrated": 4}  # pieces before the first frame


def make_row(options: Namespace, seed: int) -> Row:
    """Return the errors of a campaign's model by both examinations and by long MD."""
    row: Row = {}
    begun = options.out / f"unexamined-{options.molecule}-{options.steps}-{seed}"
    run_campaign(begun, campaign_tree(options, seed, _ARM))
    for name, pieces in _EXAMINATIONS.items():
        with TemporaryDirectory() as temporary:
            folder = Path(temporary) / "campaign"
            copytree(begun, folder)
            validation = {
                "examination": options.frames,
                "examination_equilibration": pieces,
                "temperature": _KELVIN,
            }
            tree = campaign_tree(options, seed, {**_ARM, "validation": validation})
            campaign = run_campaign(folder, tree)
            history = campaign.history()
            found, beyond = last_examination(history), beyond_md(history)
            if found is None or found.errors is None:
                raise RuntimeError("the examination gave no error")
            row[name] = 1e3 * found.errors.force_mae
            if pieces:
                row["rotamers"] = found.motion.rotamers
                row["transitions"] = found.motion.transitions
                row["conformers"] = found.motion.conformers
                if beyond is not None and beyond.errors is not None:
                    row["beyond MD"] = 1e3 * beyond.errors.force_mae
            model = campaign.model()
    return row | long_md_error(options, model)


def long_md_error(options: Namespace, model: Generation) -> Row:
    """Return the error of a model on MD at GFN2-xTB, with its standard error."""
    errors = []
    for frames in reference_frames(options):
        batch = pack_frames(frames)
        truth = expensive_potential().predict(batch).forces
        errors.append(1e3 * float(np.abs(model.predict(batch).forces - truth).mean()))
    deviation = float(np.std(errors, ddof=1) / np.sqrt(len(errors)))
    return {"long MD": float(np.mean(errors)), "standard error": deviation}


def reference_frames(options: Namespace) -> list[list[Frame]]:
    """Return the frames of each walker; made once, then read from the folder."""
    alone = [reference_minimum(options)[0]]  # of a molecule with one conformer
    minimum, *others = conformer_frames(options).get("conformers", alone)
    amounts = f"{options.molecule}-{options.walkers}-{options.reference}"
    path = options.out / f"reference-{amounts}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, positions=_reference_positions(options, [minimum, *others]))
    with np.load(path) as held:
        return [[replace(minimum, positions=x) for x in y] for y in held["positions"]]


def _reference_positions(options: Namespace, minima: list[Frame]) -> np.ndarray:
    potential = expensive_potential()
    energies = potential.predict(pack_frames(minima)).energies
    rngs = [random_stream(17, f"long MD/{i}") for i in range(options.walkers)]
    walkers: Sequence[Walker] = []
    for index, rng in enumerate(rngs):
        frame = drawn_conformer(minima, energies, _KELVIN, rng)
        velocities = maxwell_boltzmann(frame, _KELVIN, rng)
        walker = Walker(index, 0, frame, velocities, temperature=_KELVIN)
        walkers = [*walkers, walker]
    settings = DynamicsSettings(temperature=_KELVIN, timestep=1.0)
    frames = []
    half = options.reference // 2
    for steps in (half, *[options.spacing] * (half // options.spacing)):
        walkers = run_dynamics(walkers, potential, settings, steps, rngs).walkers
        if any(walker.stopped for walker in walkers):
            raise RuntimeError("a guard rail stopped MD at the expensive level")
        frames.append([walker.frame.positions for walker in walkers])
    return np.array(frames[1:]).swapaxes(0, 1)


def main() -> None:
    """Make the rows that are missing, and show what is there."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the folder of the rows")
    add("--molecule", default="ethanol", help="one that `explorers` has a SMILES of")
    add("--seed", type=int, nargs="+", default=[0])
    add("--cheap", type=int, default=400, help="cheap labels")
    add("--expensive", type=int, default=60, help="expensive labels")
    add("--steps", type=int, default=1500, help="training steps of a generation")
    add("--frames", type=int, default=40, help="frames of an examination")
    add("--walkers", type=int, default=8, help="of the MD at GFN2-xTB")
    add("--reference", type=int, default=2000, help="MD steps of each of them")
    add("--spacing", type=int, default=200, help="MD steps between two of its frames")
    add("--table", action="store_true", help="show what the folder holds")
    options = parser.parse_args()
    rows = Rows(options.out / "examination.jsonl")
    if not options.table:
        for seed in options.seed:
            name = f"{options.molecule}/{options.steps}/{options.frames}/{seed}"
            if name not in rows:
                rows[name] = make_row(options, seed)
                show(name, rows[name])
    lines = [{"campaign": key, **rows[key]} for key in rows]
    show(make_table("errors, meV/Å", lines))


if __name__ == "__main__":
    main()
