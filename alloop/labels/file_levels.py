"""Levels that are files: tables of labelled frames, and trained alloop models.

They are identified by a hash of their content, not their path.

A network runs on torch, whose OpenMP must not share a process with that of a quantum
chemistry program. So models run in a child process under the same limits as all other
programs, and a child serves one kind of level only (`alloop.workers.tasks`). The
worker's own torch is not used, because its threads and settings are those of the
training beside it. Each frame is a batch of its own on one thread, so that its bits do
not depend on earlier frames.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from alloop.core.atoms import atomic_number, chemical_symbol, hill_formula
from alloop.core.batch import pack_frames
from alloop.core.errors import AlloopError, InputError
from alloop.core.frame import Frame, FrameId
from alloop.core.levels import Level, installed_version, make_level
from alloop.core.records import Failure
from alloop.core.roles import Potential
from alloop.core.species import Domain
from alloop.files.labelled_frames import (
    FileUnits,
    LabelKeys,
    LabelledFrame,
    LabelledFrames,
    distinct_frames,
)
from alloop.labels.result import Refused, Result
from alloop.models.checkpoint import Checkpoint, checkpoint_from_bytes, understood
from alloop.potentials.devices import torch_threads
from alloop.potentials.restore import KINDS, domain, inner_checkpoint, restore_potential


def table_level(  # noqa: PLR0913 - one keyword for each fact a file cannot say
    path: str | Path,
    *,
    content: str | None = None,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    force_unit: str | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    charge: int | None = None,
    spin: int | None = None,
) -> Level:
    """Return a level whose labels are stored in a file: extxyz, ASE database or npz.

    A frame is found by its id, the hash of its content. content: the hash of the file,
    computed from the file if not given; it identifies the level, the path only locates
    the file. Units default to eV and Å for files that ASE reads and must be given for
    an npz. charge and spin (2S) of every frame default to those in the file, then to 0.
    Raises InputError for a missing file, an unknown unit and an npz without units.
    """
    file = Path(path).absolute()
    if file.suffix == ".npz" and not (energy_unit and length_unit):
        raise InputError(
            "an npz does not say what its numbers mean: give the table's `energy_unit` "
            "and `length_unit`"
        )
    units = FileUnits(energy_unit or "eV", length_unit or "angstrom", force_unit or "")
    settings = {
        "content": content or file_content(file),
        "path": str(file),
        "energy_unit": units.energy,
        "length_unit": units.length,
        "force_unit": units.force,
        "energy_key": energy_key,
        "forces_key": forces_key,
        "charge": charge,
        "spin": spin,
    }
    return make_level("table", settings)


def model_level(
    path: str | Path, *, content: str | None = None, outside: bool = False
) -> Level:
    """Return a level of a trained alloop model, as `alloop export --model` writes it.

    content: the hash of the file, computed from the file if not given; it identifies
    the level, the path only locates the file. outside: label also charges, spins and
    compositions that the model was not trained on. Raises InputError if the file is
    missing.
    """
    file = Path(path).absolute()
    settings: dict[str, Any] = {"outside": True} if outside else {}
    settings |= {
        "program": f"{installed_version('alloop')}, {installed_version('torch')}",
        "content": content or file_content(file),
        "path": str(file),
    }
    return make_level("model", settings)


def file_content(path: Path) -> str:
    """Return `sha256:` and 32 hexadecimal digits of the hash of a file's bytes.

    Raises InputError if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            # The prefix also keeps YAML from reading 12e34 as a number.
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}"
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path} cannot be read: {reason}") from error


def unchanged_file(settings: Mapping[str, Any]) -> Path:
    """Return the file of a level; InputError if it is missing or has changed."""
    path = Path(settings["path"])
    if file_content(path) != settings["content"]:
        raise InputError(
            f"{path} has changed since this level was described; bring the old file "
            "back, or begin another campaign with the new one"
        )
    return path


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


def table_problems(settings: Mapping[str, Any], elements: Sequence[str]) -> list[str]:
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
    from alloop.files.label_files import convert_labels, read_file  # scipy, slow

    path = unchanged_file(settings)
    keys = LabelKeys(settings["energy_key"], settings["forces_key"])
    names = ("energy_unit", "length_unit", "force_unit")
    units = FileUnits(*(settings[name] for name in names))
    state = {x: settings[x] for x in ("charge", "spin") if settings[x] is not None}
    raws = [replace(raw, **state) for raw in read_file(path, keys)]
    return convert_labels(path, raws, units)


def label_with_model(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """Return the model's energy and forces; raise Refused outside its training."""
    try:
        model = _model(settings["path"], settings["content"])
        if model.domain is not None and not settings.get("outside"):
            model.domain.require(pack_frames([frame]))
        with torch_threads(1):
            predicted = model.potential.predict(pack_frames([frame]))
    except AlloopError as error:
        raise Refused(Failure.UNSUPPORTED, str(error)) from error
    details = {"program": settings["program"]}
    stress = None if predicted.stress is None else predicted.stress[0]
    if stress is not None and not np.isfinite(stress).all():
        stress = None  # not periodic in all directions
    return Result(float(predicted.energies[0]), predicted.forces, details, stress)


def model_problems(settings: Mapping[str, Any], elements: Sequence[str]) -> list[str]:
    """Return what is wrong with the file, and the elements it was not trained on."""
    try:
        checkpoint = _load_checkpoint(settings)
        if checkpoint.kind not in KINDS:
            kinds = ", ".join(KINDS)
            return [f"a level's model is one of {kinds}, not {checkpoint.kind}"]
        known_elements = _trained_elements(checkpoint)
    except AlloopError as error:
        return [str(error)]
    strange = [
        element for element in elements if atomic_number(element) not in known_elements
    ]
    if not strange:
        return []
    trained = ", ".join(chemical_symbol(z) for z in sorted(known_elements))
    return [f"the model was trained on {trained}, it knows no {', '.join(strange)}"]


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """A potential and its training domain, None if the file does not store one."""

    potential: Potential
    domain: Domain | None


@lru_cache(maxsize=2)
def _model(path: str, content: str) -> _Model:
    outer = checkpoint_from_bytes(
        unchanged_file({"path": path, "content": content}).read_bytes()
    )
    return _Model(restore_potential(inner_checkpoint(outer)), domain(outer))


def _load_checkpoint(settings: Mapping[str, Any]) -> Checkpoint:
    return inner_checkpoint(
        checkpoint_from_bytes(unchanged_file(settings).read_bytes())
    )


def _trained_elements(checkpoint: Checkpoint) -> set[int]:
    settings = checkpoint.settings
    with understood():
        named = "references" if "references" in settings else "elements"
        return {int(z) for z in settings[named]}
