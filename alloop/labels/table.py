"""Labels from a file of labelled frames, looked up by the content of a frame."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from alloop.core.atoms import atomic_number, hill_formula
from alloop.core.errors import InputError
from alloop.core.frame import Frame, FrameId
from alloop.core.records import Failure
from alloop.files.label_files import convert_labels, read_file
from alloop.files.labelled_frames import (
    FileUnits,
    LabelKeys,
    LabelledFrame,
    LabelledFrames,
    distinct_frames,
)
from alloop.labels.file_levels import unchanged_file
from alloop.labels.result import Refused, Result


def label_with_table(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """Return the stored label; raise Refused if there is none."""
    try:
        rows = _table_rows(json.dumps(settings, sort_keys=True))
    except InputError as error:
        raise Refused(Failure.UNSUPPORTED, str(error)) from error
    row = rows.get(frame.id)
    if row is None:
        text = f"none of the table's {len(rows)} frames is this {hill_formula(frame)}"
        raise Refused(Failure.MISSING, text)
    stress = None if row.stress is None else row.stress.copy()
    return Result(row.energy, row.forces.copy(), stress=stress)


def problems(settings: Mapping[str, Any], elements: Sequence[str]) -> list[str]:
    """Return what is wrong with the file, and the elements that it does not contain."""
    try:
        intake = _read_table(settings)
        distinct_frames(intake, "table")
    except InputError as error:
        return [str(error)]
    elements_there = {int(z) for frame in intake.frames for z in frame.numbers}
    lacking = [
        element for element in elements if atomic_number(element) not in elements_there
    ]
    return [f"no frame of {settings['path']} holds {', '.join(lacking)}"] * bool(
        lacking
    )


@lru_cache(maxsize=2)
def _table_rows(text: str) -> dict[FrameId, LabelledFrame]:
    return distinct_frames(_read_table(json.loads(text)), "table")


def _read_table(settings: Mapping[str, Any]) -> LabelledFrames:
    path = unchanged_file(settings)
    keys = LabelKeys(settings["energy_key"], settings["forces_key"])
    names = ("energy_unit", "length_unit", "force_unit")
    units = FileUnits(*(settings[name] for name in names))
    state = {x: settings[x] for x in ("charge", "spin") if settings[x] is not None}
    raws = [replace(raw, **state) for raw in read_file(path, keys)]
    return convert_labels(path, raws, units)
