"""Do other candidates than those of MD at one temperature make a better model?

    python -m benchmarks.accuracy.exploration.explorers --out FOLDER
    python -m benchmarks.accuracy.exploration.explorers --out FOLDER --table

A row is a live campaign on a molecule, GFN1-xTB under GFN2-xTB, with the same labels in
every arm: a first generation on 80 cheap and 20 expensive ones, which all arms of a
seed share, then one round with 320 and 40. Arms differ in what is proposed in it, and
the `random` ones choose without looking. Candidates cost no labels. Errors are mean
absolute force components and the 95th percentile of a frame's largest atomic error,
meV/Å, at GFN2-xTB on frames that no campaign sees and that were declared before: MD at
that level at 300, 500 and 1000 K, rigid scans of torsions and of bonds from its
minimum, torsions relaxed at fixed angles, the path between the two lowest
conformers that RDKit finds, and that to an isomer that one hydrogen's move makes. What
a chemist reads: the largest error of the energies of conformers, of relaxed torsions
(both above the lowest of them) and of paths, meV. Found: the
conformers of 200 RDKit embeddings that the learned frames relax to, by their shapes at
GFN2-xTB. Survival is the share of 500 MD steps at 1000 K (0.5 fs, 16 walkers on the
last model) before a guard rail stops a walker.

A row (one arm, one seed) is a line in FOLDER/exploration.jsonl, written when it is
done: what is there is skipped. The table shows medians over seeds with their range, and
ratios to the arm --base, paired by seed, as geometric means with their range.
"""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ase.constraints import FixInternals
from ase.io import write
from ase.optimize import BFGS

from alloop import Campaign
from alloop.config.load import parse_campaign
from alloop.config.molecules import NAMES
from alloop.config.yaml_text import dump_yaml
from alloop.core.atoms import from_atoms, to_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.prediction_errors import largest_force_errors, prediction_errors
from alloop.core.records import LabelSet
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.generation import Generation
from alloop.labels.direct import DirectLabeller
from alloop.md.conformers import same_shape, smiles_conformers, sorted_distances
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.reaction_path import PathSettings, find_path
from alloop.md.rotamers import Turns, known_conformers
from alloop.md.shapes import open_bonds, stretched_frame, turned_frame
from alloop.md.thermal_frames import (
    NormalModes,
    normal_modes,
    numerical_hessian,
    relax_frame,
    relax_frames,
    thermal_walkers,
)
from alloop.potentials.ase_calculator import PotentialCalculator
from alloop.potentials.labeller_potential import LabelFailed, LabellerPotential
from benchmarks.accuracy.selection.active import stage_steps
from benchmarks.common import Row, Rows, make_parser, make_table, median_range, show

