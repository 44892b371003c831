"""Labels that were lost, not refused, so that another try may succeed. Pure."""

from alloop.history.label_entries import label_entries
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry
from alloop.loop import events as e


def lost_labels(history: History) -> tuple[e.LabelFrame, ...]:
    """Return the commands of labels lost to a limit, a crash or a lost worker.

    Sorted by name; without labels that were made since, are under way or were excluded
    by hand.
    """
    last = {
        _command_name(label): label
        for label in label_entries(history)
        if not label.is_given
    }
    busy = {*history.state.open, *history.state.retries}
    return tuple(
        _label_command(label)
        for name, label in sorted(last.items())
        if not (label.record.is_permanent or label.excluded or name in busy)
    )


def _command_name(label: LabelEntry) -> str:
    return _label_command(label).name


def _label_command(label: LabelEntry) -> e.LabelFrame:
    return e.LabelFrame(
        frame=label.frame,
        level=label.level,
        fidelity=label.fidelity,
        purpose=label.purpose,
        molecule=label.molecule,
        reason=label.reason,
    )
