"""Which scorer of surprise knows where the model is wrong?

    python -m benchmarks.accuracy.uncertainty.scorers --data DIR --out FOLDER
    python -m benchmarks.accuracy.uncertainty.scorers --out FOLDER --table

DIR holds h2co/*.npz (Käser et al., J. Phys. Chem. A 124, 8853, 2020); ethanol's frames
are made in FOLDER. The campaign's own two stages train on labels of a frozen pool, and
every scorer is fitted to the same model and judged on the same test frames against the
largest true error of an atom's force at the expensive level. Labels are drawn from the
whole pool (`random`) or from the half of lowest energy (`low`), where most test frames
are out of distribution. Scorers that are no kind of `flag:` lost, or may use what a
campaign does not have: true errors of held-out frames, ranks among the test frames.
Each model is kept in FOLDER/uncertainty with three more for the committee, so that
another scorer costs no training.

A row (one model, one scorer) is a line in FOLDER/uncertainty.jsonl: what is there is
skipped. Spearman's correlation is that of surprise and error; AUROC the chance that a
frame of the worst tenth surprises more than another one; `caught` the summed error of
the most surprising tenth, as a share of that of the worst tenth. `cost` is the CPU time
of scoring 32 frames, as a share of that of their forces; `fit` in CPU seconds, for a
committee with its trainings. Means over seeds, with the lowest of each in brackets.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from scipy.special import expit
from scipy.stats import rankdata, spearmanr

from alloop.config.sections.flag import Flag
from alloop.core.batch import Batch, frame_means, pack_frames
from alloop.core.prediction_errors import largest_force_errors
from alloop.core.records import LabelSet, Predictions
from alloop.core.roles import FittedScorer, Potential, Scorer
from alloop.core.units import Floats, Integers
from alloop.generation import Generation
from alloop.scores.leverage import LeverageScorer
from alloop.scores.qresidual import QResidualScorer
from alloop.scores.subspace import ridge_space
from benchmarks.accuracy.labelled_pool import POOLS, LabelledPool
from benchmarks.accuracy.uncertainty.models import (
    DRAWS,
    MEMBERS,
    DrawnFrames,
    draw_frames,
    model,
    model_file,
    open_pool,
)
from benchmarks.common import Row, Rows, make_parser, make_table, show

_SKETCH = 128  # random products of gradients
WORST = 0.1  # the share of frames that should be found
_BATCH, _REPEATS = 32, 9  # frames and calls of which the cost is measured


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model, its pool, and the frames that were drawn for it."""

    model: Generation
    pool: LabelledPool
    drawn: DrawnFrames

    @cached_property
    def learned(self) -> Batch:
        """The frames as a campaign's scorer gets them: cheap, then expensive."""
        return self._batch(np.concatenate([self.drawn.cheap, self.drawn.expensive]))

    @cached_property
    def heldout(self) -> Batch:
        """The held-out frames."""
        return self._batch(self.drawn.heldout)

    def fit(self, scorer: Scorer, learned: Batch | None = None) -> FittedScorer:
        """Return a scorer fitted as in a campaign, or to other learned frames."""
        train = self.learned if learned is None else learned
        return scorer.fit(self.model.potential, train, self.heldout, _retrain)

    @cached_property
    def tested(self) -> Mapping[str, tuple[LabelSet, Predictions]]:
        """By name, the true labels of test frames and the model's predictions."""
        sets = {
            name: self.pool.label_set("expensive", indices)
            for name, indices in self.pool.tests.items()
        }
        return {name: (x, self.predict(x.batch)) for name, x in sets.items()}

    def predict(self, batch: Batch) -> Predictions:
        """Return predictions with descriptors."""
        return self.model.predict(batch, descriptors=True)

    def _batch(self, indices: Integers) -> Batch:
        return pack_frames([self.pool.frames[i] for i in indices])


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A scorer that is a function of a batch and its predictions, and not stored."""

    of: Callable[[Batch, Predictions], Floats]

    def score(self, batch: Batch, predictions: Predictions) -> Floats:
        """Return what the function returns."""
        return self.of(batch, predictions)

    def arrays(self) -> Mapping[str, Any]:
        """Return nothing."""
        return {}


Fit = Callable[[TrainedModel], FittedScorer]


def _retrain(number: int, share: float = 1.0) -> Potential:
    raise NotImplementedError("only the committee needs more models here")


def shipped(**settings: Any) -> Fit:
    """Return the fit of the scorer of a `flag:` section."""
    scorer = TypeAdapter[Any](Flag).validate_python(settings).scorer()
    return lambda trained: trained.fit(scorer)


def own_committee(trained: TrainedModel) -> FittedScorer:
    """Return the committee that was trained with the model."""
    assert trained.model.scorer is not None
    return trained.model.scorer


def predicted_energy(_trained: TrainedModel) -> FittedScorer:
    """Return the scorer by the predicted energy, eV."""
    return Function(lambda _, predictions: predictions.energies)


def largest_force(_trained: TrainedModel) -> FittedScorer:
    """Return the scorer by the largest predicted force on an atom, eV/Å."""
    return Function(_largest_force)


def _largest_force(batch: Batch, predictions: Predictions) -> Floats:
    norms = np.linalg.norm(predictions.forces, axis=1)
    out: Floats = np.maximum.reduceat(norms, batch.offsets[:-1])
    return out


def mean_distance(trained: TrainedModel) -> FittedScorer:
    """Return the scorer by the distance of a mean descriptor from the nearest known."""
    train = _means(trained.learned, trained.predict(trained.learned))

    def distance(batch: Batch, predictions: Predictions) -> Floats:
        apart = _means(batch, predictions)[:, None] - train
        out: Floats = np.linalg.norm(apart, axis=2).min(axis=1)
        return out

    return Function(distance)


def _means(batch: Batch, predictions: Predictions) -> Floats:
    assert predictions.descriptors is not None
    return frame_means(batch, predictions.descriptors)


def random_numbers(_trained: TrainedModel) -> FittedScorer:
    """Return the scorer by chance."""
    rng = np.random.default_rng(0)
    return Function(lambda batch, _: rng.random(len(batch)))


def expensive_leverage(trained: TrainedModel) -> FittedScorer:
    """Return the leverage of the expensively labelled frames alone."""
    frames = [trained.pool.frames[i] for i in trained.drawn.expensive]
    return trained.fit(LeverageScorer(), pack_frames(frames))


def rank_sum(trained: TrainedModel) -> FittedScorer:
    """Return the sum of the ranks by leverage and by predicted energy."""
    leverage = trained.fit(LeverageScorer())
    return Function(
        lambda batch, predictions: (
            rankdata(leverage.score(batch, predictions))
            + rankdata(predictions.energies)
        )
    )


def gradient_leverage(trained: TrainedModel) -> FittedScorer:
    """Return the leverage of the gradients of PaiNN's energy by its readout's weights.

    Those by the first matrix are outer products, sketched by random products
    (Holzmüller et al., JMLR 2023); those by the second one are the hidden layer.
    """
    tensors = trained.model.potential.checkpoint().tensors
    first, offset, second = (
        tensors[f"readout.{name}"] for name in ("0.weight", "0.bias", "2.weight")
    )
    rng = np.random.default_rng(0)
    left = rng.standard_normal((first.shape[1], _SKETCH))
    right = rng.standard_normal((first.shape[0], _SKETCH)) / np.sqrt(_SKETCH)

    def features(predictions: Predictions) -> Floats:
        x = predictions.descriptors
        assert x is not None
        inside = x @ first.T + offset
        gate = expit(inside)
        slope = (gate + inside * gate * (1.0 - gate)) * second[0]
        return np.column_stack([(x @ left) * (slope @ right), inside * gate])

    train = features(trained.predict(trained.learned))
    spaces = {
        element: ridge_space(train[trained.learned.numbers == element], 1e-4)
        for element in np.unique(trained.learned.numbers)
    }

    def score(batch: Batch, predictions: Predictions) -> Floats:
        values = features(predictions)
        raw = np.empty(len(values))
        for element, space in spaces.items():
            atoms = batch.numbers == element
            raw[atoms] = space.distance(values[atoms])
        out: Floats = np.maximum.reduceat(raw, batch.offsets[:-1])
        return out

    return Function(score)


def learned_error(trained: TrainedModel) -> FittedScorer:
    """Return a ridge regression of the log of true errors of held-out frames.

    On the logs of leverage, of T² + Q/σ², and of the largest force, and on the energy.
    """
    labels = trained.pool.label_set("expensive", trained.drawn.heldout)
    scorers = [trained.fit(LeverageScorer()), trained.fit(QResidualScorer(kind="ppca"))]

    def features(batch: Batch, predictions: Predictions) -> Floats:
        scores = [np.arcsinh(scorer.score(batch, predictions)) for scorer in scorers]
        force = np.log(_largest_force(batch, predictions) + 0.1)
        return np.column_stack([*scores, force, predictions.energies])

    predictions = trained.predict(labels.batch)
    x = features(labels.batch, predictions)
    y = np.log(largest_force_errors(labels.batch, predictions.forces, labels.forces))
    mean, scale = x.mean(axis=0), x.std(axis=0)
    x = (x - mean) / scale
    gram = x.T @ x + 0.1 * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x.T @ (y - y.mean()))
    return Function(lambda *given: (features(*given) - mean) / scale @ weights)


SCORERS: Mapping[str, Fit] = {
    "leverage": shipped(kind="leverage"),
    "q-residual": shipped(kind="q-residual"),
    "committee of 4": own_committee,
    "predicted energy": predicted_energy,
    "largest force": largest_force,
    "mean distance": mean_distance,
    "random": random_numbers,
    "leverage of SOAP": shipped(kind="leverage", descriptors="soap"),
    "q-residual of SOAP": shipped(kind="q-residual", components=5, descriptors="soap"),
    "leverage, ridge 1e-3": shipped(kind="leverage", ridge=1e-3),
    "leverage, ridge 1e-5": shipped(kind="leverage", ridge=1e-5),
    "T² + Q/σ²": lambda trained: trained.fit(QResidualScorer(kind="ppca")),
    "leverage, expensive": expensive_leverage,
    "leverage + energy": rank_sum,
    "gradients": gradient_leverage,
    "learned error": learned_error,
}


# --- figures --------------------------------------------------------------------------


def error_figures(surprise: Floats, errors: Floats) -> Row:
    """Return how well surprise (frames,) tells errors (frames,) in eV/Å."""
    worst = max(1, round(WORST * len(errors)))
    is_bad = np.zeros(len(errors), dtype=np.bool_)
    is_bad[np.argsort(-errors)[:worst]] = True
    ranks = rankdata(surprise)
    above = ranks[is_bad].sum() - worst * (worst + 1) / 2
    caught = errors[np.argsort(-surprise, kind="stable")[:worst]].sum()
    return {
        "spearman": float(spearmanr(surprise, errors).statistic),
        "auroc": float(above / (worst * (len(errors) - worst))),
        "caught": float(caught / errors[is_bad].sum()),
    }


def make_row(trained: TrainedModel, name: str, force: float) -> Row:
    """Fit a scorer to a model; return its figures by the name of the test set.

    force: CPU seconds of the forces of a batch.
    """
    started = time.process_time()
    scorer = SCORERS[name](trained)
    fit = time.process_time() - started
    if name == "committee of 4":
        fit += trained.model.facts["cpu_seconds"] * (MEMBERS - 1) / MEMBERS
    batch = trained.heldout.select(range(_BATCH))
    predictions = trained.predict(batch)
    cost = _cpu_seconds(lambda: scorer.score(batch, predictions))
    row: Row = {"fit": fit, "cost": cost / force}
    for test, (labels, predictions) in trained.tested.items():
        surprise = scorer.score(labels.batch, predictions)
        row[test] = error_figures(
            surprise,
            largest_force_errors(labels.batch, predictions.forces, labels.forces),
        )
    return row


def force_seconds(trained: TrainedModel) -> float:
    """Return the CPU seconds of the forces of a batch, with descriptors."""
    batch = trained.heldout.select(range(_BATCH))
    return _cpu_seconds(lambda: trained.predict(batch))


def _cpu_seconds(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(_REPEATS):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return median(times)


def summary_rows(rows: Rows, keys: Mapping[str, Sequence[str]], test: str) -> list[Row]:
    """Return a row for each scorer: means over seeds, with the lowest."""
    out = []
    for name, row_keys in keys.items():
        done = [rows[key] for key in row_keys if key in rows]
        if not done:
            continue
        shown: Row = {"scorer": name, "seeds": len(done)}
        for figure in ("spearman", "auroc", "caught"):
            values = [row[test][figure] for row in done]
            shown[figure] = f"{np.mean(values):.3f} ({min(values):.3f})"
        shown["cost"] = float(np.mean([row["cost"] for row in done]))
        shown["fit, s"] = float(np.mean([row["fit"] for row in done]))
        out.append(shown)
    return out


def row_key(options: Namespace, pool: str, draw: str, seed: int, name: str) -> str:
    """Return the key of a row: all that it depends on."""
    return f"{model_file(options, pool, draw, seed).stem}/{name}"


def show_rows(options: Namespace, rows: Rows) -> None:
    """Print a table for each pool, draw and set of test frames."""
    for pool in options.pools:
        for draw in options.draws:
            keys = {
                name: [
                    row_key(options, pool, draw, seed, name) for seed in options.seed
                ]
                for name in SCORERS
            }
            first = next(
                (x for row_keys in keys.values() for x in row_keys if x in rows), None
            )
            if first is None:
                continue
            for test in (x for x, value in rows[first].items() if type(value) is dict):
                title = f"{pool}, trained on {draw} frames, tested on: {test}"
                show(make_table(title, summary_rows(rows, keys, test)))


def main() -> None:
    """Make the rows that are missing, and show what is there."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, help="the folder of h2co/")
    add("--out", type=Path, required=True, help="the folder of models and rows")
    add("--pools", nargs="+", default=[*POOLS, "xtb-ethanol"])
    add("--draws", nargs="+", choices=DRAWS, default=list(DRAWS))
    add("--scorers", nargs="+", choices=list(SCORERS), default=list(SCORERS))
    add("--seed", type=int, nargs="+", default=list(range(3)))
    add("--cheap", type=int, default=400, help="cheap labels")
    add("--expensive", type=int, default=80, help="of them with an expensive one too")
    add("--train", action="store_true", help="train models only")
    add("--steps", type=int, default=1000, help="training steps of a model")
    add("--table", action="store_true", help="show what the folder holds")
    options = parser.parse_args()
    if options.quick:
        options.cheap, options.expensive, options.steps, options.seed = 100, 20, 50, [0]
        options.pools = options.pools[:1]
    rows = Rows(options.out / "uncertainty.jsonl")
    if not options.table:
        make_rows(options, rows)
    show_rows(options, rows)


def make_rows(options: Namespace, rows: Rows) -> None:
    """Train the models and make the rows that are missing."""
    for name in options.pools:
        pool = open_pool(options, name)
        for seed in options.seed:
            for draw in options.draws:
                generation = model(options, pool, draw, seed)
                missing = [
                    scorer
                    for scorer in (() if options.train else options.scorers)
                    if row_key(options, name, draw, seed, scorer) not in rows
                ]
                if not missing:
                    continue
                amounts = (options.cheap, options.expensive)
                drawn = draw_frames(pool, draw, seed, *amounts)
                trained = TrainedModel(generation, pool, drawn)
                force = force_seconds(trained)
                for scorer in missing:
                    key = row_key(options, name, draw, seed, scorer)
                    rows[key] = make_row(trained, scorer, force)


if __name__ == "__main__":
    main()
