"""Labels of other bonds than those a campaign began with. Pure functions."""

from collections import Counter
from collections.abc import Iterator

from alloop.core.doubts import doubts_of_details
from alloop.core.records import Unlabelled
from alloop.core.species import bonded_species
from alloop.history.label_entries import label_entries
from alloop.history.reader import History
from alloop.history.record_index import LabelEntry
from alloop.report.analysis.campaign_facts import config_value
from alloop.report.analysis.label_facts import is_excluded, latest_labels
from alloop.report.text.formatting import and_list, plural

_MOST = 5  # species that are named


def reacted_labels(history: History) -> list[tuple[str, LabelEntry]]:
    """Return the labels of frames with other bonds than their start, and the species.

    Conformers have the bonds of their start.
    """
    begun = [bonded_species(frame) for frame in history.opened.start]
    named = (
        (bonded_species(label.frame), label)
        for label in latest_labels(label_entries(history))
    )
    return [(name, x) for name, x in named if name != begun[x.molecule]]


def reaction_sentences(history: History) -> Iterator[str]:
    """Yield what became of labels with other bonds, where bonds may break."""
    if config_value(history, "explore", "guards", "reactive") is not True:
        return
    total = len(latest_labels(label_entries(history)))
    reacted = reacted_labels(history)
    if not reacted:
        yield f"Bonds may break: none did in the frames of {plural(total, 'label')}."
        return
    species = Counter(name for name, _ in reacted)
    names = [f"{name} ({count})" for name, count in species.most_common(_MOST)]
    more = len(species) - len(names)
    names += [f"{more} more"] * (more > 0)
    useless = sum(_is_useless(history, label) for _, label in reacted)
    doubted = sum(_is_doubted(label) for _, label in reacted)
    yield (
        f"Bonds may break: {len(reacted)} of {plural(total, 'label')} are of other "
        f"bonds than the start's, {and_list(names)}. The levels could not describe "
        f"{useless / len(reacted):.0%} of them, which teach nothing; {doubted} are "
        "doubted."
    )


def _is_doubted(label: LabelEntry) -> bool:
    record = label.record
    return not isinstance(record, Unlabelled) and bool(
        doubts_of_details(record.details)
    )


def _is_useless(history: History, label: LabelEntry) -> bool:
    record = label.record
    if isinstance(record, Unlabelled):
        return True
    doubts = doubts_of_details(record.details)
    return any(is_excluded(history, label.fidelity, doubt) for doubt in doubts)
