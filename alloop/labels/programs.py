"""The programs that alloop can label with, one record each.

A new program needs a module with its functions, a record in `PROGRAMS` and a section in
`alloop.config.sections.levels`. Functions that import the program itself are named by
their import path, as only the child process may load them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

from alloop.core.frame import Frame
from alloop.core.label_cost import UNKNOWN_COST, Cost, TypicalCost, fit_cost
from alloop.core.levels import Level, make_level
from alloop.core.records import Label
from alloop.labels import composite, file_levels, named_code, toy, universal, xtb
from alloop.labels.pyscf import level as pyscf
from alloop.labels.tolerances import EXACT, FOREIGN, Tolerances

Settings: TypeAlias = Mapping[str, Any]
Boundary: TypeAlias = Literal["molecules", "cells", "both", "unknown"]


@dataclass(frozen=True, slots=True)
class Program:
    """A program that makes labels.

    kind: its name in levels. run: import path of its function (frame, settings) ->
    Result. level: the function that makes a level of it, with all defaults. problems:
    import path of a function (settings, elements) -> list of sentences about what
    cannot work; "" if nothing can go wrong. The functions below take a level's settings
    unless they say otherwise. read_name: settings of a short name such as `hf/sto-3g`,
    None for others. examples: short names. tolerances: thresholds of the gate.
    tighter: the level with tighter thresholds, for rechecks. cost: typical cost of a
    label. boundary: the frames that it treats. stress: whether it gives the stress of
    cells, None where nobody knows beforehand. state_refusal: takes settings and a
    frame; a sentence about a charge or spin that it cannot treat. counts_electrons:
    takes a frame; True if a campaign starts from it only if charge and spin fit its
    electrons. outside_code: import path of code outside alloop that a label runs, None
    without any.
    """

    kind: str
    run: str
    level: Callable[..., Level]
    problems: str = ""
    read_name: Callable[[str], dict[str, Any] | None] = lambda _word: None
    examples: tuple[str, ...] = ()
    tolerances: Callable[[Settings], Tolerances] = lambda _settings: FOREIGN
    tighter: Callable[[Level], Level] = lambda level: level
    cost: Callable[[Settings], TypicalCost] = lambda _settings: UNKNOWN_COST
    boundary: Callable[[Settings], Boundary] = lambda _settings: "unknown"
    stress: Callable[[Settings], bool | None] = lambda _settings: None
    state_refusal: Callable[[Settings, Frame], str | None] = lambda _settings, _frame: (
        None
    )
    counts_electrons: Callable[[Frame], bool] = lambda _frame: False
    outside_code: Callable[[Settings], str | None] = lambda _settings: None


PROGRAMS: Mapping[str, Program] = {
    program.kind: program
    for program in (
        Program(
            kind="xtb",
            run="alloop.labels.xtb:label_with_xtb",
            level=xtb.xtb_level,
            problems="alloop.labels.xtb:problems",
            read_name=xtb.settings_from_name,
            examples=("gfn2-xtb", "gfn1-xtb"),
            tolerances=lambda _settings: EXACT,
            tighter=xtb.tighter_level,
            cost=lambda _settings: xtb.COST,
            boundary=lambda _settings: "both",
            stress=lambda _settings: True,
            counts_electrons=xtb.counts_electrons,
        ),
        Program(
            kind="pyscf",
            run="alloop.labels.pyscf.label:label_with_pyscf",
            level=pyscf.pyscf_level,
            problems="alloop.labels.pyscf.label:problems",
            read_name=pyscf.settings_from_name,
            examples=("hf/sto-3g", "b3lyp-d4/def2-svp", "ccsd(t)/cc-pvdz"),
            tolerances=pyscf.tolerances,
            tighter=pyscf.tighter_level,
            cost=pyscf.typical_cost,
            boundary=lambda x: "cells" if x.get("kpoints") else "molecules",
            stress=lambda x: bool(x.get("kpoints")),
            state_refusal=pyscf.state_refusal,
            counts_electrons=lambda _frame: True,
        ),
        Program(
            kind="ase",
            run="alloop.labels.ase:label_with_ase",
            level=named_code.ase_level,
            problems="alloop.labels.ase:problems",
            outside_code=named_code.calculator_code,
        ),
        Program(
            kind="table",
            run="alloop.labels.file_levels:label_with_table",
            level=file_levels.table_level,
            problems="alloop.labels.file_levels:table_problems",
        ),
        Program(
            kind="model",
            run="alloop.labels.file_levels:label_with_model",
            level=file_levels.model_level,
            problems="alloop.labels.file_levels:model_problems",
        ),
        Program(
            kind="universal",
            run="alloop.labels.universal:label_with_universal",
            level=universal.universal_level,
            problems="alloop.labels.universal:problems",
            read_name=universal.settings_from_name,
            examples=("so3lr", "ani-1x", "chgnet"),
            tolerances=lambda _settings: EXACT,
            cost=lambda _settings: universal.COST,
            boundary=universal.boundary,
            state_refusal=universal.state_refusal,
        ),
        Program(
            kind="toy",
            run="alloop.labels.toy:label_with_toy",
            level=toy.toy_level,
            stress=lambda _settings: False,
            tolerances=lambda _settings: EXACT,
        ),
        Program(
            kind=composite.SUM,
            run="alloop.labels.sum_labels:label_with_sum",
            level=composite.sum_level,
            problems="alloop.labels.sum_labels:problems",
            tolerances=lambda settings: composite.sum_tolerances(
                (factor, level_tolerances(part))
                for factor, part in composite.sum_parts(settings)
            ),
            tighter=lambda level: _tighter_sum(level),
            cost=lambda settings: composite.sum_cost(
                [program_of(x).cost(x.settings) for x in _parts(settings)]
            ),
            boundary=lambda settings: _sum_boundary(settings),
            stress=lambda settings: _sum_stress(settings),
            state_refusal=lambda settings, frame: next(
                filter(
                    None,
                    (
                        program_of(part).state_refusal(part.settings, frame)
                        for part in _parts(settings)
                    ),
                ),
                None,
            ),
            counts_electrons=lambda _frame: True,
        ),
    )
}


def program_of(level: Level) -> Program:
    """Return the program of a level.

    A kind that is not in `PROGRAMS` is itself the import path of a user's function.
    """
    kind = level.kind
    named = Program(
        kind=kind,
        run=kind,
        level=partial(make_level, kind),
        outside_code=lambda _settings: kind if ":" in kind else None,
    )
    return PROGRAMS.get(kind, named)


def outside_code(level: Level) -> str | None:
    """Return the import path of outside code that a label of this level runs.

    None if all of the code belongs to alloop or to the programs that alloop requires.
    """
    return program_of(level).outside_code(level.settings)


def level_tolerances(level: Level) -> Tolerances:
    """Return the thresholds of a level's class, overridden by its setting `gate`."""
    settings = level.settings
    return replace(program_of(level).tolerances(settings), **settings.get("gate", {}))


