"""Labels by a trained alloop model, such as `alloop export --model` writes.

A network runs on torch, whose OpenMP must not share a process with that of a quantum
chemistry program. So models run in a child process under the same limits as all other
programs, and a child serves one kind of level only
(`alloop.workers.tasks`). The worker's own torch is not used, because its
threads and settings are those of the training beside it. Each frame is a batch of its
own on one thread, so that its bits do not depend on earlier frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from alloop.core.atoms import atomic_number, chemical_symbol
from alloop.core.batch import pack_frames
from alloop.core.errors import AlloopError
from alloop.core.frame import Frame
from alloop.core.records import Failure
from alloop.core.roles import Potential
from alloop.core.species import Domain
from alloop.labels.file_levels import unchanged_file
from alloop.labels.result import Refused, Result
from alloop.models.checkpoint import Checkpoint, checkpoint_from_bytes, understood
from alloop.potentials.restore import KINDS, domain, inner_checkpoint, restore_potential
from alloop.potentials.threads import torch_threads


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


def problems(settings: Mapping[str, Any], elements: Sequence[str]) -> list[str]:
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
