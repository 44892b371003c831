"""Composite levels: sums of other levels with a factor each, and their names.

Nothing is made here: `alloop.labels.sum_labels` makes the labels, in the child process.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from math import exp, isfinite, log
from typing import Any, TypeAlias

from alloop.core.cost_curve import Prior
from alloop.core.errors import InputError
from alloop.core.label_cost import UNKNOWN_COST, TypicalCost
from alloop.core.levels import (
    ENERGIES,
    Level,
    energy_level,
    gives_forces,
    make_level,
)
from alloop.labels.tolerances import Tolerances

SUM = "sum"  # the kind of a composite level, and the key of its parts in a file
Part: TypeAlias = tuple[float, Level]  # factor, level

_WHOLE = 1e-6  # deviation of the sum of factors from 1: digits of a written factor
_SIZES = (30.0, 150.0)  # functions at which the typical cost is that of all parts
_ZETA = {"dz": 2, "tz": 3, "qz": 4, "5z": 5}
_LIMIT = re.compile(r"(\S+)/(aug-)?cbs\(\s*(\w+)\s*[,-]\s*(\w+)\s*\)")
_CORRELATED = ("mp2", "ccsd", "ccsd(t)")


def sum_level(parts: Iterable[Part]) -> Level:
    """Return the level whose energy and forces are sums of those of its parts.

    It has no forces if a part has none. A level that stands twice counts once, with
    the sum of its factors. Raises InputError if a factor is not finite or if they do
    not add up to 1.
    """
    factors: dict[Level, float] = {}
    for factor, level in parts:
        factors[level] = factors.get(level, 0.0) + factor
    terms = [(factor, level) for level, factor in factors.items() if factor]
    total = sum(factor for factor, _ in terms)
    if not isfinite(total) or abs(total - 1) > _WHOLE:
        raise InputError(
            "expected factors that add up to 1, as energies of one molecule do, got "
            f"{total:g}; write `minus:` before a level that is taken off"
        )
    settings = {
        "title": _sum_title(terms),
        "parts": [[factor, level.kind, level.settings] for factor, level in terms],
    }
    level = make_level(SUM, settings)
    has_forces = all(part.has_forces for _, part in terms)
    return level if has_forces else energy_level(level)


def sum_parts(settings: Mapping[str, Any]) -> list[Part]:
    """Return the factors and levels of a composite level's settings.

    Parts of a sum without forces need none.
    """
    parts = [(factor, make_level(kind, x)) for factor, kind, x in settings["parts"]]
    if gives_forces(settings):
        return parts
    return [(factor, energy_level(part)) for factor, part in parts]


def plain_levels(level: Level) -> list[Level]:
    """Return the parts of a composite level; a list of the level itself for others."""
    if level.kind != SUM:
        return [level]
    return [part for _, part in sum_parts(level.settings)]


def sum_from_name(word: str) -> list[tuple[float, str]] | None:
    """Return factors and short names of `a + b - c` or `mp2/cbs(tz-qz)`, or None.

    Signs stand between blanks; a comma in a limit does as well as a dash. Raises
    InputError for a limit that is not extrapolated.
    """
    first, *others = re.split(r"\s+([+-])\s+", word.strip())
    if others:
        names = zip(others[::2], others[1::2], strict=True)
        signed = [(1.0 if sign == "+" else -1.0, name) for sign, name in names]
        return [(1.0, first), *signed]
    limit = _LIMIT.fullmatch(word.strip())
    return None if limit is None else _extrapolation(word, *limit.groups())


def flat_parts(parts: Iterable[Any]) -> list[Any]:
    """Return mappings of `factor` and `level` with those of sums among the levels.

    Whatever is no such mapping stays as it is.
    """
    flat: list[Any] = []
    for part in parts:
        level = part.get("level") if isinstance(part, Mapping) else None
        factor = part.get("factor") if isinstance(part, Mapping) else None
        inner = level.get(SUM) if isinstance(level, Mapping) else None
        if not isinstance(inner, list) or not isinstance(factor, int | float):
            flat.append(part)
            continue
        for term in flat_parts(inner):
            if isinstance(term, Mapping) and "factor" in term:
                flat.append({**term, "factor": factor * term["factor"]})
            else:
                flat.append(term)
    return flat


def sum_tolerances(parts: Iterable[tuple[float, Tolerances]]) -> Tolerances:
    """Return the thresholds of a sum's forces: errors of its parts add up."""
    pairs = [(abs(factor), limits) for factor, limits in parts]
    return Tolerances(
        closest=max(limits.closest for _, limits in pairs),
        net_force=sum(factor * limits.net_force for factor, limits in pairs),
        torque=sum(factor * limits.torque for factor, limits in pairs),
        force=max(limits.force for _, limits in pairs),
    )


