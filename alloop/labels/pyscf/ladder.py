"""A ladder of methods to converge a mean field to a minimum rather than a saddle.

The first rung is trusted where the gap is wide (see `alloop.labels.pyscf.doubts`); on
every other rung, and where the gap is small, the solution is checked for internal
stability. An instability is followed downhill; if the solution stays unstable, the next
rung is tried. If an earlier rung failed, if an instability was followed, if d or f
shells may be open, or if an open shell has a narrow gap, solutions from other starts
are computed as well and the lowest of all is kept, since any start alone may end some
eV above the others. If these solutions differ such that forces may jump between frames,
the label's details say that solutions compete.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf.data.elements import charge

from alloop.core.records import Detail, Failure
from alloop.core.units import BOHR, HARTREE, Floats
from alloop.labels.pyscf import stability
from alloop.labels.pyscf.doubts import SIGNS, internal_doubtful, narrow
from alloop.labels.pyscf.scf import (
    Settings,
    homo_lumo_gap,
    mean_field,
    run_scf,
    scf_gradient,
)
from alloop.labels.pyscf.spelling import RUNGS
from alloop.labels.result import Refused

_OTHER_GUESSES = ("atom", "1e")
_MORE_GUESSES = ("huckel",)  # for open d and f shells
_FOLLOWED = 4  # times that an instability is followed at most
_OPEN_BLOCKS = ((21, 29), (39, 47), (57, 79), (89, 111))  # atomic numbers, d and f
_MIXED = 0.6  # radian, between the frontier orbitals of a mixed start


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """A solution of the mean field.

    internal: its lowest curvature (hartree), None if it was not checked; followed: the
    number of saddles from which it was led downhill; saddle: the last of them.
    """

    mf: Any
    internal: float | None = None
    followed: int = 0
    saddle: Any | None = None

    @property
    def is_stable(self) -> bool:
        """True if it has converged and no rotation is known to lower its energy."""
        saddle = self.internal is not None and self.internal < SIGNS.unstable
        return bool(self.mf.converged and not saddle)


def converged_scf(mol: Any, settings: Settings) -> tuple[Any, dict[str, Detail]]:
    """Return the mean field of the first rung that gives a minimum, and its details.

    Raises Refused: UNSTABLE if a rung converged to a saddle, else NOT_CONVERGED.
    """
    ladder, last, saddle = settings["ladder"], None, False
    started = lost = time.process_time()
    for at, rung in enumerate(ladder, 1):
        tries = _TRIES[rung](mol, settings, last)
        solutions = [_settle_solution(mf, settings, rung) for mf in tries]
        if _wants_rivals(mol, settings, solutions, rung):
            for mf in _rival_solutions(mol, settings):
                twin = _twin(mf, solutions)
                solutions.append(twin or _settle_solution(mf, settings, RUNGS[-1]))
        details: dict[str, Detail] = {"rung": rung, "rungs": ",".join(ladder[:at])}
        details["lost_seconds"] = lost - started
        stable = [solution for solution in solutions if solution.is_stable]
        if stable:
            best, *others = sorted(stable, key=lambda solution: solution.mf.e_tot)
            apart = _apart(best, others, settings)
            return best.mf, details | _rival_details(best, others) | apart
        last, lost = solutions[-1].mf, time.process_time()
        saddle = saddle or any(solution.mf.converged for solution in solutions)
    raise _refusal(saddle, details | {"lost_seconds": lost - started}, last)


def _settle_solution(mf: Any, settings: Settings, rung: str) -> Solution:
    """Return the solution, checked if needed and led downhill while it is a saddle."""
    if not mf.converged or not (rung != RUNGS[0] or internal_doubtful(mf, settings)):
        return Solution(mf)
    saddle = None
    for followed in range(_FOLLOWED + 1):
        curvature = stability.internal_curvature(mf, SIGNS.unstable)
        if curvature is None:
            break
        value, rotation = curvature
        if value > SIGNS.unstable or followed == _FOLLOWED:
            break
        lower = _follow_both_sides(mf, settings, rotation)
        if lower is None:
            break
        mf, saddle = lower, mf
    lowest = None if curvature is None else curvature[0]
    return Solution(mf, lowest, followed, saddle)


def _twin(mf: Any, solutions: list[Solution]) -> Solution | None:
    """Return the minimum that the open-shell `mf` has also reached, or None.

    Such a solution needs no check of its own.
    """
    if not mf.converged or not (mf.mol.spin or open_block(mf.mol)):
        return None
    stable = [solution for solution in solutions if solution.is_stable]
    off = [abs(float(mf.e_tot - twin.mf.e_tot)) * HARTREE for twin in stable]
    return next((s for s, x in zip(stable, off, strict=True) if x < SIGNS.equal), None)


def _follow_both_sides(mf: Any, settings: Settings, rotation: Floats) -> Any | None:
    """Return the lower of the solutions on both sides of the saddle `mf`, or None."""
    sides = [_lead_downhill(mf, settings, side * rotation) for side in (1.0, -1.0)]
    solutions = [solution for solution in sides if solution is not None]
    return min(solutions, key=lambda solution: float(solution.e_tot), default=None)


def _lead_downhill(mf: Any, settings: Settings, rotation: Floats) -> Any | None:
    """Return a solution below the saddle `mf`, by DIIS or Newton steps, or None."""
    orbitals = stability.rotate_downhill(mf, rotation)
    fresh = mean_field(mf.mol, settings)
    run_scf(fresh, settings, mf.make_rdm1(orbitals, mf.mo_occ))
    if _is_below(fresh, mf):
        return fresh
    solver = _newton_solution(mf.mol, settings, (orbitals, mf.mo_occ))
    return solver if _is_below(solver, mf) else None


def _is_below(mf: Any, saddle: Any) -> bool:
    """Return True if `mf` has converged to a lower energy than the saddle.

    Newton steps may lead back up to the saddle.
    """
    return bool(mf.converged and mf.e_tot < saddle.e_tot)


def open_block(mol: Any) -> bool:
    """Return True if an element has a d or f shell with many possible occupations."""
    numbers = [charge(mol.atom_pure_symbol(atom)) for atom in range(mol.natm)]
    return any(low <= z <= high for z in numbers for low, high in _OPEN_BLOCKS)


def _wants_rivals(
    mol: Any, settings: Settings, solutions: list[Solution], rung: str
) -> bool:
    """Return True if a minimum was found, but another start may find a lower one."""
    if rung == RUNGS[-1] or not any(solution.is_stable for solution in solutions):
        return False
    if rung != RUNGS[0] or any(solution.followed for solution in solutions):
        return True
    if settings["stability"] == "never":
        return False
    return open_block(mol) or any(narrow(x.mf, settings) for x in solutions)


def _rival_solutions(mol: Any, settings: Settings) -> list[Any]:
    """Return solutions from starts that are independent of the first one.

    They use Newton steps and other guesses, and for open d and f shells also further
    guesses and mixed frontier orbitals.
    """
    many = open_block(mol)
    guesses = _OTHER_GUESSES + (_MORE_GUESSES if many else ())
    starts = [_from_guess(mol, {**settings, "init_guess": guess}) for guess in guesses]
    others = [mf for mf in starts if mf is not None]
    mixed = [_mixed(mol, settings)] if many else []
    return [_newton_solution(mol, settings, (None, None)), *others, *mixed]


def _from_guess(mol: Any, settings: Settings) -> Any | None:
    """Return the solution from the level's guess; None if the guess is too small."""
    mf = mean_field(mol, settings)
    try:
        run_scf(mf, settings)
    except RuntimeError as error:
        if not is_small_guess(error):
            raise
        return None
    return mf