def level_cost(level: Level, labels: Iterable[tuple[Frame, Label]] = ()) -> Cost:
    """Return the cost of a level's labels, fitted to some, in any order."""
    return fit_cost(level.id, program_of(level).cost(level.settings), labels)


def _parts(settings: Settings) -> list[Level]:
    return [part for _, part in composite.sum_parts(settings)]


def _tighter_sum(level: Level) -> Level:
    """Return a composite level with tighter parts, under its own gate and title."""
    parts = [
        [factor, tight.kind, tight.settings]
        for factor, part in composite.sum_parts(level.settings)
        if (tight := program_of(part).tighter(part))
    ]
    new = {"parts": parts, "title": f"{level.title}, tight"}
    return make_level(level.kind, {**level.settings, **new})


def _sum_boundary(settings: Settings) -> Boundary:
    """Return the frames that all parts treat."""
    narrow = {program_of(x).boundary(x.settings) for x in _parts(settings)} - {"both"}
    if len(narrow) > 1:
        return "unknown"
    return narrow.pop() if narrow else "both"


def _sum_stress(settings: Settings) -> bool | None:
    """Return whether all parts give the stress, None where nobody knows."""
    gives = [program_of(part).stress(part.settings) for part in _parts(settings)]
    if False in gives:
        return False
    return None if None in gives else True
