"""Reading of labels from the store of another campaign."""

from pathlib import Path

from alloop.core.errors import InputError
from alloop.core.records import Label
from alloop.files.raw_label import RawLabel
from alloop.history.reader import History, read_history


def read_store(path: Path, fidelity: str | None) -> list[RawLabel]:
    """Read the labels that a store trains on at a fidelity, or its test set ("test").

    Labels that were excluded there are left out. Raises InputError for an unknown
    fidelity.
    """
    history = read_history(path)
    levels = history.opened.levels
    known = (*levels, "test")
    if fidelity not in known:
        raise InputError(
            f"expected `fidelity` to be one of {', '.join(known)} for the store "
            f"{path}, got {fidelity}"
        )
    if fidelity == "test":
        return _raw_labels(history, levels["expensive"], history.state.test_frames())
    return _raw_labels(history, levels[fidelity], history.state.trained_on(fidelity))


def _raw_labels(
    history: History, level: str, frames: tuple[str, ...]
) -> list[RawLabel]:
    out = []
    for frame_id in frames:
        frame = history.ledger.frames[frame_id]
        label = history.ledger.labels[level, frame_id]
        if isinstance(label, Label):
            out.append(
                RawLabel(
                    numbers=frame.numbers,
                    positions=frame.positions,
                    energy=label.energy,
                    forces=label.forces,
                    charge=frame.charge,
                    spin=frame.spin,
                    cell=frame.cell,
                    pbc=frame.pbc,
                )
            )
    return out