def is_small_guess(error: RuntimeError) -> bool:
    """Return True if PySCF had fewer orbitals in a guess than electrons of a spin.

    A Hückel guess has the orbitals of a minimal basis: 14 for iron, whose atom has 15
    alpha electrons.
    """
    return "mo_occ" in str(error)


def _mixed(mol: Any, settings: Settings) -> Any:
    """Return the solution from a guess with mixed frontier orbitals.

    The highest occupied and lowest empty orbitals are rotated into each other, so that
    the guess has no symmetry that the solution would keep.
    """
    mf = mean_field(mol, settings)
    fock = mf.get_fock(dm=mf.get_init_guess(mol, settings["init_guess"]))
    energies, orbitals = mf.eig(fock, mf.get_ovlp())
    filled = mf.get_occ(energies, orbitals)
    turned = stability.frontier_turned(orbitals, filled, _MIXED)
    run_scf(mf, settings, mf.make_rdm1(turned, filled))
    return mf


def _apart(
    best: Solution, others: list[Solution], settings: Settings
) -> dict[str, Detail]:
    """Return the details `apart` and `compete` of several solutions.

    apart: the largest difference in energy (eV) from the best one, the saddle that led
    to it included; compete: True if a neighbouring frame may converge to another
    solution. It may if starts disagree about an open d or f shell, or if a solution
    almost as low has different forces. Empty if all solutions are equal.
    """
    fields = [other.mf for other in others]
    fields += [] if best.saddle is None else [best.saddle]
    apart = [float(mf.e_tot - best.mf.e_tot) * HARTREE for mf in fields]
    farthest = max(apart, default=0.0)
    if farthest < SIGNS.equal:
        return {}
    disagree = farthest > SIGNS.same and open_block(best.mf.mol)
    near = [
        mf for mf, x in zip(fields, apart, strict=True) if SIGNS.equal < x < SIGNS.near
    ]
    compete = disagree or any(_forces_apart(best.mf, mf, settings) for mf in near)
    return {"apart": farthest, "compete": compete}


