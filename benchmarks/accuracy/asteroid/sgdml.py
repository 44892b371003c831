"""sGDML, the classical rival: a kernel on the expensive labels of standard training.

    python -m benchmarks.accuracy.asteroid.sgdml --data DIR --molecule ethanol [--test]

trains sGDML (Chmiela et al., Nature Communications 9, 3887 (2018); `pip install
sgdml==1.0.3` beside alloop) with the molecule's symmetries on --expensive labels, the
length scale being that which errs least on the validation frames, and prints mean
absolute force components in kcal/mol/Å. The test set is looked at with --test only.
--molecule also takes the path of a file of your own, as `benchmarks.accuracy.asteroid`.
"""

import contextlib
import io
import time
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from alloop.core.errors import InputError
from alloop.core.records import LabelSet
from alloop.core.units import KCAL_PER_MOL, Floats
from alloop.training.label_changes import joined_labels
from benchmarks.accuracy.asteroid.arms import FULL
from benchmarks.accuracy.asteroid.data import MD17, first_labels, load
from benchmarks.common import show

SCALES = (5, 10, 20, 40)  # in units of the descriptors: inverse distances


def dataset(labels: LabelSet) -> dict[str, Any]:
    """Return labels as sGDML takes them: Å, kcal/mol."""
    frames = len(labels)
    return {
        "type": np.array("d"),
        "name": np.array("labels"),
        "theory": np.array("expensive"),
        "z": labels.batch.numbers[: len(labels.batch.numbers) // frames],
        "R": labels.batch.positions.reshape(frames, -1, 3),
        "F": labels.forces.reshape(frames, -1, 3) / KCAL_PER_MOL,
    }


def train(training: LabelSet, judging: LabelSet, scale: int) -> Any:
    """Return sGDML's force field."""
    trainer = import_module("sgdml.train").GDMLTrain()
    task = trainer.create_task(
        dataset(training),
        len(training),
        dataset(judging),
        len(judging),
        scale,
        use_E=False,
    )
    return import_module("sgdml.predict").GDMLPredict(trainer.train(task))


def error(field: Any, labels: LabelSet) -> float:
    """Return the mean absolute force component, kcal/mol/Å."""
    arrays = dataset(labels)
    forces: Floats = field.predict(arrays["R"].reshape(len(labels), -1))[1]
    return float(np.abs(forces - arrays["F"].reshape(forces.shape)).mean())


def main() -> None:
    """Train, choose, judge."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--molecule", default="ethanol", help=f"{MD17} or a file")
    parser.add_argument("--expensive", type=int, default=FULL, help="labels")
    parser.add_argument("--test", action="store_true", help="look at the test set")
    options = parser.parse_args()
    try:
        sets = load(options.data, options.molecule, ratio=0)  # no cheap label
        training = first_labels(sets.expensive, options.expensive)
    except InputError as refusal:
        raise SystemExit(str(refusal)) from refusal
    judging = joined_labels(sets.stopping, sets.choosing)
    rows = []
    for scale in SCALES:
        began = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            field = train(training, judging, scale)
        seconds = time.process_time() - began
        rows.append((error(field, judging), scale, field))
        show(f"scale {scale}: {rows[-1][0]:.4f}, {seconds:.0f} CPU s")
    _, scale, field = min(rows, key=lambda x: x[0])
    if options.test:
        show(f"{options.molecule}, scale {scale}: test {error(field, sets.test):.4f}")


if __name__ == "__main__":
    main()
