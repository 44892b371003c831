"""The journal as row tables, for the columns that others read. Pure.

Rows stand in the order of the journal, so that more journal only adds rows; but for
`walkers`, which are where they are now.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from alloop.core.batch import Batch, pack
from alloop.core.frame import Frame, FrameId
from alloop.core.records import Candidate, Label
from alloop.loop import events as e
from alloop.loop.history import History
from alloop.loop.told import Told, told
from alloop.store.record import Array
from alloop.store.schema import (
    FIDELITIES,
    PURPOSES,
    STATES,
    coded,
    digits,
    failure_codes,
)

_Table = dict[str, Array]


def tables(history: History) -> Mapping[str, Mapping[str, Array]]:
    """All tables of `alloop.store.schema`, from the first row on.

    structures: every frame that the journal names, candidates without a label too;
    labels/<fidelity>: labels and failures; scores: what models said of candidates and
    control frames; selections: what was asked for; walkers; generations.
    """
    frames, molecules = _frames(history)
    rows = {frame: row for row, frame in enumerate(frames)}
    labels = told(history)
    return {
        "structures": _structures(list(frames.values()), molecules),
        **{
            f"labels/{fidelity}": _labels(
                [label for label in labels if label.fidelity == fidelity], rows
            )
            for fidelity in FIDELITIES
        },
        "scores": _scores(history, rows),
        "selections": _selections(history, rows),
        "walkers": _walkers(history),
        "generations": _generations(history),
    }


def _frames(history: History) -> tuple[dict[FrameId, Frame], list[int]]:
    frames: dict[FrameId, Frame] = {}
    molecules = []
    for entry in history.entries:
        for frame, molecule in _named(entry.turn):
            if frame.id not in frames:
                frames[frame.id] = frame
                molecules.append(molecule)
    return frames, molecules


def _named(turn: e.Turn) -> Iterator[tuple[Frame, int]]:
    match turn.event:
        case e.Opened(given=given):
            yield from ((item.frame, item.molecule) for item in given)
        case e.Explored(candidates=candidates, controls=controls):
            yield from ((x.frame, x.molecule) for x in (*candidates, *controls))
    for command in turn.commands:
        if isinstance(command, e.LabelFrame):
            yield command.frame, command.molecule


def _structures(frames: Sequence[Frame], molecules: Sequence[int]) -> _Table:
    batch = pack(frames)
    return {
        "id": digits(frame.id for frame in frames),
        **_geometry(batch),
        "cell": batch.cells,
        "pbc": batch.pbc,
        "charge": batch.charges,
        "spin": batch.spins,
        "molecule": _whole(molecules),
    }


def _geometry(batch: Batch) -> _Table:
    return {
        "offsets": batch.offsets,
        "numbers": batch.numbers.astype(np.uint8),
        "positions": batch.positions,
    }


def _labels(labels: Sequence[Told], rows: Mapping[FrameId, int]) -> _Table:
    good = [x.record if isinstance(x.record, Label) else None for x in labels]
    failures = [
        None if isinstance(x.record, Label) else x.record.failure for x in labels
    ]
    forces = [np.zeros((0, 3)) if label is None else label.forces for label in good]
    return {
        "structure": _whole([rows[x.frame.id] for x in labels]),
        "offsets": _whole(np.cumsum([0, *map(len, forces)])),
        "energy": _real([None if x is None else x.energy for x in good]),
        "forces": np.concatenate([np.zeros((0, 3)), *forces]),
        "status": coded((STATES[x is None] for x in good), STATES),
        "failure": failure_codes(failures),
        "cpu_seconds": _real([x.cpu_seconds for x in labels]),
        "purpose": coded((x.purpose for x in labels), PURPOSES),
    }


def _scores(history: History, rows: Mapping[FrameId, int]) -> _Table:
    judged = list(_judged(history))
    found = [candidate for _, candidate in judged]
    thresholds = {x.generation: x.threshold for x in history.trained()}
    generations = [explore.generation for explore, _ in judged]
    return {
        "structure": _whole([rows[x.frame.id] for x in found]),
        "generation": _whole(generations),
        "surprise": _real([x.surprise for x in found]),
        "threshold": _real([thresholds.get(number) for number in generations]),
        "energy": _real([x.energy for x in found]),
        "round": _whole([explore.round for explore, _ in judged]),
        "walker": _whole([x.walker for x in found]),
        "step": _whole([x.step for x in found]),
    }


def _judged(history: History) -> Iterator[tuple[e.Explore, Candidate]]:
    asked: dict[str, e.Explore] = {}
    for entry in history.entries:
        event = entry.turn.event
        if isinstance(event, e.Explored) and event.name in asked:
            for candidate in (*event.candidates, *event.controls):
                yield asked[event.name], candidate
        explores = (x for x in entry.turn.commands if isinstance(x, e.Explore))
        asked |= {explore.name: explore for explore in explores}


def _selections(history: History, rows: Mapping[FrameId, int]) -> _Table:
    asked: dict[str, tuple[e.LabelFrame, int]] = {}
    round_ = 0
    for entry in history.entries:
        for command in entry.turn.commands:
            match command:
                case e.Explore():
                    round_ = command.round
                case e.LabelFrame():
                    asked.setdefault(command.name, (command, round_))
    commands = [command for command, _ in asked.values()]
    return {
        "structure": _whole([rows[x.frame.id] for x in commands]),
        "fidelity": coded((x.fidelity for x in commands), FIDELITIES),
        "purpose": coded((x.purpose for x in commands), PURPOSES),
        "round": _whole([number for _, number in asked.values()]),
    }


def _walkers(history: History) -> _Table:
    walkers = [history.state.walkers[key] for key in sorted(history.state.walkers)]
    return {
        "walker": _whole([walker.index for walker in walkers]),
        "molecule": _whole([walker.molecule for walker in walkers]),
        "step": _whole([walker.step for walker in walkers]),
        "stopped": np.array([x.stopped is not None for x in walkers], dtype=np.bool_),
        **_geometry(pack([walker.frame for walker in walkers])),
        "velocities": np.concatenate(
            [np.zeros((0, 3)), *(x.velocities for x in walkers)]
        ),
    }


def _generations(history: History) -> _Table:
    asked = _trainings(history)
    trained = history.trained()
    tests = [x.evaluation for x in trained]
    return {
        "generation": _whole([x.generation for x in trained]),
        "model": digits(x.model for x in trained),
        "threshold": _real([x.threshold for x in trained]),
        "energy_mae": _real([None if x is None else x.energy_mae for x in tests]),
        "force_mae": _real([None if x is None else x.force_mae for x in tests]),
        "force_rmse": _real([None if x is None else x.force_rmse for x in tests]),
        "cheap": _whole([len(asked[x.name].cheap) for x in trained]),
        "expensive": _whole([len(asked[x.name].expensive) for x in trained]),
        "cpu_seconds": _real([x.timing.cpu_seconds for x in trained]),
    }


def _trainings(history: History) -> dict[str, e.Train]:
    return {
        command.name: command
        for entry in history.entries
        for command in entry.turn.commands
        if isinstance(command, e.Train)
    }


def _whole(values: Sequence[int] | Array) -> Array:
    return np.asarray(values, dtype=np.int64)


def _real(values: Sequence[float | None]) -> Array:
    return np.array([np.nan if x is None else x for x in values], dtype=np.float64)
