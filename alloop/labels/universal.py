"""Labels by a universal potential as it comes, such as SO3LR: milliseconds a frame.

It runs in a child process and on one thread, as models in `alloop.labels.file_levels`
do and for the same reasons. Energies are the network's own, without those of free
atoms: differences between frames of the same atoms count. The network runs in float64,
so that forces are the gradient to the last digits.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from alloop.core.atoms import atomic_number
from alloop.core.batch import pack_frames
from alloop.core.cost_curve import Prior
from alloop.core.errors import AlloopError, InputError
from alloop.core.frame import Frame
from alloop.core.label_cost import TypicalCost
from alloop.core.levels import Level, installed_version, make_level
from alloop.core.records import Failure
from alloop.labels.result import Refused, Result
from alloop.models.checkpoint import Storable
from alloop.models.settings import NETWORKS, network_settings, pretrained
from alloop.models.universal.converted import TITLES, read_converted
from alloop.models.universal.pretrained import Pretrained
from alloop.potentials.devices import torch_threads

NAMES = {"so3lr": "SO3LR", "ani": "ANI-1x", "chgnet": "CHGNet", **TITLES}
COST = TypicalCost(Prior(0.03, 300, 1.5, 1.0), Prior(500, 2000, 1.0, 1.0))
_TRAINING = ("freeze",)  # settings of a network that only concern its training
_CELL = 60.0  # Å, the longest range in a cell


def universal_level(potential: str, **settings: Any) -> Level:
    """Return the level of a universal potential: so3lr, ani, chgnet and others.

    settings are those of the network, as under `potential:` in a campaign file. Raises
    InputError for another potential or setting.
    """
    if potential not in NAMES:
        raise InputError(
            f"expected a universal potential ({', '.join(NAMES)}), got {potential!r}"
        )
    if settings.get("path"):  # the child works in another folder
        settings["path"] = str(Path(settings["path"]).resolve())
    values = network_settings(potential, settings).values
    network = {key: value for key, value in values.items() if key not in _TRAINING}
    return make_level(
        "universal",
        {
            "title": NAMES[potential],
            "program": _program(potential, network),
            "potential": potential,
            "network": network,
        },
    )


def settings_from_name(word: str) -> dict[str, Any] | None:
    """Return the settings of a short name such as `so3lr`, None for others."""
    potential = {"ani-1x": "ani"}.get(word, word)
    return {"potential": potential} if potential in NAMES else None


def boundary(settings: Mapping[str, Any]) -> Any:
    """Return the frames that a level treats: "molecules", or "both" with cells."""
    distant = settings["network"].get("long_range", 0.0) > _CELL
    return "molecules" if distant else "both"


def state_refusal(settings: Mapping[str, Any], frame: Frame) -> str | None:
    """Return a sentence about a charge or spin that the potential cannot read."""
    return _weights(settings).state_refusal(pack_frames([frame]))


def problems(settings: Mapping[str, Any], elements: Sequence[str]) -> list[str]:
    """Return what cannot work with this level and these elements, a sentence each."""
    try:
        weights = _weights(settings)
    except InputError as error:
        return [str(error)]
    strange = weights.strange_elements([atomic_number(x) for x in elements])
    return [text for text in (weights.missing(), strange) if text]


def label_with_universal(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """Return the network's energy, forces and stress; raise Refused beyond it."""
    try:
        weights = _weights(settings)
        installed = _program(settings["potential"], settings["network"])
    except InputError as error:
        raise Refused(Failure.UNSUPPORTED, str(error)) from error
    refusal = weights.missing() or weights.refusal(pack_frames([frame]))
    if refusal is None and settings["program"] != installed:
        refusal = (
            f"this level belongs to {settings['program']}, {installed} is installed"
        )
    if refusal is not None:
        raise Refused(Failure.UNSUPPORTED, refusal)
    try:
        potential = universal_potential(settings)
        with torch_threads(1):
            predicted = potential.predict(pack_frames([frame]))
    except AlloopError as error:
        raise Refused(Failure.UNSUPPORTED, str(error)) from error
    stress = None if predicted.stress is None else predicted.stress[0]
    if stress is not None and not np.isfinite(stress).all():
        stress = None  # not periodic in all directions
    details = {"program": settings["program"]}
    return Result(float(predicted.energies[0]), predicted.forces, details, stress)


def universal_potential(settings: Mapping[str, Any]) -> Storable:
    """Return the potential of a level's settings; it checks no charge and spin."""
    network = json.dumps(settings["network"], sort_keys=True)
    return _potential(settings["potential"], network)


@lru_cache(maxsize=2)
def _potential(kind: str, settings: str) -> Storable:
    import torch

    from alloop.models.network import build_network
    from alloop.potentials.learned import LearnedPotential

    network = build_network(kind, json.loads(settings), dtype=torch.float64)
    weights = network_settings(kind, json.loads(settings)).weights
    assert weights is not None, f"{NETWORKS[kind]} has no weights"
    nothing = dict.fromkeys(weights.elements, 0.0)
    return LearnedPotential(network, nothing | network.references)


def _weights(settings: Mapping[str, Any]) -> Pretrained:
    potential = settings["potential"]
    weights = network_settings(potential, settings["network"]).weights
    assert weights is not None, f"{NETWORKS[potential]} has no weights"
    return weights


def _program(potential: str, network: Mapping[str, Any]) -> str:
    """Return the program and version of the weights; of a file its name and hash."""
    if network.get("path"):
        model = read_converted(network["path"]).settings
        return f"{model['source']} {model['sha256'][:16]}"
    weights = pretrained(potential)
    assert weights is not None, f"{NETWORKS[potential]} has no weights"
    return installed_version(weights.distribution)
