"""The codec of the journal, and the first event of a campaign."""

from alloop.core import batch, cost, curve, frame, levels, records
from alloop.loop import events as e
from alloop.store.archive import Archive
from alloop.store.codec import Codec

_EVENTS = (
    *(e.Prepare, e.Sample, e.LabelFrame, e.Explore, e.Train, e.Stop, e.Forked),
    *(e.Opened, e.Given, e.Amended, e.Prepared, e.Sampled, e.Labelled, e.NotLabelled),
    *(e.Explored, e.Evaluation, e.Trained, e.TaskLost, e.Excluded, e.Timing, e.Turn),
    *(e.Recheck, e.Rechecked, e.Price, e.Priced, e.Retried),
)
_FACTS = (
    *(frame.Frame, batch.Batch, levels.Level, records.Walker, records.Candidate),
    *(records.Label, records.Unlabelled, records.Failure, records.Noise),
    *(cost.Cost, curve.Curve),
)
CLASSES = (*_EVENTS, *_FACTS)
CODEC = Codec(CLASSES)


def opened(archive: Archive) -> e.Opened | None:
    """How the campaign of an open archive began; None where it has not."""
    for _, _, turn in archive.records():
        return turn.event if isinstance(turn.event, e.Opened) else None
    return None


def configured(event: e.Event) -> str:
    """The configuration that the event puts in force; "" where it changes nothing."""
    return event.config if isinstance(event, e.Amended | e.Forked) else ""
