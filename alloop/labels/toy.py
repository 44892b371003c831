"""A cheap analytic potential in place of quantum chemistry, for trials and tests.

E = sum_{i<j} D [(1 - exp(-a (r_ij - r_0)))^2 - 1] + offset * atoms, with D, a and r_0
by pair of elements (P. M. Morse, Phys. Rev. 34, 57 (1929)). The H-H pair is a soft
spring at the distance in water, which stabilises the angle. Two toy levels differ by a
smooth bias, as two real levels do.
"""

import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from ase.data import covalent_radii

from alloop.core.atoms import chemical_symbol
from alloop.core.frame import Frame
from alloop.core.levels import Level, make_level
from alloop.core.records import Failure
from alloop.core.units import Floats
from alloop.labels.result import Refused, Result

# D in eV, a in 1/Å, r_0 in Å
PAIRS: dict[str, tuple[float, float, float]] = {
    "H-H": (0.6, 1.5, 1.52),
    "H-O": (5.0, 2.2, 0.96),
    "C-H": (4.5, 1.9, 1.09),
    "C-O": (5.0, 2.0, 1.42),
    "C-C": (4.0, 1.9, 1.53),
}


def toy_level(
    *,
    stiffness: float = 1.0,
    stretch: float = 0.0,
    offset: float = 0.0,
    burn: float = 0.0,
    fail_above: float | None = None,
) -> Level:
    """Return a toy level.

    stiffness scales every well; stretch (Å) lengthens every bond; offset in eV per
    atom; burn: CPU seconds to spend on each label; fail_above: a frame with a pair
    farther apart than this (Å) does not "converge".
    """
    settings = {
        "title": f"toy {stiffness:g}/{stretch:g}",
        "program": f"alloop {version('alloop')}",
        "stiffness": stiffness,
        "stretch": stretch,
        "offset": offset,
        "burn": burn,
        "fail_above": fail_above,
        "fault": "",  # no setting any more, but part of the ids of levels in stores
    }
    return make_level("toy", settings)


def label_with_toy(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """Return energy and forces of the Morse pairs; raise Refused above `fail_above`."""
    _burn_cpu(settings["burn"])
    i, j = np.triu_indices(len(frame), k=1)
    apart = frame.positions[j] - frame.positions[i]  # (pairs, 3) Å
    r = np.linalg.norm(apart, axis=1)  # (pairs,) Å
    limit = settings["fail_above"]
    if limit is not None and r.max(initial=0.0) > limit:
        raise Refused(
            Failure.NOT_CONVERGED, f"a pair is {r.max():.2f} Å apart, limit {limit:g}"
        )
    D, a, r0 = _pair_parameters(frame, settings)
    e = np.exp(-a * (r - r0))
    energy = float((D * ((1 - e) ** 2 - 1)).sum()) + settings["offset"] * len(frame)
    slope = 2 * D * a * e * (1 - e)  # dE/dr (pairs,) eV/Å
    pull = (slope / r)[:, None] * apart  # on i, towards j
    forces = np.zeros((len(frame), 3))
    np.add.at(forces, i, pull)
    np.add.at(forces, j, -pull)
    return Result(energy, forces, {"program": "toy"})


def _pair_parameters(
    frame: Frame, settings: Mapping[str, Any]
) -> tuple[Floats, Floats, Floats]:
    n = len(frame)
    rows = [
        _element_pair(int(frame.numbers[i]), int(frame.numbers[j]))
        for i in range(n)
        for j in range(i + 1, n)
    ]
    D, a, r0 = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return D * settings["stiffness"], a, r0 + settings["stretch"]


def _element_pair(z1: int, z2: int) -> tuple[float, float, float]:
    name = "-".join(sorted((chemical_symbol(z1), chemical_symbol(z2))))
    radii = float(covalent_radii[z1] + covalent_radii[z2])  # Å
    return PAIRS.get(name, (3.0, 2.0, radii))


def _burn_cpu(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