_TESTS = 16_100  # the seed of the test frames, for all arms
_TEST_FRAMES, _SPACING = 10, 25  # frames of a test walker, MD steps of 1 fs between two
_STEPS = 500  # of a surviving walker
PROFILES = ("relaxed torsions", "conformers", "path", "isomer")  # judged by energies
TESTS = ("300 K", "500 K", "1000 K", "torsions", "stretches", *PROFILES)
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
ARMS: Mapping[str, Mapping[str, Any]] = {
    "md": {},
    "random": {"flag": {"selection": "random"}},
    "shapes": {"explore": {"shapes": {}}},
    "500+1000 K": {"explore": {"temperature": [500, 1000]}},
    "300+500+1000 K": {"explore": {"temperature": [300, 500, 1000]}},
    "1000 K": {"explore": {"temperature": 1000}},
    "shapes, 500+1000 K": {"explore": {"temperature": [500, 1000], "shapes": {}}},
    "shapes and half random": {
        "explore": {"temperature": [500, 1000], "shapes": {}},
        "flag": {"random": 0.5},
    },
    "shapes and random MD": {
        "explore": {"temperature": [500, 1000], "shapes": {}},
        "flag": {"random": 1.0},
    },
    "shapes and clusters": {
        "explore": {"temperature": [500, 1000], "shapes": {}},
        "flag": {"selection": "clusters"},
    },
    "shapes and paths": {
        "explore": {
            "temperature": [500, 1000],
            "shapes": {},
            "paths": {"isomers": True},
        }
    },
    "shapes, paths and random MD": {
        "explore": {
            "temperature": [500, 1000],
            "shapes": {},
            "paths": {"isomers": True},
        },
        "flag": {"random": 1.0},
    },
    "bent shapes and paths": {
        "explore": {
            "temperature": [500, 1000],
            "shapes": {"bend": 180},
            "paths": {},
        }
    },
    "shapes and paths, same bonds": {
        "explore": {"temperature": [500, 1000], "shapes": {}, "paths": {}}
    },
    "shapes and paths, 4 rounds": {
        "explore": {
            "temperature": [500, 1000],
            "shapes": {},
            "paths": {"isomers": True},
        },
        "training": {"every": 10},
    },
    "shapes and low paths, 4 rounds": {
        "explore": {
            "temperature": [500, 1000],
            "shapes": {},
            "paths": {
                "isomers": True,
                "energy": 3.0,
                "copies": 1,
                "rattle": 0.03,
            },
        },
        "training": {"every": 10},
    },
    "shapes, 4 rounds": {
        "explore": {"temperature": [500, 1000], "shapes": {}},
        "training": {"every": 10},
    },
    "bent shapes, 500+1000 K": {
        "explore": {"temperature": [500, 1000], "shapes": {"bend": 180}}
    },
    "shapes, 300+600 K": {"explore": {"temperature": [300, 600], "shapes": {}}},
    "half random, shapes, 300+600 K": {
        "explore": {"temperature": [300, 600], "shapes": {}},
        "flag": {"random": 0.5},
    },
    "random, 300+600 K": {
        "explore": {"temperature": [300, 600]},
        "flag": {"selection": "random"},
    },
    "uncertainty, 500+1000 K": {
        "explore": {"temperature": [500, 1000], "uncertainty": {}}
    },
    "exchange, 500+1000 K": {
        "explore": {"temperature": [500, 1000], "exchange": True, "piece": 50}
    },
    "repulsion, 500+1000 K": {
        "explore": {
            "temperature": [500, 1000],
            "uncertainty": {"repulsion": 1.0, "strength": 0.01},
        }
    },
    "shapes and uncertainty": {
        "explore": {
            "temperature": [500, 1000],
            "shapes": {},
            "uncertainty": {"share": 0.2},
        }
    },
    "metadynamics, 500+1000 K": {
        "explore": {"temperature": [500, 1000], "metadynamics": {}}
    },
    "metadynamics of shapes, 500+1000 K": {
        "explore": {
            "temperature": [500, 1000],
            "metadynamics": {"variables": "shape"},
        }
    },
    "random, 500+1000 K": {
        "explore": {"temperature": [500, 1000]},
        "flag": {"selection": "random"},
    },
}


# --- campaigns ------------------------------------------------------------------------


