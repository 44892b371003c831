"""Control campaigns, which spend the same label cost with a simpler strategy.

"standard" trains on expensive labels alone, and gets as many more of them as the cheap
labels cost, in no more generations than the campaign has. "random" selects its frames
at random. Each is a fork of the finished
campaign from before the first decision that differs, so first labels and validation set
are the same. Each is examined on the frames and labels of the campaign's own
examination.
"""

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from alloop.config import Setup
from alloop.core.records import Label, Unlabelled
from alloop.history.examination import examination_frames
from alloop.history.label_index import LabelIndex
from alloop.history.measured_costs import cheap_in_expensive
from alloop.history.reader import History
from alloop.loop.commands import Explore, Train
from alloop.loop.events import Posed
from alloop.store_copies.fork import branch_store

NAMES = ("standard", "random")


@dataclass(frozen=True, slots=True)
class FinishedLabels:
    """The labels of the finished campaign, as a read-only cache."""

    label_index: LabelIndex

    def get(self, level: str, frame: str) -> Label | Unlabelled | None:
        """Return the record under this key, or None."""
        return self.label_index.get(level, frame)

    def put(self, record: Label | Unlabelled) -> None:
        """Do nothing: the finished campaign gets no more labels."""


def control_stores(store: Path) -> dict[str, Path]:
    """Return the existing control stores of a campaign by name."""
    return {
        name: _control_store(store, name)
        for name in NAMES
        if _control_store(store, name).exists()
    }


def prepare_control(name: str, setup: Setup, history: History) -> Setup:
    """Return a control's configuration; fork its store unless that exists."""
    changes = _control_changes(name, setup, history)
    control = setup.with_changes(
        changes, _control_store(setup.store, name), history.opened
    )
    if not control.store.exists():
        branch_store(
            history.path, control, _fork_record(name, history), {"control": name}
        )
    return control


def _control_changes(name: str, setup: Setup, history: History) -> dict[str, Any]:
    # The campaign has measured the noise of the levels already.
    levels = {fidelity: {"recheck": 0.0} for fidelity in setup.levels}
    validation = {"examination": 0}  # the campaign's own frames are posed instead
    both = {"name": f"{setup.name}-{name}", "levels": levels, "validation": validation}
    if name == "random":
        return {**both, "flag": {"selection": "random"}}
    budget = setup.rules.budget.expensive + round(cheap_in_expensive(history))
    every = standard_interval(setup, budget)
    return {
        **both,
        "budget": {"cheap": 0, "expensive": budget, "split": "fixed"},
        "seeds": {"cheap": 0},
        "training": {"kind": "standard", "every": every},
        "refine": None,
    }


def standard_interval(setup: Setup, budget: int) -> int:
    """Return the expensive labels between two generations of standard training.

    They are the campaign's, or so many more that a budget (of expensive labels) is
    spent in as many generations: where a cheap label costs nearly as much as an
    expensive one there would be many more trainings, each on hardly more labels.
    """
    rules = setup.rules
    rounds = ceil((rules.budget.expensive - rules.seeding.expensive) / rules.every)
    return max(rules.every, ceil((budget - rules.seeding.expensive) / max(1, rounds)))


def posed_frames(history: History) -> Posed | None:
    """Return the labelled frames of the campaign's last examination, for its controls.

    None without any.
    """
    numbers = history.record_index.examinations
    if not numbers:
        return None
    level = history.state.levels["expensive"]
    frames_by_key = {
        x.frame.id: (x.frame, x.molecule)
        for x in examination_frames(history)
        if isinstance(history.label_index.get(level, x.frame.id), Label)
    }
    frames = [frames_by_key[key] for key in sorted(frames_by_key)]
    if not frames:
        return None
    return Posed(tuple(f for f, _ in frames), tuple(m for _, m in frames))


def _fork_record(name: str, history: History) -> int:
    """Return the number of the record at whose event the control is forked."""
    parting = Train if name == "standard" else Explore
    return next(
        entry.seq
        for entry in history.entries
        if any(isinstance(command, parting) for command in entry.turn.commands)
    )


def _control_store(store: Path, name: str) -> Path:
    return store.with_suffix(".controls") / f"{name}.zarr"
