"""A live campaign, its controls, and the vibrations that its force fields give.

    python -m benchmarks.accuracy.selection.live_campaign --out FOLDER [--seed 1 2 3]
    python -m benchmarks.accuracy.selection.live_campaign --out FOLDER --table

runs campaigns/formaldehyde.yaml with `alloop run --controls` for each seed, in real
processes with real labels: HF/STO-3G under CCSD(T)/cc-pVDZ, MD at 1000 K. Both controls
spend the same label cost: random selection, and standard training on expensive labels
alone. All are judged on the same frames of MD on the campaign's final model, which no
training saw, by the mean absolute error of a force component, its root mean square, the
95th percentile of a frame's largest atomic error (meV/Å), and by the harmonic
wavenumbers of the relaxed molecule against those of CCSD(T)/cc-pVDZ forces themselves,
relaxed and differentiated in the same way (cm⁻¹, 24 displacements). `CPU s` counts
labels, training and MD of the campaign, without its examination. Beside the harmonic
wavenumbers stand the measured fundamentals, which are lower, since bonds are not
harmonic (Nakanaga et al., J. Chem. Phys. 76, 3860, 1982).

A campaign that was stopped goes on where it stopped. Rows are lines in
FOLDER/live_campaign.jsonl.
"""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np

from alloop import Campaign
from alloop.core.frame import Frame
from alloop.core.prediction_errors import largest_force_errors
from alloop.core.records import LabelSet
from alloop.core.roles import Potential
from alloop.core.units import Floats
from alloop.history.measured_costs import cpu_seconds_by_part
from alloop.labels.direct import DirectLabeller
from alloop.md.thermal_frames import normal_modes, numerical_hessian, relax_frame
from alloop.potentials.labeller_potential import LabellerPotential
from alloop.report.analysis.examination import counted_frames
from benchmarks.common import Row, Rows, make_parser, make_table, show

_FILE = Path(__file__).parents[3] / "campaigns" / "formaldehyde.yaml"
_FUNDAMENTALS = (1167.0, 1249.0, 1500.0, 1746.0, 2782.0, 2843.0)  # cm⁻¹, measured
_RUNS = ("campaign", "random", "standard")
_LEARNING = ("cheap labels", "expensive labels", "training", "MD", "preparation")


def run_campaign(out: Path, seed: int) -> Campaign:
    """Run the campaign of a seed and its controls as a user would; return it."""
    file, store = out / f"seed_{seed}.yaml", out / f"seed_{seed}.zarr"
    changes = {"extends": str(_FILE), "seed": seed, "store": str(store.absolute())}
    file.write_text("".join(f"{k}: {v}\n" for k, v in changes.items()), "utf-8")
    alloop = [sys.executable, "-m", "alloop", "run", "--controls", "--quiet"]
    subprocess.run([*alloop, str(file)], check=True)
    return Campaign.from_store(store)


def examination_labels(campaign: Campaign) -> LabelSet:
    """Return the labels of the frames of MD on the campaign's final model."""
    history = campaign.history()
    frames = sorted(x.frame.id for x, _ in counted_frames(history))
    return history.label_index.label_set(history.state.levels["expensive"], frames)


def wavenumbers(frame: Frame, potential: Potential) -> Floats:
    """Return the harmonic wavenumbers of the relaxed frame, cm⁻¹, ascending."""
    relaxed = relax_frame(frame, potential, fmax=1e-3)
    return normal_modes(relaxed, numerical_hessian(relaxed, potential)).wavenumbers


def run_row(campaign: Campaign, labels: LabelSet) -> Row:
    """Return errors, wavenumbers and costs of a campaign's best generation."""
    history, model = campaign.history(), campaign.model()
    predicted = model.predict(labels.batch).forces
    wrong = predicted - labels.forces
    worst = largest_force_errors(labels.batch, predicted, labels.forces)
    spent = cpu_seconds_by_part(history)
    state = history.state
    return {
        "frames": len(labels),
        "cheap": state.labels.used("cheap"),
        "expensive": state.labels.used("expensive"),
        "mae": 1e3 * float(np.abs(wrong).mean()),
        "rmse": 1e3 * float(np.sqrt((wrong**2).mean())),
        "worst 95 %": 1e3 * float(np.quantile(worst, 0.95)),
        "wavenumbers": wavenumbers(state.start[0], model).tolist(),
        "label CPU s": state.labels.cpu_seconds(),
        "CPU s": sum(spent[part] for part in _LEARNING),
    }


def make_rows(options: Namespace, rows: Rows) -> None:
    """Make the rows that are missing."""
    for seed in options.seed:
        if f"{seed}/standard" in rows:
            continue
        campaign = run_campaign(options.out, seed)
        labels = examination_labels(campaign)
        if "direct" not in rows:
            level = campaign.setup.levels["expensive"]
            direct = LabellerPotential(DirectLabeller(level))
            numbers = wavenumbers(campaign.history().state.start[0], direct)
            rows["direct"] = {"wavenumbers": numbers.tolist()}
        stores = campaign.controls()
        for name in _RUNS:
            run = campaign if name == "campaign" else Campaign.from_store(stores[name])
            rows[f"{seed}/{name}"] = run_row(run, labels)


def show_rows(options: Namespace, rows: Rows) -> None:
    """Print errors and vibrations of what is there."""
    errors: list[Row] = []
    modes: list[Row] = []
    if "direct" not in rows:
        return
    exact = np.array(rows["direct"]["wavenumbers"])
    labels = [f"{x:.0f}" for x in _FUNDAMENTALS]
    modes.append({"measured": "direct", **dict(zip(labels, exact, strict=True))})
    for name in _RUNS:
        keys = [f"{seed}/{name}" for seed in options.seed if f"{seed}/{name}" in rows]
        for key in keys:
            row = dict(rows[key])
            away = np.array(row.pop("wavenumbers")) - exact
            row = {"run": key, **row, "cm⁻¹": float(np.abs(away).mean())}
            errors.append(row)
            modes.append({"measured": key, **dict(zip(labels, away, strict=True))})
    show(make_table("errors on MD of the campaign's final model", errors))
    show(make_table("harmonic wavenumbers, and differences from these", modes))


def main() -> None:
    """Run the campaigns that are missing, and show what is there."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the folder of stores and rows")
    add("--seed", type=int, nargs="+", default=[1, 2, 3])
    add("--table", action="store_true", help="show what the folder holds")
    options = parser.parse_args()
    rows = Rows(options.out / "live_campaign.jsonl")
    if not options.table:
        make_rows(options, rows)
    show_rows(options, rows)


if __name__ == "__main__":
    main()
