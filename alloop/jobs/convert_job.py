"""Conversion of a foreign model file to one of alloop: once, knowingly, by the user."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from alloop.core.errors import InputError
from alloop.files.targets import MODELS, refuse_target, replace_atomically
from alloop.models.checkpoint import Checkpoint, checkpoint_to_bytes

PICKLE = (
    "is a pickle, and opening one runs whatever code it holds: convert only files from "
    "where you would install a program"
)
_KNOWN = (  # names of published files, and their licences
    (r"maceles-?off", "CC BY-NC"),
    (r"off-?2[34]|omat|omol|matpes", "ASL"),
    (r"mace[-_]?mp|mpa-?0|MPtrj|agnesi|2023-?12-?(03|10)-?mace-?128", "MIT"),
)
_FORBIDDING = r"\bASL\b|academic|\bNC\b|non-?commercial"


def convert_model(
    source: Path, out: Path, licence: str | None = None, *, force: bool = False
) -> Mapping[str, Any]:
    """Convert a file of mace-torch to a model file; return what describes its network.

    licence: name of the licence of the weights, by default recognised by the name of a
    published file. Opens a pickle, which runs its code. Raises InputError where that
    fails, for unknown licences, and for networks that alloop has not.
    """
    from alloop.models.universal.mace_conversion import mace_checkpoint

    refuse_target(out, MODELS, force=force)
    if not source.is_file():
        raise InputError(f"expected a MACE file, {source} is not there; give its path")
    checkpoint = mace_checkpoint(source, _licence(source, licence))
    settings = {
        "potential": checkpoint.settings,
        "scored": False,
        "threshold": None,
        "facts": {},
    }
    model_file: Checkpoint = replace(checkpoint, settings=settings)
    with replace_atomically(out) as partial:
        partial.write_bytes(checkpoint_to_bytes(model_file))
    model: Mapping[str, Any] = checkpoint.settings["network"]["model"]
    return model


def _licence(source: Path, name: str | None) -> dict[str, Any]:
    if name is None:
        matches = (x for pattern, x in _KNOWN if re.search(pattern, source.name, re.I))
        name = next(matches, None)
    if not (name and name.strip()):
        raise InputError(
            f"expected the licence of the weights, which the name {source.name} does "
            "not tell; add `--licence MIT`, or `--licence ASL` where commercial use is "
            "forbidden, as of MACE-OFF, OMAT and OMOL"
        )
    forbids = re.search(_FORBIDDING, name, re.I) is not None
    return {"name": name.strip(), "non_commercial": forbids}
