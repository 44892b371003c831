"""Labels of another campaign's store."""

from pathlib import Path

from alloop.core.errors import InputError
from alloop.core.records import Label
from alloop.files.raw import Raw
from alloop.loop.history import History, read


def read_store(path: Path, fidelity: str | None) -> list[Raw]:
    """Labels that a store trains on at the fidelity, or its test set ("test").

    What was excluded there is left out; InputError where the fidelity is not one.
    """
    history = read(path)
    levels = history.opened.levels
    known = (*levels, "test")
    if fidelity not in known:
        raise InputError(
            f"expected `fidelity` to be one of {', '.join(known)} for the store "
            f"{path}, got {fidelity}"
        )
    if fidelity == "test":
        return _raws(history, levels["expensive"], history.state.test())
    return _raws(history, levels[fidelity], history.state.trained_on(fidelity))


def _raws(history: History, level: str, frames: tuple[str, ...]) -> list[Raw]:
    out = []
    for frame_id in frames:
        frame = history.ledger.frames[frame_id]
        label = history.ledger.labels[level, frame_id]
        if isinstance(label, Label):
            out.append(
                Raw(
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
