"""Contents of campaigns, to compare a hit campaign with an undisturbed one."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from alloop.core.records import Label
from alloop.history.reader import History, read_history
from alloop.loop import events as e
from benchmarks.durability.toy_campaign import LabelLog

CampaignContents: TypeAlias = dict[str, object]


class Reference(NamedTuple):
    """The contents of an undisturbed campaign, and the log of its labels."""

    contents: CampaignContents
    log: LabelLog


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault, and what became of the campaign.

    fault: its kind; place: what it hit; problem: what differs from an undisturbed
    campaign, "" if nothing does; duplicates: labels committed twice; relabelled: labels
    begun again; seconds: until the campaign had its next event; number: its place among
    the faults of its kind.
    """

    fault: str
    place: str
    problem: str = ""
    duplicates: int = 0
    relabelled: int = 0
    seconds: float = 0.0
    number: int = 0


def campaign_contents(history: History) -> CampaignContents:
    """Return the contents of a campaign, without times and hosts.

    These are its frames, the bits of its labels, its models, and the purpose of each
    label.
    """
    contents: CampaignContents = {
        f"frame {x}": True for x in history.label_index.frames
    }
    for (level, frame), record in history.label_index.labels.items():
        contents[f"label {level} {frame}"] = (
            (float(record.energy).hex(), record.forces.tobytes())
            if isinstance(record, Label)
            else record.failure
        )
    for event in history.trained():
        contents[f"model {event.generation}"] = event.model
    for entry in history.state.labels.entries():
        contents[f"{entry.purpose} {entry.fidelity} {entry.frame}"] = entry.good
    return contents


def store_contents(store: Path) -> CampaignContents:
    """Return the `campaign_contents` of a store."""
    return campaign_contents(read_history(store))


def count_duplicates(history: History) -> int:
    """Count the labels that were made and committed more than once."""
    keys = Counter(
        (event.label.level, event.label.frame)
        for _, event in history.events()
        if isinstance(event, e.Labelled) and not event.cached
    )
    return sum(count - 1 for count in keys.values())


def labelled_frames(history: History) -> frozenset[str]:
    """Return the ids of the frames that have labels."""
    return frozenset(frame for _, frame in history.label_index.labels)


def count_relabelled(
    log: LabelLog, undisturbed: LabelLog, frames: Collection[str]
) -> int:
    """Count the labels of these frames begun more often than in the undisturbed one."""
    return sum(
        count
        for key, count in (log - undisturbed).items()
        if key.startswith("begun") and key.split()[-1] in frames
    )