def _forces_apart(mf: Any, other: Any, settings: Settings) -> bool:
    both = scf_gradient(mf, settings), scf_gradient(other, settings)
    largest = float(np.abs(both[0] - both[1]).max())
    return largest * HARTREE / BOHR > SIGNS.jump


def _rival_details(best: Solution, others: list[Solution]) -> dict[str, Detail]:
    details: dict[str, Detail] = {
        "cycles": int(best.mf.cycles),
        "gap": homo_lumo_gap(best.mf),
    }
    if best.internal is not None:
        details |= {"internal": best.internal, "followed": best.followed}
    if others:  # eV above the best one
        details["rival"] = float(others[0].mf.e_tot - best.mf.e_tot) * HARTREE
    return details


def _refusal(saddle: bool, details: dict[str, Detail], last: Any) -> Refused:
    rungs = str(details["rungs"]).replace(",", ", ")
    if saddle:
        text = f"the SCF found only saddle points on the rungs {rungs}"
        return Refused(Failure.UNSTABLE, text, details)
    text = f"the SCF did not converge on any rung ({rungs})"
    cycles = int(last.cycles)
    return Refused(Failure.NOT_CONVERGED, text, {**details, "cycles": cycles})


def _default_rung(mol: Any, settings: Settings, _last: Any) -> list[Any]:
    mf = mean_field(mol, settings)
    run_scf(mf, settings)
    return [mf]


def _damping_rung(mol: Any, settings: Settings, _last: Any) -> list[Any]:
    mf = mean_field(mol, settings)
    mf.damp, mf.diis_start_cycle = 0.5, 4
    mf.max_cycle *= 2
    run_scf(mf, settings)
    return [mf]


def _level_shift_rung(mol: Any, settings: Settings, _last: Any) -> list[Any]:
    mf = mean_field(mol, settings)
    mf.level_shift = 0.3  # hartree
    mf.max_cycle *= 3
    run_scf(mf, settings)
    return [mf]


def _second_order_rung(mol: Any, settings: Settings, last: Any) -> list[Any]:
    """Return Newton solutions from the last rung's orbitals and from a guess."""
    starts = [] if last is None else [(last.mo_coeff, last.mo_occ)]
    return [_newton_solution(mol, settings, start) for start in [*starts, (None, None)]]


def _newton_solution(mol: Any, settings: Settings, start: tuple[Any, Any]) -> Any:
    """Return a mean field after second-order steps from orbitals and occupations."""
    mf = mean_field(mol, settings)
    solver, steps = mf.newton(), []
    solver.callback = lambda _state: steps.append(1)
    solver.kernel(*start)
    for name in ("mo_energy", "mo_coeff", "mo_occ", "e_tot", "converged"):
        setattr(mf, name, getattr(solver, name))
    mf.cycles = len(steps) - 1  # it reports the last step twice
    return mf


_TRIES: dict[str, Callable[[Any, Settings, Any], list[Any]]] = dict(
    zip(
        RUNGS,
        (_default_rung, _damping_rung, _level_shift_rung, _second_order_rung),
        strict=True,
    )
)
