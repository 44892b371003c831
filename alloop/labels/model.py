"""Labels by a trained alloop model, such as `alloop export --model` writes.

A network runs on torch, whose OpenMP must not share a process with a program of quantum
chemistry's. So models are labelled in a child process as all else is, under the same
limits, and a child serves one kind of level only (`alloop.loop.bench`): the worker's
own torch would be nearer, but its threads and settings are those of the training
beside it. A frame is a batch of its own on one thread, so that its bits do not depend
on what came before.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from alloop.core.atoms import number, symbol
from alloop.core.batch import pack
from alloop.core.errors import AlloopError
from alloop.core.frame import Frame
from alloop.core.records import Failure
from alloop.core.roles import Potential
from alloop.labels.outcome import Refused, Result
from alloop.labels.stored import unchanged
from alloop.models.checkpoint import Checkpoint, loads, understood
from alloop.potentials.restore import KINDS, inner, restore


def label_with_model(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """The model's energy and forces; raises Refused for elements that it lacks."""
    try:
        potential = _potential(settings["path"], settings["content"])
        with _one_thread():
            said = potential.predict(pack([frame]))
    except AlloopError as error:
        raise Refused(Failure.UNSUPPORTED, str(error)) from error
    details = {"program": settings["program"]}
    return Result(float(said.energies[0]), said.forces, details)


def problems(settings: Mapping[str, Any], elements: Sequence[str]) -> list[str]:
    """What is wrong with the file, and elements that it was not trained on."""
    try:
        checkpoint = _checkpoint(settings)
        if checkpoint.kind not in KINDS:
            known = ", ".join(KINDS)
            return [f"a level's model is one of {known}, not {checkpoint.kind}"]
        known_elements = _elements(checkpoint)
    except AlloopError as error:
        return [str(error)]
    strange = [element for element in elements if number(element) not in known_elements]
    if not strange:
        return []
    trained = ", ".join(symbol(z) for z in sorted(known_elements))
    return [f"the model was trained on {trained}, it knows no {', '.join(strange)}"]


@lru_cache(maxsize=2)
def _potential(path: str, content: str) -> Potential:
    return restore(_checkpoint({"path": path, "content": content}))


def _checkpoint(settings: Mapping[str, Any]) -> Checkpoint:
    return inner(loads(unchanged(settings).read_bytes()))


def _elements(checkpoint: Checkpoint) -> set[int]:
    settings = checkpoint.settings
    with understood():
        named = "references" if "references" in settings else "elements"
        return {int(z) for z in settings[named]}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Hold torch to one thread, where the model brought it in."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
