"""Do limits of errors hold where they are needed: MD at each temperature, and scans?

    python -m benchmarks.accuracy.uncertainty.live_limits --out FOLDER
    python -m benchmarks.accuracy.uncertainty.live_limits --out FOLDER --table

A row is a live campaign on a molecule, GFN1-xTB under GFN2-xTB, with walkers at 500 and
1000 K, on 400 cheap and 60 expensive labels, in two generations of `--steps`. Its
validation set and its examination have four times the usual number of frames. Limits
for 90 % are made from usual numbers, drawn at random `--draws` times: whole walkers,
half of them at each temperature. They are judged on frames that no campaign sees, those
of `exploration.explorers`: MD at GFN2-xTB at 500 and 1000 K from its minimum,
rigid scans of torsions and of bonds. Ways to make them:

    one temperature   30 validation frames at 500 K, a limit up to far beyond them
    validation        30 validation frames at both temperatures
    as campaigns do   the same, and 20 frames of the examination
    examination last  the same, raised by the frames of the examination alone
    bonds unseen      as campaigns do, whatever the lengths of bonds

The table shows the share of the frames with a limit whose error lies below it: the mean
over rows, the lowest and the highest row, and the mean standard deviation of a draw;
the share of frames that have a limit; and the median of limit over error. Rows lie in
FOLDER/live_limits.jsonl, written when they are done: what is there is skipped, and a
campaign that ended is not run again.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from alloop.core.batch import Batch, pack_frames
from alloop.core.error_limits import ErrorLimits
from alloop.core.prediction_errors import largest_force_errors
from alloop.core.records import LabelSet
from alloop.core.seeds import random_stream
from alloop.core.units import Floats, Integers
from alloop.generation import Generation
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.loop.commands import Sample
from alloop.report.analysis.examination import counted_frames
from alloop.scores.calibrate import conformal_quantile
from alloop.scores.error_limits import fit_error_limits
from benchmarks.accuracy.exploration.explorers import campaign_tree, run_campaign
from benchmarks.accuracy.exploration.reference_frames import (
    reference_minimum,
    test_sets,
)
from benchmarks.common import Row, Rows, make_parser, make_table, show, write_json

MOLECULES = ("CH3CH2OH", "CH3COOH", "HCOOCH3")
KELVIN = (500.0, 1000.0)
PROMISE = 0.9
_FRAMES, _EXAMINED = 30, 20  # the usual numbers
_MORE = 4  # times these


@dataclass(frozen=True, slots=True, eq=False)
class ScoredLabels:
    """Frames with surprise and largest force errors, eV/Å (frames,)."""

    batch: Batch
    surprise: Floats
    errors: Floats

    def select(self, indices: Integers) -> "ScoredLabels":
        """Return some of the frames."""
        return ScoredLabels(
            self.batch.select(indices), self.surprise[indices], self.errors[indices]
        )

    def joined(self, other: "ScoredLabels") -> "ScoredLabels":
        """Return the frames of both."""
        return ScoredLabels(
            pack_frames([*self.batch.frames(), *other.batch.frames()]),
            np.concatenate([self.surprise, other.surprise]),
            np.concatenate([self.errors, other.errors]),
        )

    def limits(self, *, bonds: bool = True) -> ErrorLimits:
        """Return the limits made from these frames."""
        batch = self.batch if bonds else None
        limits = fit_error_limits(self.surprise, self.errors, PROMISE, batch=batch)
        assert limits is not None
        return limits


@dataclass(frozen=True, slots=True, eq=False)
class WalkerLabels:
    """Frames of MD with the number of the walker that each comes from (frames,)."""

    labels: ScoredLabels
    walkers: Integers

    def draw(
        self, rng: np.random.Generator, frames: int, kelvin: Sequence[float] = KELVIN
    ) -> ScoredLabels:
        """Return frames of whole walkers, as many at each of these temperatures."""
        temperatures = np.array(KELVIN)[self.walkers % len(KELVIN)]
        chosen: list[int] = []
        for temperature in kelvin:
            walkers = np.unique(self.walkers[temperatures == temperature])
            ordered = [
                index
                for walker in rng.permutation(walkers)
                for index in np.flatnonzero(self.walkers == walker).tolist()
            ]
            chosen += ordered[: frames // len(kelvin)]
        return self.labels.select(np.array(chosen))


def drawn_limits(
    validation: WalkerLabels, examination: WalkerLabels, rng: np.random.Generator
) -> dict[str, ErrorLimits]:
    """Return limits from a usual number of frames, by the way they are made."""
    drawn = validation.draw(rng, _FRAMES)
    tested = examination.draw(rng, _EXAMINED)
    both = drawn.joined(tested)
    cold = validation.draw(rng, _FRAMES, KELVIN[:1]).limits(bonds=False)
    alone = drawn.limits()
    said = alone.limits(tested.surprise)
    ratios = (tested.errors / said)[np.isfinite(said)]
    factor = max(1.0, conformal_quantile(ratios, PROMISE))
    return {
        "one temperature": replace(cold, beyond=1.0),
        "validation": alone,
        "as campaigns do": both.limits(),
        "examination last": replace(alone, factor=factor),
        "bonds unseen": both.limits(bonds=False),
    }


def judge(limits: ErrorLimits, frames: ScoredLabels) -> list[float]:
    """Return the shares of frames that are kept and that have a limit, and its size."""
    said = limits.limits(frames.surprise, frames.batch)
    told = np.isfinite(said)
    if not told.any():
        return [np.nan, 0.0, np.nan]
    errors, said = frames.errors[told], said[told]
    return [
        float(np.mean(errors <= said)),
        float(told.mean()),
        float(np.median(said / errors)),
    ]


def make_row(options: Namespace, molecule: str, seed: int) -> Row:
    """Run the campaign of a molecule and a seed; return how its limits hold."""
    folder = options.out / f"{molecule}-{options.steps}-{seed}"
    molecule_options = Namespace(**{**vars(options), "molecule": molecule})
    changes = {
        "explore": {"temperature": list(KELVIN)},
        "validation": {"frames": _MORE * _FRAMES, "examination": _MORE * _EXAMINED},
    }
    campaign = run_campaign(folder, campaign_tree(molecule_options, seed, changes))
    history, model = campaign.history(), campaign.model()
    validation = _validation_labels(history, model)
    examination = _examination_labels(history, model)
    minimum, modes = reference_minimum(molecule_options)
    tests = {
        name: _scored(model, labels)
        for name, labels in test_sets(molecule_options, minimum, modes).items()
    }
    judgements: dict[str, dict[str, list[list[float]]]] = {}
    for number in range(options.draws):
        rng = random_stream(seed, f"limits/{number}")
        for way, limits in drawn_limits(validation, examination, rng).items():
            for name, frames in tests.items():
                judged = judgements.setdefault(way, {}).setdefault(name, [])
                judged.append(judge(limits, frames))
    return {
        way: {name: _figures(np.array(judged)) for name, judged in by_test.items()}
        for way, by_test in judgements.items()
    }


def _figures(judged: Floats) -> Row:
    """Return means over draws (draws, 3), and the spread of the share that is kept."""
    limited = judged[np.isfinite(judged).all(axis=1)]  # draws that limit a frame
    return {
        "kept": round(float(limited[:, 0].mean()), 4),
        "sd": round(float(limited[:, 0].std()), 4),
        "told": round(float(judged[:, 1].mean()), 4),
        "ratio": round(float(limited[:, 2].mean()), 3),
    }


def table_rows(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield a row of the table for each way and test."""
    for way in rows[0] if rows else ():
        for name in dict.fromkeys(name for row in rows for name in row[way]):
            values = [row[way][name] for row in rows if name in row[way]]
            shares = [x["kept"] for x in values]
            yield {
                "way": way,
                "frames": name,
                "below": f"{np.mean(shares):.3f}",
                "low": f"{min(shares):.3f}",
                "high": f"{max(shares):.3f}",
                "sd": f"{np.mean([x['sd'] for x in values]):.3f}",
                "with a limit": f"{np.mean([x['told'] for x in values]):.2f}",
                "limit/error": float(np.mean([x["ratio"] for x in values])),
            }


