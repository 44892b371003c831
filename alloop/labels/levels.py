"""Levels of theory: the functions that make them, short names, and checks."""

from collections.abc import Sequence
from typing import Any

from alloop.core.errors import InputError
from alloop.core.levels import Level
from alloop.core.text import nearest_word
from alloop.labels.child.labeller import IsolatedLabeller
from alloop.labels.composite import SUM, flat_parts, sum_from_name
from alloop.labels.composite import sum_level as sum_level
from alloop.labels.file_levels import model_level as model_level
from alloop.labels.file_levels import table_level as table_level
from alloop.labels.named_code import ase_level as ase_level
from alloop.labels.named_code import code_folder, path_problems
from alloop.labels.programs import PROGRAMS, outside_code
from alloop.labels.pyscf.level import has_dipole
from alloop.labels.pyscf.level import pyscf_level as pyscf_level
from alloop.labels.pyscf.spelling import FUNCTIONALS, WAVE_FUNCTIONS
from alloop.labels.toy import toy_level as toy_level
from alloop.labels.universal import universal_level as universal_level
from alloop.labels.xtb import xtb_level as xtb_level


def gives_dipoles(level: Level) -> bool:
    """Return True for a level whose labels of molecules have dipoles: HF, DFT, xTB."""
    if level.kind == "pyscf":
        return has_dipole(level.settings)
    return level.kind == "xtb"


def level_from_name(text: str) -> Level:
    """Return the level of a short name: METHOD/BASIS of PySCF, xTB, SO3LR and others.

    Examples are `hf/sto-3g`, `B3LYP-D3BJ/def2-SVP`, `ccsd(t)/cc-pVDZ`, `gfn2-xtb`,
    `spgfn2-xtb` and `so3lr`. Case does not matter, a dispersion correction is appended
    to the functional, and all other settings have their defaults. Sums of such names,
    `mp2/cc-pvtz + ccsd(t)/cc-pvdz - mp2/cc-pvdz`, are composite levels, and so are
    limits of series of basis sets, `mp2/cbs(tz-qz)`. Raises InputError for other names.
    PySCF's knowledge of method and basis is checked by `check_level`.
    """
    return _level_of(level_mapping(text))


def level_mapping(text: str) -> dict[str, Any]:
    """Return the settings of a short name, `kind` among them; InputError for others."""
    word = text.strip().lower()
    if terms := sum_from_name(word):
        parts = [{"factor": x, "level": level_mapping(name)} for x, name in terms]
        return {"kind": SUM, SUM: flat_parts(parts)}
    for program in PROGRAMS.values():
        if settings := program.read_name(word):
            return {"kind": program.kind, **settings}
    raise InputError(f"{text!r} is no level: {_spelling_advice(word)}")


def _level_of(mapping: dict[str, Any]) -> Level:
    settings = {key: value for key, value in mapping.items() if key != "kind"}
    if mapping["kind"] == SUM:
        return sum_level((x["factor"], _level_of(x["level"])) for x in settings[SUM])
    return PROGRAMS[mapping["kind"]].level(**settings)


def check_level(
    level: Level, elements: Sequence[str], within: IsolatedLabeller | None = None
) -> list[str]:
    """Return what is wrong with a level for molecules of these elements.

    Each problem is one sentence, with the nearest valid spelling. Programs are imported
    in a child process only: that of `within` if it serves this kind of level, else one
    started for this check with the same limits.
    """
    code = outside_code(level)
    if code and (unread := path_problems(code, code_folder(level))):
        return unread
    if within is not None and within.level.kind == level.kind:
        return within.labeller(level).problems(elements)
    limits = None if within is None else within.child.limits
    with IsolatedLabeller(level, limits) as child:
        return child.problems(elements)


def _spelling_advice(word: str) -> str:
    if nearest_word(word, (*WAVE_FUNCTIONS, *FUNCTIONALS), cutoff=0.9):
        return f"a method needs a basis, as in '{word}/def2-svp'"
    examples = [name for program in PROGRAMS.values() for name in program.examples]
    close = nearest_word(word, examples)
    hint = f"did you mean {close!r}?" if close else "as in 'hf/sto-3g'"
    return (
        "expected METHOD/BASIS, an xTB method, a universal potential or the path of a "
        f"YAML file, {hint}"
    )