def campaign_tree(
    options: Namespace, seed: int, changes: Mapping[str, Any], *, begun: bool = True
) -> dict[str, Any]:
    """Return the configuration of a campaign, with the changes of an arm.

    Before it is begun its budget ends with the first generation.
    """
    first = {"cheap": options.cheap // 5, "expensive": options.expensive // 3}
    amounts = {"cheap": options.cheap, "expensive": options.expensive}
    budget = amounts if begun else first
    every = budget["expensive"] - begun * first["expensive"]
    tree: dict[str, Any] = {
        "name": "exploration",
        "seed": seed,
        "start": [start_item(options)],
        "levels": {"cheap": "gfn1-xtb", "expensive": "gfn2-xtb"},
        "potential": {"kind": "painn"},  # of all rows
        "seeds": first,
        "budget": budget,
        "training": {"every": every, **stage_steps(options.steps)},
        "validation": {"frames": 0, "examination": 0},
        "cluster": {"kind": "inline"},
        "limits": {"isolate": False},
        "explore": {"temperature": 500, "shapes": None},
        "store": "campaign.zarr",
    }
    for section, values in changes.items():
        tree[section] = {**tree.get(section, {}), **values}
    return tree


def run_campaign(folder: Path, tree: Mapping[str, Any]) -> Campaign:
    """Write the campaign's file into the folder, and run it or go on with it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "campaign.yaml"
    file.write_text(dump_yaml(tree), encoding="utf-8")
    campaign = Campaign.from_yaml(file)
    finished = campaign.run().finished
    if finished != "the budget of expensive labels is spent":
        raise RuntimeError(f"the campaign ended early: {finished}")
    return campaign


def first_generation(options: Namespace, seed: int) -> Path:
    """Return the folder of a campaign that ended with its first generation."""
    amounts = f"{options.molecule}-{options.cheap}-{options.expensive}-{options.steps}"
    folder: Path = options.out / f"begun-{amounts}-{seed}"
    run_campaign(folder, campaign_tree(options, seed, {}, begun=False))
    return folder


def make_row(options: Namespace, arm: str, seed: int) -> Row:
    """Go on with the campaign of a seed as the arm says; return its errors."""
    begun = first_generation(options, seed)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "campaign"
        copytree(begun, folder)
        campaign = run_campaign(folder, campaign_tree(options, seed, ARMS[arm]))
        state = campaign.history().state
        row: Row = {name: state.labels.used(name) for name in ("cheap", "expensive")}
        model = campaign.model(state.generations.count)
        learned = [from_atoms(atoms) for atoms in campaign.dataset("cheap")]
    minimum, modes = reference_minimum(options)
    for name, labels in test_sets(options, minimum, modes).items():
        predictions = model.predict(labels.batch)
        worst = largest_force_errors(labels.batch, predictions.forces, labels.forces)
        row[name] = {
            "mae": 1e3 * prediction_errors(predictions, labels).force_mae,
            "worst_95": 1e3 * float(np.quantile(worst, 0.95)),
            "energy": 1e3 * profile_error(predictions.energies, labels.energies),
        }
    row["survival"] = survival(model, minimum, modes)
    row["found"] = conformers_found(options, learned, model)
    return row


def conformers_found(
    options: Namespace, learned: Sequence[Frame], model: Generation
) -> str:
    """Return how many of RDKit's conformers the learned frames lead to, "2 of 3".

    The frames are relaxed on the model, then at GFN2-xTB, as RDKit's are; the reference
    is what 200 embeddings relax to.
    """
    if options.molecule not in SMILES:
        return "–"
    oracle = expensive_potential(options)
    shapes = smiles_conformers(SMILES[options.molecule], 20, seed=_TESTS)
    minima, _ = known_conformers(learned, model.potential, Turns.of(learned[0]))
    marks = []
    for frames in (shapes, minima):
        relaxed = [x for x in relax_frames(frames, oracle) if x is not None]
        different: list[Floats] = []
        for frame in relaxed:
            mark = sorted_distances(frame.numbers, frame.positions)
            if not any(same_shape(mark, x) for x in different):
                different.append(mark)
        marks.append(different)
    reference, reached = marks
    count = sum(any(same_shape(mark, x) for x in reached) for mark in reference)
    return f"{count} of {len(reference)}"


def start_item(options: Namespace) -> dict[str, Any]:
    """Return the start: a molecule's name, its lowest conformer, or two isomers."""
    molecule = options.molecule
    if molecule.endswith(BOTH):
        return {"file": str(isomer_file(options)), "conformers": True}
    if molecule in SMILES and molecule not in NAMES:
        return {"smiles": SMILES[molecule], "conformers": 1}
    return {"molecule": molecule}


def profile_error(predicted: Floats, energies: Floats) -> float:
    """Return the largest error of energies above that of the lowest frame, eV."""
    lowest = int(np.argmin(energies))
    errors = (predicted - predicted[lowest]) - (energies - energies[lowest])
    return float(np.abs(errors).max())


def survival(model: Generation, minimum: Frame, modes: NormalModes) -> float:
    """Return the mean share of 500 steps at 1000 K that walkers take."""
    rng = random_stream(_TESTS, "survival")
    walkers = thermal_walkers(minimum, modes, 1000.0, 16, rng)
    rngs = [random_stream(_TESTS, f"survival/{x.index}") for x in walkers]
    settings = DynamicsSettings(temperature=1000.0)
    moved = run_dynamics(walkers, model.potential, settings, _STEPS, rngs)
    return float(np.mean([walker.step for walker in moved.walkers])) / _STEPS


def reference_minimum(options: Namespace) -> tuple[Frame, NormalModes]:
    """Return the minimum at GFN2-xTB with its normal modes."""
    oracle = expensive_potential(options)
    setup = parse_campaign(dump_yaml(campaign_tree(options, 0, {})), ".")
    minimum = relax_frame(setup.start[0], oracle)
    return minimum, normal_modes(minimum, numerical_hessian(minimum, oracle))


def test_sets(
    options: Namespace, minimum: Frame, modes: NormalModes
) -> dict[str, LabelSet]:
    """Return the labelled test frames by name; made once, then read from the folder."""
    path = options.out / f"sets-{options.molecule}-{options.frames}.npz"
    if not path.exists():
        oracle = expensive_potential(options)
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
        "relaxed torsions": relaxed_torsions(options, minimum),
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


def relaxed_torsions(options: Namespace, minimum: Frame) -> list[Frame]:
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
            atoms.calc = PotentialCalculator(expensive_potential(options))
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
    oracle = expensive_potential(options)
    shapes = smiles_conformers(SMILES[options.molecule], 20, seed=_TESTS)
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
    path = find_path(minimum, isomer, expensive_potential(options), PathSettings())
    return list(path.batch.frames())


def _md_frames(
    options: Namespace, minimum: Frame, modes: NormalModes, kelvin: float
) -> list[Frame]:
    """Return frames of MD at GFN2-xTB; each walker's first stretch is left out."""
    rng = random_stream(_TESTS, f"{kelvin:g} K")
    count = -(-options.frames // _TEST_FRAMES)
    walkers = thermal_walkers(minimum, modes, kelvin, count, rng)
    settings = DynamicsSettings(temperature=kelvin, timestep=1.0)
    frames = []
    for number in range(_TEST_FRAMES):
        rngs = [
            random_stream(_TESTS, f"{kelvin:g}/{number}/{x.index}") for x in walkers
        ]
        walkers = run_dynamics(
            walkers, expensive_potential(options), settings, _SPACING, rngs
        ).walkers
        frames += [walker.frame for walker in walkers if walker.stopped is None]
    return frames


def expensive_potential(options: Namespace) -> LabellerPotential:
    """Return the potential of GFN2-xTB."""
    setup = parse_campaign(dump_yaml(campaign_tree(options, 0, {})), ".")
    return LabellerPotential(DirectLabeller(setup.levels["expensive"]))


def ratio_text(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return the geometric mean of paired ratios with their range."""
    ratios = np.asarray(ours) / np.asarray(theirs)
    mean = float(np.exp(np.log(ratios).mean()))
    return f"{mean:.2f} ({ratios.min():.2f} to {ratios.max():.2f})"


def show_rows(options: Namespace, rows: Rows) -> None:
    """Print a table of errors, and one of ratios to the arm that is the base."""
    keys = {arm: [row_key(options, arm, seed) for seed in options.seed] for arm in ARMS}
    errors, ratios = [], []
    for arm, names in keys.items():
        pairs = [
            (rows[x], rows[y])
            for x, y in zip(names, keys[options.base], strict=True)
            if x in rows and y in rows
        ]
        if not pairs:
            continue
        lines: list[Row] = [{"arm": arm, "seeds": len(pairs)} for _ in range(2)]
        for test in TESTS:
            if not all(test in row for pair in pairs for row in pair):
                continue  # no bond of the molecule turns
            for name in ("energy",) if test in PROFILES else ("mae", "worst_95"):
                column = f"{test}{', worst' * (name == 'worst_95')}"
                ours = [row[test][name] for row, _ in pairs]
                base = [md[test][name] for _, md in pairs]
                lines[0][column] = _range_text(ours)
                lines[1][column] = ratio_text(ours, base)
        lines[0]["survival"] = _range_text([row["survival"] for row, _ in pairs])
        errors.append(lines[0])
        ratios.append(lines[1])
    show(make_table("errors, meV/Å: median (range)", errors))
    show(make_table(f"ratios to `{options.base}`: geometric mean (range)", ratios))


def show_summary(rows: Rows) -> None:
    """Print the errors of all rows, medians over seeds, molecule after molecule.

    Columns: mean and 95th percentile of the worst atom, meV/Å; of conformers, relaxed
    torsions and paths the largest error of an energy, meV.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for key in rows:
        molecule, *amounts, arm, _ = key.split("/")
        group = (molecule, "/".join(amounts), arm)
        groups.setdefault(group, []).append(rows[key])
    lines: list[Row] = []
    for (molecule, numbers, arm), several in sorted(groups.items()):
        line: Row = {"molecule": molecule, "amounts": numbers, "arm": arm}
        line["seeds"] = len(several)
        for test in TESTS:
            names = ("energy",) if test in PROFILES else ("mae", "worst_95")
            values = [
                f"{np.median([row[test][name] for row in several]):.3g}"
                for name in names
                if all(test in row for row in several)
            ]
            line[test] = ", ".join(values) or "–"
        line["found"] = ", ".join(row.get("found", "–") for row in several)
        lines.append(line)
    show(make_table("errors, medians over seeds", lines))


def _range_text(values: Sequence[float]) -> str:
    return "{median:.3g} ({low:.3g} to {high:.3g})".format(**median_range(values))


def row_key(options: Namespace, arm: str, seed: int) -> str:
    """Return the key of a row: all that it depends on."""
    amounts = (options.cheap, options.expensive, options.steps, options.frames)
    return "/".join(map(str, (options.molecule, *amounts, arm, seed)))


def main() -> None:
    """Make the rows that are missing, and show what is there."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the folder of the rows")
    add("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    add("--base", choices=list(ARMS), default="md", help="the arm that ratios are to")
    add("--molecule", default="ethanol", help="its name, or that of ASE's G2 set")
    add("--seed", type=int, nargs="+", default=list(range(3)))
    add("--cheap", type=int, default=400, help="cheap labels")
    add("--expensive", type=int, default=60, help="expensive labels")
    add("--steps", type=int, default=1000, help="training steps of a generation")
    add("--frames", type=int, default=80, help="test frames of each MD")
    add("--table", action="store_true", help="show what the folder holds")
    add("--summary", action="store_true", help="show all that the folder holds")
    options = parser.parse_args()
    if options.quick:
        options.cheap, options.expensive, options.steps, options.seed = 50, 12, 100, [0]
        options.frames = 20
    rows = Rows(options.out / "exploration.jsonl")
    if options.summary:
        show_summary(rows)
        return
    if not options.table:
        for seed in options.seed:
            for arm in options.arms:
                name = row_key(options, arm, seed)
                if name not in rows:
                    rows[name] = make_row(options, arm, seed)
                    show(name, rows[name])
    show_rows(options, rows)


if __name__ == "__main__":
    main()
