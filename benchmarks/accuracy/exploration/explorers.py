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
(both above the lowest of them) and of paths, meV, with that of a path's top. Found: the
conformers of 200 RDKit embeddings that the learned frames relax to, by their shapes at
GFN2-xTB. Survival is the share of 500 MD steps at 1000 K (0.5 fs, 16 walkers on the
last model) before a guard rail stops a walker.

A row (one arm, one seed) is a line in FOLDER/exploration.jsonl, written when it is
done: what is there is skipped. The table shows medians over seeds with their range, and
ratios to the arm --base, paired by seed, as geometric means with their range.
"""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from alloop import Campaign
from alloop.config.yaml_text import dump_yaml
from alloop.core.atoms import from_atoms
from alloop.core.frame import Frame
from alloop.core.prediction_errors import largest_force_errors, prediction_errors
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.generation import Generation
from alloop.md.conformers import different_shapes, smiles_conformers
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.rotamers import Turns, known_conformers
from alloop.md.thermal_frames import (
    NormalModes,
    relax_frames,
    thermal_walkers,
)
from benchmarks.accuracy.exploration.reference_frames import (
    LEVEL,
    SMILES,
    TEST_SEED,
    expensive_potential,
    reference_minimum,
    start_item,
    test_sets,
)
from benchmarks.accuracy.selection.active import stage_steps
from benchmarks.common import Row, Rows, make_parser, make_table, median_range, show

_STEPS = 500  # of a surviving walker
PROFILES = ("relaxed torsions", "conformers", "path", "isomer")  # judged by energies
TESTS = ("300 K", "500 K", "1000 K", "torsions", "stretches", *PROFILES)
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
    "paths first, 8 rounds": {
        "explore": {
            "temperature": [500, 1000],
            "shapes": {"share": 0.1},
            "paths": {"isomers": True, "share": 0.7, "energy": 3.0},
        },
        "training": {"every": 5},
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
        "levels": {"cheap": "gfn1-xtb", "expensive": LEVEL},
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
            "top": 1e3 * top_error(predictions.energies, labels.energies),
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
    oracle = expensive_potential()
    shapes = smiles_conformers(SMILES[options.molecule], 20, seed=TEST_SEED)
    minima, _ = known_conformers(learned, model.potential, Turns.of(learned[0]))
    reference, reached = (
        different_shapes(x for x in relax_frames(frames, oracle) if x is not None)
        for frames in (shapes, minima)
    )
    both = different_shapes([*reached, *reference])
    count = len(reached) + len(reference) - len(both)
    return f"{count} of {len(reference)}"


def top_error(energies: Floats, reference: Floats) -> float:
    """Return the error of the highest frame's energy above the first one's, eV."""
    top = int(np.argmax(reference))
    return float(energies[top] - energies[0] - (reference[top] - reference[0]))


def profile_error(predicted: Floats, energies: Floats) -> float:
    """Return the largest error of energies above that of the lowest frame, eV."""
    lowest = int(np.argmin(energies))
    errors = (predicted - predicted[lowest]) - (energies - energies[lowest])
    return float(np.abs(errors).max())


def survival(model: Generation, minimum: Frame, modes: NormalModes) -> float:
    """Return the mean share of 500 steps at 1000 K that walkers take."""
    rng = random_stream(TEST_SEED, "survival")
    walkers = thermal_walkers(minimum, modes, 1000.0, 16, rng)
    rngs = [random_stream(TEST_SEED, f"survival/{x.index}") for x in walkers]
    settings = DynamicsSettings(temperature=1000.0)
    moved = run_dynamics(walkers, model.potential, settings, _STEPS, rngs)
    return float(np.mean([walker.step for walker in moved.walkers])) / _STEPS


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
