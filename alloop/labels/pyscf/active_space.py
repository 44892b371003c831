"""The active space of a CASSCF or NEVPT2 level, as it is named; without PySCF.

Apart from `level`, which every level passes: what is asked of a space, and of frames
that it is to fit, is a topic of its own.
"""

import re
from collections.abc import Mapping
from math import comb
from typing import Any

from alloop.core.atoms import hill_formula
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.text import nearest_word

ACTIVE_SPACE = "active_space"  # a setting of the levels that have one
LARGEST = 12  # orbitals: 853,776 determinants of 12 electrons, minutes and gigabytes
_NUMBERS = ("electrons", "orbitals")
_CHOICES = ("indices", "atomic_orbitals")
_SHELL = re.compile(r"(?:\d+ )?([A-Z][a-z]?) \d[spdfg]")


def checked_space(method: str, space: Any) -> dict[str, Any]:
    """Return an active space with the keys that it names; InputError if impossible.

    space: a mapping of electrons and orbitals, and of one of indices (of the mean
    field's orbitals, from 0) and atomic_orbitals (shells such as "N 2p", or "0 N 2p" of
    atom 0) or neither: the orbitals on both sides of the gap.
    """
    if not isinstance(space, Mapping):
        raise InputError(
            f"{method} needs `active_space: {{electrons: 6, orbitals: 6}}`, or a name "
            f"such as '{method}(6,6)/cc-pvdz', got {space!r}"
        )
    for key in space:
        if key not in (*_NUMBERS, *_CHOICES):
            close = nearest_word(str(key), (*_NUMBERS, *_CHOICES))
            hint = f"did you mean {close!r}?" if close else ", ".join(_NUMBERS)
            raise InputError(f"an active space has no {key!r}; {hint}")
    new: dict[str, Any] = {key: _count(key, space.get(key)) for key in _NUMBERS}
    new |= {key: list(space[key]) for key in _CHOICES if space.get(key)}
    if problem := _space_problem(new):
        raise InputError(problem)
    return new


def active_electrons(space: Mapping[str, Any], spin: int) -> tuple[int, int]:
    """Return the active electrons of either spin; spin: 2S of the frame."""
    electrons = space["electrons"]
    return (electrons + spin) // 2, (electrons - spin) // 2


def determinants(space: Mapping[str, Any]) -> int:
    """Return the number of determinants of a space, with the lowest spin."""
    alpha, beta = active_electrons(space, space["electrons"] % 2)
    return comb(space["orbitals"], alpha) * comb(space["orbitals"], beta)


def space_name(space: Mapping[str, Any]) -> str:
    """Return a space as the field writes it: `(6,6)`, electrons and orbitals."""
    return f"({space['electrons']},{space['orbitals']})"


def chosen_orbitals(space: Mapping[str, Any]) -> str:
    """Return what the orbitals are chosen by, for a title; "" for those by the gap."""
    if "indices" in space:
        return f"orbitals {' '.join(map(str, space['indices']))}"
    return ", ".join(space.get("atomic_orbitals", ()))


def shell_element(shell: str) -> str:
    """Return the element of a shell such as `N 2p` or `0 N 2p`."""
    match = _SHELL.fullmatch(shell)
    return match.group(1) if match else shell


def space_refusal(space: Mapping[str, Any], frame: Frame) -> str | None:
    """Return why a space does not fit a frame's electrons and spin, or None."""
    name, formula = space_name(space), hill_formula(frame)
    electrons, orbitals = space["electrons"], space["orbitals"]
    total = int(frame.numbers.sum()) - frame.charge
    if electrons > total:
        return f"{formula} has {total} electrons, fewer than the active space {name}"
    if (electrons - frame.spin) % 2:
        kind = "an odd" if frame.spin % 2 else "an even"
        return (
            f"{formula} with spin {frame.spin} (2S) needs {kind} number of active "
            f"electrons, got {electrons} in the active space {name}"
        )
    alpha, beta = active_electrons(space, frame.spin)
    if beta < 0 or alpha > orbitals:
        return (
            f"{formula} with spin {frame.spin} (2S) needs an active space with as many "
            f"unpaired electrons, {name} cannot have them"
        )
    atoms = [int(x.split()[0]) for x in space.get("atomic_orbitals", ()) if x[0] < "A"]
    if atoms and max(atoms) >= len(frame):
        return f"{formula} has atoms 0 to {len(frame) - 1}, got {max(atoms)} in {name}"
    return None


def _count(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(
            f"expected `{key}` of the active space to be a whole number from 1 on, got "
            f"{value!r}"
        )
    return value


def _space_problem(space: Mapping[str, Any]) -> str | None:
    electrons, orbitals = space["electrons"], space["orbitals"]
    name = space_name(space)
    if orbitals > LARGEST:
        return (
            f"expected at most {LARGEST} active orbitals, got {orbitals}: the cost "
            "grows with the number of determinants; leave some out"
        )
    if electrons >= 2 * orbitals:
        most = 2 * orbitals - 1
        return (
            f"expected 1 to {most} electrons in {orbitals} active orbitals, which "
            f"{2 * orbitals} fill, got {electrons}; change one of the numbers"
        )
    if len(space.keys() & {*_CHOICES}) == 2:
        return "expected `indices` or `atomic_orbitals`, got both; leave one out"
    indices = space.get("indices", ())
    if indices and _are_wrong_indices(indices, orbitals):
        return (
            f"expected `indices` of {orbitals} different orbitals, counted from 0, for "
            f"the active space {name}, got {indices}"
        )
    return next(map(_shell_problem, _wrong_shells(space)), None)


def _are_wrong_indices(indices: list[Any], orbitals: int) -> bool:
    whole = all(isinstance(x, int) and x >= 0 for x in indices)
    return not whole or len(set(indices)) != len(indices) or len(indices) != orbitals


def _wrong_shells(space: Mapping[str, Any]) -> list[Any]:
    shells = space.get("atomic_orbitals", ())
    return [x for x in shells if not (isinstance(x, str) and _SHELL.fullmatch(x))]


def _shell_problem(shell: Any) -> str:
    why = "; a part of a shell would turn with the molecule" if _is_part(shell) else ""
    return (
        "expected whole shells such as 'N 2p', or '0 N 2p' of atom 0, as "
        f"`atomic_orbitals`, got {shell!r}{why}"
    )


def _is_part(shell: Any) -> bool:
    return isinstance(shell, str) and bool(re.match(r"(\d+ )?\w+ \d[spdfg].", shell))