def sum_cost(costs: Sequence[TypicalCost]) -> TypicalCost:
    """Return the typical cost of a sum: times add up, and the largest memory counts.

    Unknown if that of a part is. A sum of power laws is none: the times are those of
    all parts at two sizes and follow a power law between and beyond.
    """
    if UNKNOWN_COST in costs:
        return UNKNOWN_COST
    large = _SIZES[-1]
    dear = max(costs, key=lambda x: _growth(x.time, large))
    memory = max((x.memory for x in costs), key=lambda x: x.base + _growth(x, large))
    base = sum(x.time.base for x in costs)
    low, high = (sum(_growth(x.time, size) for x in costs) / base for size in _SIZES)
    power = log(high / low) / log(_SIZES[1] / _SIZES[0])
    crossing = exp(log(large) - log(high) / power)
    total = sum(_at(x.time, large) for x in costs)
    open_shell = sum(_at(x.time, large) * x.time.open_shell for x in costs) / total
    return TypicalCost(Prior(base, crossing, power, open_shell), memory, dear.pairs)


def _at(prior: Prior, size: float) -> float:
    return prior.base + _growth(prior, size)


def _growth(prior: Prior, size: float) -> float:
    """Return the part of a cost that grows with size, at a size."""
    return float(prior.base * (size / prior.crossing) ** prior.power)


def _sum_title(parts: Sequence[Part]) -> str:
    """Return `MP2/cc-pVTZ + CCSD(T)/cc-pVDZ - MP2/cc-pVDZ`."""
    (first, level), *others = parts
    lead = "-" if first < 0 else ""
    return f"{lead}{_term(first, level)}" + "".join(
        f" {'-' if factor < 0 else '+'} {_term(factor, level)}"
        for factor, level in others
    )


def _term(factor: float, level: Level) -> str:
    size, title = abs(factor), level.title.removesuffix(ENERGIES)
    return title if size == 1 else f"{size:.4g} {title}"


def _extrapolation(
    word: str, method: str, prefix: str | None, low: str, high: str
) -> list[tuple[float, str]]:
    """Return the parts of the limit of a series of basis sets, from two of them.

    The correlation energy follows the inverse cube of the cardinal number (Helgaker et
    al., J. Chem. Phys. 106, 9639 (1997)); the Hartree-Fock energy is that of the larger
    set.
    """
    if method not in _CORRELATED or _ZETA.get(low, 9) >= _ZETA.get(high, 0):
        raise InputError(
            f"{word!r} is no limit of a series of basis sets that is extrapolated: "
            "expected mp2, ccsd or ccsd(t) and two of dz, tz, qz and 5z, the smaller "
            "first, as in 'mp2/cbs(tz-qz)'"
        )
    small, large = _ZETA[low] ** 3, _ZETA[high] ** 3
    weight, rest = large / (large - small), small / (large - small)
    names = [f"{prefix or ''}cc-pv{zeta}" for zeta in (low, high)]
    terms = [(weight, method, names[1]), (-rest, method, names[0])]
    terms += [(1 - weight, "hf", names[1]), (rest, "hf", names[0])]
    return [(factor, f"{name}/{basis}") for factor, name, basis in terms]
