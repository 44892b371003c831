"""Labels of composite levels: each part made and checked, then added up.

Apart from `alloop.labels.composite`, which programs read: this needs the programs.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alloop.core.doubts import KEY, doubts_of_details, doubts_to_text
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Detail
from alloop.labels.composite import sum_parts
from alloop.labels.direct import import_function, level_program
from alloop.labels.gate import refuse_result
from alloop.labels.programs import program_of
from alloop.labels.pyscf.spelling import RUNGS
from alloop.labels.result import Refused, Result

PARTS = "doubted_parts"  # among a label's details: which part raised which doubts
_TELLING = {"functions": max, "t1": max, "s2": max, "homo": max, "gap": min} | {
    key: min for key in ("internal", "external")
}


def label_with_sum(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """Return the sum of the parts' results; raise Refused if a part has none."""
    parts = sum_parts(settings)
    factors = np.array([factor for factor, _ in parts])
    results = [_part_result(frame, level) for _, level in parts]
    stresses = [x.stress for x in results if x.stress is not None]
    return Result(
        energy=float(factors @ [result.energy for result in results]),
        forces=np.tensordot(factors, [result.forces for result in results], axes=1),
        details=_sum_details([level for _, level in parts], results),
        stress=np.tensordot(factors, stresses, axes=1)
        if len(stresses) == len(parts)
        else None,
    )


def problems(settings: Mapping[str, Any], elements: Sequence[str]) -> list[str]:
    """Return a sentence for each problem of each part; empty if all are sound."""
    texts = [
        f"{level.title}: {text}"
        for _, level in sum_parts(settings)
        if (path := program_of(level).problems)
        for text in import_function(path)(level.settings, elements)
    ]
    return texts or list(_boundary_problems([x for _, x in sum_parts(settings)]))


def _boundary_problems(levels: Sequence[Level]) -> Iterator[str]:
    """Yield a sentence if no frame suits all levels."""
    by_boundary = {program_of(x).boundary(x.settings): x.title for x in levels}
    if {"molecules", "cells"} <= by_boundary.keys():
        yield (
            f"{by_boundary['molecules']} is for molecules and {by_boundary['cells']} "
            "for cells; add up levels for one of them"
        )


def _part_result(frame: Frame, level: Level) -> Result:
    """Return the result of a part; raise Refused, with the part's name, without."""
    try:
        result = level_program(level)(frame, level.settings)
        refuse_result(frame, result, level)
    except Refused as refused:
        text = f"{level.title}: {refused.message}"
        raise Refused(refused.failure, text, refused.details) from refused
    return result


def _sum_details(
    levels: Sequence[Level], results: Sequence[Result]
) -> dict[str, Detail]:
    """Return the details of a sum: of each kind the value that tells most.

    Doubts are those of all parts; the rung is that of the part whose SCF was hardest.
    """
    details = [result.details for result in results]
    numbers = {
        key: choose(values)
        for key, choose in _TELLING.items()
        if (values := _numbers(details, key))
    }
    names = [str(x["program"]) for x in details if x.get("program")]
    lost = _numbers(details, "lost_seconds")
    return {
        **_hardest_scf(details),
        **numbers,
        **({"program": ", ".join(dict.fromkeys(names))} if names else {}),
        **({"lost_seconds": sum(lost)} if lost else {}),
        **{f"energy {x.title}": r.energy for x, r in zip(levels, results, strict=True)},
        **_doubts_of_parts(levels, details),
    }


def _numbers(details: Sequence[Mapping[str, Detail]], key: str) -> list[float]:
    return [value for x in details if isinstance(value := x.get(key), int | float)]


def _hardest_scf(details: Sequence[Mapping[str, Detail]]) -> dict[str, Detail]:
    rungs = [x for x in details if x.get("rung") in RUNGS]
    if not rungs:
        return {}
    hardest = max(rungs, key=lambda x: RUNGS.index(str(x["rung"])))
    facts = {key: hardest[key] for key in ("rung", "rungs") if key in hardest}
    followed = any(x.get("followed") for x in details)
    return {**facts, **({"followed": True} if followed else {})}


def _doubts_of_parts(
    levels: Sequence[Level], details: Sequence[Mapping[str, Detail]]
) -> dict[str, Detail]:
    doubts = [doubts_of_details(x) for x in details]
    texts = [
        f"{level.title}: {doubts_to_text(signs).replace(',', ', ')}"
        for level, signs in zip(levels, doubts, strict=True)
        if signs
    ]
    union = doubts_to_text(frozenset().union(*doubts))
    return {KEY: union, **({PARTS: "; ".join(texts)} if texts else {})}