def _validation_labels(history: History, model: Generation) -> WalkerLabels:
    samples = {
        command.name: command
        for entry in history.entries
        for command in entry.turn.commands
        if isinstance(command, Sample)
    }
    walkers = {
        frame.id: samples[event.name].walker.index % 1000
        for _, event in history.of_kind(e.Sampled)
        for frame in event.frames
    }
    generation = history.state.generations.best
    (trained,) = (x for _, x in history.generations if x.generation == generation)
    assert trained.evaluation is not None
    return _walker_labels(history, model, walkers, trained.evaluation.frames)


def _examination_labels(history: History, model: Generation) -> WalkerLabels:
    walkers = {x.frame.id: x.walker for x, _ in counted_frames(history)}
    return _walker_labels(history, model, walkers, list(walkers))


def _walker_labels(
    history: History,
    model: Generation,
    walkers: Mapping[str, int],
    frames: Sequence[str],
) -> WalkerLabels:
    level = history.state.levels["expensive"]
    labels = history.label_index.label_set(level, frames)
    numbers = [walkers[frame.id] for frame in labels.batch.frames()]
    return WalkerLabels(_scored(model, labels), np.array(numbers))


def _scored(model: Generation, labels: LabelSet) -> ScoredLabels:
    predictions = model.predict(labels.batch, descriptors=True)
    assert model.scorer is not None
    surprise = model.scorer.score(labels.batch, predictions)
    errors = largest_force_errors(labels.batch, predictions.forces, labels.forces)
    return ScoredLabels(labels.batch, surprise, errors)


def row_key(options: Namespace, molecule: str, seed: int) -> str:
    """Return the key of a row: all that it depends on."""
    amounts = (options.cheap, options.expensive, options.steps, options.frames)
    return "/".join(map(str, (molecule, *amounts, seed)))


def main() -> None:
    """Make the rows that are missing, and show what is there."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the folder of campaigns and rows")
    add("--molecule", nargs="+", default=list(MOLECULES), help="of ASE's G2 set")
    add("--seed", type=int, nargs="+", default=[0, 1, 2])
    add("--cheap", type=int, default=400, help="cheap labels")
    add("--expensive", type=int, default=60, help="expensive labels")
    add("--steps", type=int, default=1000, help="training steps of a generation")
    add("--frames", type=int, default=80, help="test frames of each MD")
    add("--draws", type=int, default=40, help="draws of a row's frames")
    add("--table", action="store_true", help="show what the folder holds")
    options = parser.parse_args()
    if options.quick:
        options.cheap, options.expensive, options.steps = 50, 12, 100
        options.molecule, options.seed, options.frames = ["H2O"], [0], 20
    rows = Rows(options.out / "live_limits.jsonl")
    pairs = [(molecule, seed) for seed in options.seed for molecule in options.molecule]
    for molecule, seed in () if options.table else pairs:
        name = row_key(options, molecule, seed)
        if name not in rows:
            rows[name] = make_row(options, molecule, seed)
            show(name)
    names = [row_key(options, *pair) for pair in pairs]
    table = list(table_rows([rows[name] for name in names if name in rows]))
    if table:
        show(make_table(f"limits for {PROMISE:.0%}", table))
    write_json(options.json, {"limits": table})


if __name__ == "__main__":
    main()
