"""Conversion of a foreign model file to one of alloop: once, knowingly, by the user."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from alloop.core.errors import InputError
from alloop.files.targets import MODELS, refuse_target, replace_atomically
from alloop.models.checkpoint import Checkpoint, checkpoint_to_bytes

_PICKLE = (
    "is a pickle, and opening one runs whatever code it holds: convert only files from "
    "where you would install a program"
)
_KNOWN = (  # names of published files, and their licences
    (r"maceles-?off", "CC BY-NC"),
    (r"off-?2[34]|omat|omol|matpes", "ASL"),
    (r"mace[-_]?mp|mpa-?0|MPtrj|agnesi|2023-?12-?(03|10)-?mace-?128", "MIT"),
    (r"checkpoint_(sevennet|l3i5)", "MIT"),
)
_FORBIDDING = r"\bASL\b|academic|\bNC\b|non-?commercial"


def convert_model(
    source: Path,
    out: Path,
    licence: str | None = None,
    *,
    force: bool = False,
    warn: Callable[[str], object] = str,
) -> Mapping[str, Any]:
    """Convert a foreign file to a model file; return what describes its network.

    source: a file of mace-torch or sevenn, or the name of weights that sevenn comes
    with. licence: name of the licence of the weights, by default recognised by the name
    of a published file. Opens a pickle of mace-torch, which runs its code, after a call
    of `warn` with a sentence on that; a checkpoint of sevenn runs none. Raises
    InputError where that fails, for unknown licences, and for networks that alloop has
    not.
    """
    from alloop.models.universal.mace_conversion import mace_checkpoint
    from alloop.models.universal.sevennet_conversion import (
        PUBLISHED,
        open_checkpoint,
        published_checkpoint,
        sevennet_checkpoint,
    )

    refuse_target(out, MODELS, force=force)
    file = published_checkpoint(str(source)) or source
    if not file.is_file():
        raise InputError(
            f"expected a file of MACE or SevenNet, {file} is not there; give its path, "
            f"or one of sevenn's names: {', '.join(PUBLISHED)}"
        )
    terms = _licence(file, licence)
    data = open_checkpoint(file)
    if data is None:
        warn(f"{file} {_PICKLE}")
        checkpoint = mace_checkpoint(file, terms)
    else:
        checkpoint = sevennet_checkpoint(file, data, terms)
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
