"""Sections of the report on methods: levels, checks, settings, the store."""

from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from markupsafe import Markup

from alloop.core.atoms import hill_formula
from alloop.core.levels import make_level
from alloop.history.label_entries import label_entries
from alloop.history.reader import History
from alloop.labels.programs import level_tolerances
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import config_value, level_title
from alloop.report.analysis.citations import citations
from alloop.report.analysis.examination import last_examination
from alloop.report.analysis.label_quality import noise_floors
from alloop.report.sections.markup import (
    Section,
    bullet_list,
    code_block,
    folded_block,
    heading,
    join_pieces,
    paragraph,
    table_html,
)
from alloop.report.text.event_text import event_text
from alloop.report.text.formatting import and_list, plural

_LIBRARIES = ("numpy", "torch", "torch-geometric", "pyscf", "ase", "matplotlib")

_TRIAGE = {
    "bias": "the bias against that label",
    "surprise": "surprise again",
    "both": "surprise, with the part of the bias that geometry does not explain,",
}


def _triage_text(history: History) -> str:
    return _TRIAGE.get(config_value(history, "flag", "triage") or "both", "its bias")


def methods_section(history: History) -> Section:
    """Return the section on levels, validation, seed, versions and configuration."""
    opened = history.opened
    molecules = and_list(sorted({hill_formula(frame) for frame in opened.start}))
    body = (
        paragraph(
            f"Molecules: {molecules}. Seed {opened.seed}. Surprise decides which "
            f"frames get a cheap label; {_triage_text(history)} decides which get an "
            "expensive one; and a share of random control frames gets both, whatever "
            "their surprise. Units are eV, Å, fs and K."
        )
        + join_pieces(paragraph(text) for text in _fork_origin(history))
        + paragraph(about_test_sets(history))
        + level_table(history)
        + bullet_list(label_checks(history))
        + paragraph(_version_text(history))
        + heading("To cite")
        + bullet_list([*citations(history), _own_citation(history)])
        + paragraph(
            "A functional, a basis set or a program that is missing from this list "
            "has papers of its own."
        )
        + folded_block("Configuration in force", code_block(history.config.strip()))
    )
    return Section("methods", "Methods", body)


def _fork_origin(history: History) -> Iterator[str]:
    """Yield the campaign that this one was forked from, in words."""
    for _, event in history.of_kind(e.Forked):
        yield f"This campaign was {event_text(event, {})}."


def about_test_sets(history: History) -> str:
    """Return a description of the validation set's origin and of the examination."""
    return f"{_about_validation(history)} {_about_examination(history)}"


def _about_examination(history: History) -> str:
    found = last_examination(history)
    if found is None:
        return "There was no examination."
    if found.steps == 0:
        return (
            "Examination: the frames and labels of that of the campaign which "
            "this one is a control of; predicted before the labels were looked up."
        )
    return (
        f"Examination {found.number}: {plural(found.walkers, 'walker')} from "
        f"first frames on generation {found.generation}, the best on the validation "
        f"set, at {found.kelvin}{_pressure_words(history)}; a frame of each "
        f"after every {found.steps} MD steps, whatever its surprise, predicted first "
        "and then labelled at the expensive level. No training sees them, nothing is "
        "chosen by them, and their labels are outside the budget."
    )


def _about_validation(history: History) -> str:
    samples = list(history.of_kind(e.Sampled))
    frames = len(history.state.labels.validation_frames())
    supplied = sum(given.test for given in history.opened.given)
    if supplied:
        return (
            f"Validation set: {plural(supplied, 'frame')} supplied by the user; no "
            "training sees them."
        )
    if not samples:
        return "Validation set: none so far."
    kelvin = config_value(history, "validation", "temperature")
    warm = f" at {kelvin:g} K" if isinstance(kelvin, int | float) else ""
    warm += _pressure_words(history)
    return (
        f"Validation set: {plural(frames, 'frame')} from {len(samples)} trajectories "
        f"of Langevin MD at the cheap level ({level_title(history, 'cheap')}){warm}, "
        f"labelled at the expensive level ({level_title(history, 'expensive')}), "
        "drawn before the first training; no training sees them, and their labels "
        "are outside the budget. It decides when to stop and which generation is best, "
        "so that its error is no test."
    )


def _pressure_words(history: History) -> str:
    pressure = config_value(history, "explore", "pressure")
    return f" and {pressure:g} GPa" if isinstance(pressure, int | float) else ""


def level_table(history: History) -> Markup:
    """Return a table of all settings of both levels."""
    known: Mapping[str, Any] = history.attrs.get("levels", {})
    settings = {name: each.get("settings", {}) for name, each in known.items()}
    keys = list(dict.fromkeys(key for each in settings.values() for key in each))
    facts = [
        (key, *(str(each.get(key, "–")) for each in known.values()))
        for key in ("title", "kind", "id")
    ]
    rows = [
        (key, *(_setting_value(each.get(key, "–")) for each in settings.values()))
        for key in keys
        if key != "title"
    ]
    return table_html(("level", *known), [*facts, *rows], words=9)


def _setting_value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, "") else str(value)


def _own_citation(history: History) -> str:
    version_used = history.attrs.get("alloop_version", "?")
    return f"alloop {version_used}: CITATION.cff in its repository"


def _version_text(history: History) -> str:
    programs = {label.record.details.get("program") for label in label_entries(history)}
    used = and_list(sorted(str(name) for name in programs if name)) or "not recorded"
    here = ", ".join(f"{name} {_package_version(name)}" for name in _LIBRARIES)
    made_by = history.attrs.get("alloop_version", "?")
    return (
        f"Store made by alloop {made_by}. Labels were made by: {used}. This page was "
        f"written with alloop {_package_version('alloop')}, {here}."
    )


def _package_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def reading_snippet(history: History) -> str:
    """Return Python code that reads the store without alloop."""
    return (
        "import zarr\n"
        f'store = zarr.open("{history.path}", mode="r", zarr_format=3)\n'
        'label, frames = store["labels/expensive"], store["structures"]\n'
        'row = label["structure"][0]; '
        'start, stop = frames["offsets"][row : row + 2]\n'
        'print(label["energy"][0], frames["numbers"][start:stop], '
        'frames["positions"][start:stop])'
    )


def reading_section(history: History) -> Section:
    """Return the section that explains reading the store."""
    body = (
        paragraph("The store is a Zarr v3 group; these lines need no alloop:")
        + code_block(reading_snippet(history))
        + paragraph(
            "Each array says what it is (`about`) and in which unit (`units`) in its "
            "attributes. `alloop export STORE OUT.xyz` writes the labels as extended "
            "XYZ, `alloop log STORE` prints every event."
        )
    )
    return Section("store", "How to read the store", body)


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
