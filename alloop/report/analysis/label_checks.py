"""Checks of labels, in words for the methods section. Pure functions."""

from collections.abc import Iterator, Mapping
from typing import Any

from alloop.core.levels import make_level
from alloop.history.reader import History
from alloop.labels.gate import level_tolerances
from alloop.report.analysis.noise_floor import noise_floors
from alloop.report.text.formatting import and_list

_FIRST = {
    "auto": "on the first rung where the gap is small",
    "always": "on the first rung",
}


def label_checks(history: History) -> Iterator[str]:
    """Yield the checks of each level and the number of labels made again.

    Only checks that the campaign's own levels have are named.
    """
    known: Mapping[str, Any] = history.attrs.get("levels", {})
    texts: dict[str, list[str]] = {}
    for each in known.values():
        text = f"{_gate_text(each)}{_ladder_text(each['settings'])}"
        texts.setdefault(text, []).append(each["title"])
    for text, titles in texts.items():
        yield f"{and_list(titles)}: {text}"
    again = {floor.title: floor.n + floor.lost for floor in noise_floors(history)}
    if again:
        counts = and_list(f"{n} of {name}" for name, n in again.items())
        yield (
            "Noise: labels made a second time, at tighter settings where the level has "
            f"them and turned where the frame has no cell: {counts}."
        )


def _gate_text(each: Mapping[str, Any]) -> str:
    limits = level_tolerances(make_level(each["kind"], each["settings"]))
    slope = (
        f" The forces of {limits.slope:.0%} of the labels are compared with energies "
        "of a neighbouring frame."
    )
    return (
        f"no label where two atoms are closer than {limits.closest:g} of the sum of "
        f"their covalent radii, or where a component of a force exceeds "
        f"{limits.force:g} eV/Å, the net force {limits.net_force:g} eV/Å or the net "
        f"torque {limits.torque:g} eV."
    ) + slope * (limits.slope > 0)


def _ladder_text(settings: Mapping[str, Any]) -> str:
    rungs = settings.get("ladder")
    if not rungs:
        return ""
    text = f" Until the SCF converges: {and_list(rungs)}."
    if "stability" not in settings:
        return text
    first = _FIRST.get(settings["stability"], "")
    places = filter(None, (first, "on every later rung" * (len(rungs) > 1)))
    return f"{text} Internal stability is checked {and_list(places) or 'nowhere'}."
