"""Usual costs of labels by class of method, the starting point of every cost model.

Rounded from what ten levels cost for ten molecules of up to six heavy atoms (see
`python -m benchmarks.labels.cost_prediction`). The powers are lower than those of
theory, which hold for molecules too large to label.
"""

from dataclasses import dataclass

from alloop.core.cost_curve import Prior
from alloop.core.levels import Level

_VAGUE = (3.0, 1.0, 0.4, 0.3)


@dataclass(frozen=True, slots=True)
class Usual:
    """The usual costs of a class of methods.

    time: CPU seconds of the smallest molecule, number of basis functions at which a
    label costs twice that, power of the part that grows, factor of unpaired electrons;
    memory: the same in MB; pairs: the share of electron pairs in the size.
    """

    time: Prior
    memory: Prior
    pairs: float = 0.0


_METHODS = {
    "hf": Usual(Prior(0.02, 20, 3.5, 1.2), Prior(130, 110, 3.5, 1.2)),
    "hf df": Usual(Prior(0.02, 25, 2.8, 1.3), Prior(130, 100, 2.6, 1.2)),
    "ks": Usual(Prior(0.07, 12, 2.4, 1.5), Prior(150, 55, 1.8, 1.2)),
    "mp2": Usual(Prior(0.02, 17, 3.7, 1.2), Prior(130, 60, 3.1, 1.2)),
    "ccsd": Usual(Prior(0.1, 15, 4.2, 2.0), Prior(130, 30, 3.5, 1.5), 1 / 3),
    "ccsd(t)": Usual(Prior(0.1, 12, 5.9, 2.0), Prior(130, 17, 5.7, 1.5), 3 / 7),
    "xtb": Usual(Prior(0.002, 100, 2.5, 1.0), Prior(75, 200, 3.0, 1.0)),
    "other": Usual(Prior(0.01, 40, 2.0, 1.0, _VAGUE), Prior(100, 100, 2, 1, _VAGUE)),
}


def typical_cost(level: Level) -> Usual:
    """Return the usual costs of the level's class of methods."""
    settings = level.settings
    if level.kind != "pyscf":
        return _METHODS.get(level.kind, _METHODS["other"])
    method = str(settings.get("method"))
    if method == "hf" and settings.get("density_fit"):
        method = "hf df"
    return _METHODS.get(method, _METHODS["ks"])
