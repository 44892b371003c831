"""Labels that were lost, not refused: another try may give them. Pure."""

from alloop.core.records import Failure, Label, Unlabelled
from alloop.loop import events as e
from alloop.loop.chronicle import Told
from alloop.loop.history import History
from alloop.loop.told import told

_PASSING = (
    *(Failure.TIMEOUT, Failure.MEMORY, Failure.CRASHED, Failure.LOST),
    Failure.DISK,
)


def lasting(record: Label | Unlabelled) -> bool:
    """Whether another machine or another try would end just so."""
    return isinstance(record, Label) or record.failure not in _PASSING


def lost(history: History) -> tuple[e.LabelFrame, ...]:
    """The labels that a limit, a crash or a lost worker cost, as they were asked for;
    without those that were made since, are under way or were taken out by hand."""
    last = {_name(label): label for label in told(history) if not label.brought}
    busy = {*history.state.open, *history.state.retries}
    return tuple(
        _again(label)
        for name, label in sorted(last.items())
        if not (lasting(label.record) or label.excluded or name in busy)
    )


def _name(label: Told) -> str:
    return _again(label).name


def _again(label: Told) -> e.LabelFrame:
    return e.LabelFrame(
        frame=label.frame,
        level=label.level,
        fidelity=label.fidelity,
        purpose=label.purpose,
        molecule=label.molecule,
        reason=label.reason,
    )
