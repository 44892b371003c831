"""Labels by PySCF, refused unless every iteration has converged, and checks of levels.

PySCF raises nothing when an SCF, coupled-cluster or lambda iteration does not converge
and returns forces all the same, so every `converged` is tested here. It also divides
its work by the memory that its process uses; here each label gets fresh objects, one
thread and a fixed memory, so that its bits do not depend on what ran before.

The energy and the gradient of a mean field that has converged are `ladder`'s and
`scf`'s, a CASSCF on it is `casscf`'s; MP2, CCSD and CCSD(T) on the one and NEVPT2 on
the other are made here.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pyscf
from pyscf import cc, df, lib, mp, mrpt
from pyscf.cc import (
    ccsd_t_lambda,
    uccsd_rdm,
    uccsd_t_lambda,
    uccsd_t_rdm,
)
from pyscf.data.elements import chemcore
from pyscf.grad import ccsd_t as ccsd_t_grad
from pyscf.grad import uccsd as uccsd_grad
from pyscf.gto import basis as basis_sets
from pyscf.lib.exceptions import BasisNotFoundError

from alloop.core.dipoles import dipole_details
from alloop.core.frame import Frame
from alloop.core.levels import gives_forces
from alloop.core.records import Detail, Failure
from alloop.core.text import nearest_word
from alloop.core.units import BOHR, HARTREE, Floats
from alloop.labels.child.memory import allowed_mb
from alloop.labels.gate import check_electrons
from alloop.labels.pyscf.active_space import ACTIVE_SPACE
from alloop.labels.pyscf.casscf import refuse_space, shell_problems, solve_casscf
from alloop.labels.pyscf.doubts import mean_field_signs, with_doubts
from alloop.labels.pyscf.elements import (
    OF_THE_BASIS,
    has_core,
    has_functions,
    has_pseudo,
    without_core,
)
from alloop.labels.pyscf.functionals import (
    dispersion_problem,
    is_known_functional,
    known_functionals,
)
from alloop.labels.pyscf.ladder import converged_scf, is_small_guess
from alloop.labels.pyscf.level import has_dipole, wants_card
from alloop.labels.pyscf.periodic import PSEUDOS, cell_problem, label_of_cell
from alloop.labels.pyscf.scf import (
    Settings,
    card_problem,
    card_version,
    make_molecule,
    no_core,
    scf_gradient,
)
from alloop.labels.pyscf.spelling import (
    BASES,
    COUPLED_CLUSTER,
    DISPERSIONS,
    FUNCTIONALS,
    MULTIREFERENCE,
    RUNGS,
    WAVE_FUNCTIONS,
    is_correlated,
)
from alloop.labels.pyscf.stability import is_unrestricted
from alloop.labels.result import Refused, Result, no_forces

Made = TypeVar("Made")


Details: TypeAlias = dict[str, Detail]


# hartree, and hartree/bohr or None at levels without forces
Answer: TypeAlias = tuple[float, Floats | None]


NO_EXACT_GRADIENT = (
    "PySCF's density-fitted {method} has no exact gradient; set density_fit to false, "
    "or `forces: none` for energies alone"
)


def label_with_pyscf(frame: Frame, settings: Settings) -> Result:
    """Return energy and forces of a frame; raise Refused if they cannot be trusted."""
    lib.num_threads(1)
    lib.current_memory = _nothing_used
    refuse_foreign(frame, settings)
    if "kpoints" in settings:
        return _refuse_on_error(lambda: label_of_cell(frame, settings), settings)
    return _refuse_on_error(lambda: _label_of_molecule(frame, settings), settings)


def _label_of_molecule(frame: Frame, settings: Settings) -> Result:
    mol = make_molecule(frame, settings)
    refuse_hopeless(mol, settings)
    mf, details = converged_scf(mol, settings)
    details = {
        **details,
        **_mean_field_details(mf, settings),
        **mean_field_signs(mf, settings),
    }
    energy, gradient = correlated_answer(mf, settings, details)
    forces = no_forces(frame)
    if gradient is not None:
        forces = -np.asarray(gradient, dtype=np.float64) * (HARTREE / BOHR)
    if settings["method"] == "mp2":
        details["energy_mp2"] = float(energy) * HARTREE
    if has_dipole(settings):
        moment = np.asarray(mf.dip_moment(unit="AU", verbose=0), dtype=np.float64)
        details |= dipole_details(moment * BOHR)
    signed = with_doubts(details, mf.mol.spin, settings)
    return Result(float(energy) * HARTREE, forces, signed)


def _refuse_on_error(make: Callable[[], Made], settings: Settings) -> Made:
    """Return what `make` returns; raise Refused if linear algebra or PySCF fails."""
    try:
        return make()
    except np.linalg.LinAlgError as error:
        raise Refused(Failure.NOT_CONVERGED, f"the SCF broke down: {error}") from error
    except (BasisNotFoundError, NotImplementedError) as error:
        raise Refused(Failure.UNSUPPORTED, str(error)) from error
    except RuntimeError as error:
        if not is_small_guess(error):
            raise
        text = (
            f"the guess {settings['init_guess']!r} has too few orbitals for the "
            "electrons of this frame; set `init_guess: minao`"
        )
        raise Refused(Failure.UNSUPPORTED, text) from error


def _mean_field_details(mf: Any, settings: Settings) -> Details:
    facts: Details = {"program": settings["program"], "functions": int(mf.mol.nao)}
    if is_correlated(settings["method"]):
        facts["energy_hf"] = float(mf.e_tot) * HARTREE
    if wants_card(settings):
        facts["card"] = card_version()
    if settings["density_fit"]:
        facts["aux_basis"] = _auxiliary_names(mf, settings)
    return facts


def _auxiliary_names(mf: Any, settings: Settings) -> str:
    """Return the names of the fitting basis, one for all elements or one by element."""
    if settings["aux_basis"] != OF_THE_BASIS:
        return str(settings["aux_basis"])
    chosen = df.make_auxbasis(mf.mol, xc=getattr(mf, "xc", "HF"))
    names = {e: b if isinstance(b, str) else "even-tempered" for e, b in chosen.items()}
    if len(set(names.values())) == 1:
        return next(iter(names.values()))
    return ",".join(f"{element}:{names[element]}" for element in sorted(names))


def refuse_foreign(frame: Frame, settings: Settings) -> None:
    """Raise Refused if this version of PySCF cannot label such a frame at the level."""
    if problem := check_electrons(frame):
        raise Refused(Failure.ELECTRONS, problem)
    installed = f"pyscf {'.'.join(pyscf.__version__.split('.')[:2])}"
    if settings["program"] != installed:
        text = f"this level belongs to {settings['program']}, {installed} is installed"
        raise Refused(Failure.UNSUPPORTED, text)
    if any(frame.pbc) and "kpoints" not in settings:
        text = "a PySCF level without `kpoints` is for molecules, not cells"
        raise Refused(Failure.UNSUPPORTED, text)
    refuse_space(frame, settings)
    refuse_level(settings)


def refuse_level(settings: Settings) -> None:
    """Raise Refused if PySCF does not support the level's settings."""
    problem = card_problem(settings)
    if problem:
        raise Refused(Failure.UNSUPPORTED, problem)
    if "kpoints" in settings:
        problem = cell_problem(settings)
    elif (
        settings["density_fit"]
        and is_correlated(settings["method"])
        and gives_forces(settings)
    ):
        problem = NO_EXACT_GRADIENT.format(method=settings["method"].upper())
    else:
        problem = dispersion_problem(settings["method"], settings["dispersion"])
    if problem:
        raise Refused(Failure.UNSUPPORTED, problem)


def _nothing_used() -> tuple[float, float]:
    return 0.0, 0.0


def correlated_answer(mf: Any, settings: Settings, details: Details) -> Answer:
    """Return energy and gradient of the level's method, and fill in `details`."""
    method = _METHODS.get(settings["method"])
    if method is None or _is_uncorrelated(mf, settings):
        return mf.e_tot, scf_gradient(mf, settings) if gives_forces(settings) else None
    return method(mf, settings, details)


def _mp2_answer(mf: Any, settings: Settings, _details: Details) -> Answer:
    pt = mp.MP2(mf, frozen=_frozen_orbitals(mf.mol, settings))
    pt.kernel()
    if not gives_forces(settings):
        return pt.e_tot, None
    return pt.e_tot, _nuclear_gradient(mf, pt.nuc_grad_method().kernel)


def _ccsd_answer(mf: Any, settings: Settings, details: Details) -> Answer:
    solver, eris = _solve_amplitudes(mf, settings, details)
    if not gives_forces(settings):
        return solver.e_tot, None
    solver.solve_lambda(eris=eris)
    _refuse_unless(solver.converged_lambda, "lambda equations", details)
    amplitudes = (solver.t1, solver.t2, solver.l1, solver.l2)
    kernel = solver.nuc_grad_method().kernel
    return solver.e_tot, _nuclear_gradient(mf, kernel, *amplitudes, eris=eris)


def _ccsd_t_answer(mf: Any, settings: Settings, details: Details) -> Answer:
    """Return the CCSD(T) answer, with lambda equations and gradient that include (T).

    PySCF's default ones leave (T) out.
    """
    solver, eris = _solve_amplitudes(mf, settings, details)
    triples = solver.ccsd_t(eris=eris)  # hartree
    if not gives_forces(settings):
        return solver.e_tot + triples, None
    t1, t2 = solver.t1, solver.t2
    equations = uccsd_t_lambda if is_unrestricted(mf) else ccsd_t_lambda
    steps, tol = settings["cc_max_cycle"], settings["cc_conv_tol_normt"]
    converged, l1, l2 = equations.kernel(
        solver, eris, t1, t2, max_cycle=steps, tol=tol, verbose=0
    )
    _refuse_unless(converged, "(T) lambda equations", details)
    restricted = ccsd_t_grad.Gradients(solver).kernel
    kernel = partial(_uccsd_t_gradient, solver) if is_unrestricted(mf) else restricted
    amplitudes = (t1, t2, l1, l2)
    return solver.e_tot + triples, _nuclear_gradient(mf, kernel, *amplitudes, eris=eris)


def _casscf_answer(mf: Any, settings: Settings, details: Details) -> Answer:
    solver = solve_casscf(mf, settings, details)
    if not gives_forces(settings):
        return solver.e_tot, None
    return solver.e_tot, _nuclear_gradient(mf, solver.nuc_grad_method().kernel)


def _nevpt2_answer(mf: Any, settings: Settings, details: Details) -> Answer:
    """Return the strongly contracted NEVPT2 energy, which has no gradient in PySCF."""
    solver = solve_casscf(mf, settings, details)
    return solver.e_tot + mrpt.NEVPT(solver).kernel(), None


def _uccsd_t_gradient(solver: Any, *amplitudes: Any, eris: Any) -> Floats:
    """Return PySCF's UCCSD(T) gradient with a corrected virtual block of the density.

    Up to 2.14.0 that block counts opposite spins twice (its issue 3305), which makes
    forces wrong by 0.01 eV/Å and more. (T) adds nothing to the block, so UCCSD's is
    used.
    """
    d1 = uccsd_t_rdm._gamma1_intermediates(solver, *amplitudes, eris, for_grad=True)
    d2 = list(uccsd_t_rdm._gamma2_outcore(solver, *amplitudes, eris, None, True))
    d2[1] = uccsd_rdm._gamma2_outcore(solver, *amplitudes, None, True)[1]
    gradient = uccsd_grad.Gradients(solver)
    electrons = gradient.grad_elec(*amplitudes, eris, d1=d1, d2=tuple(d2))
    total: Floats = electrons + gradient.grad_nuc()
    return total


def _solve_amplitudes(mf: Any, settings: Settings, details: Details) -> tuple[Any, Any]:
    """Return the converged CCSD solver and its integrals, and fill in `details`."""
    solver = cc.CCSD(mf, frozen=_frozen_orbitals(mf.mol, settings))
    solver.conv_tol = settings["cc_conv_tol"]
    solver.conv_tol_normt = settings["cc_conv_tol_normt"]
    solver.max_cycle = settings["cc_max_cycle"]
    eris = solver.ao2mo()
    solver.kernel(eris=eris)
    details["energy_mp2"] = float(mf.e_tot + solver.emp2) * HARTREE
    details["cc_cycles"] = int(solver.cycles)
    _refuse_unless(solver.converged, "amplitude equations", details)
    details["energy_ccsd"] = float(solver.e_tot) * HARTREE
    details["t1"] = _t1_diagnostic(solver.t1)
    return solver, eris


def _t1_diagnostic(t1: Any) -> float:
    """Return the T1 diagnostic: the norm of T1 over the root of correlated electrons.

    Closed shells: Lee & Taylor, Int. J. Quantum Chem. Symp. 23, 199 (1989). Open
    shells: with half the squared norm over both spins, as in Jayatilaka & Lee, J. Chem.
    Phys. 98, 9734 (1993), which gives the same number for a closed shell.
    """
    spins = t1 if isinstance(t1, tuple) else (t1, t1)
    electrons = sum(spin.shape[0] for spin in spins)
    squares = sum(float(np.vdot(spin, spin)) for spin in spins) / 2
    return float(np.sqrt(squares / electrons))


def _nuclear_gradient(
    mf: Any, kernel: Callable[..., Any], *args: Any, **kwargs: Any
) -> Floats:
    if mf.mol.natm == 1:
        return np.zeros((1, 3))
    return np.asarray(kernel(*args, **kwargs), dtype=np.float64)


def _frozen_orbitals(mol: Any, settings: Settings) -> int | None:
    return (chemcore(mol) or None) if settings.get("frozen_core") else None


def _is_uncorrelated(mf: Any, settings: Settings) -> bool:
    """Return True for fewer than two electrons to correlate, or no virtual orbital."""
    if settings["method"] in MULTIREFERENCE:
        return False
    mol, (alpha, _) = mf.mol, mf.mol.nelec
    electrons = mol.nelectron - 2 * (_frozen_orbitals(mol, settings) or 0)
    return bool(electrons < 2 or alpha >= mf.mo_coeff[0].shape[-1])


def _refuse_unless(converged: bool, what: str, details: Details) -> None:
    if not converged:
        text = f"the {what} did not converge"
        raise Refused(Failure.CC_NOT_CONVERGED, text, details)


_METHODS = {
    **{"mp2": _mp2_answer, "ccsd": _ccsd_answer, "ccsd(t)": _ccsd_t_answer},
    **{"casscf": _casscf_answer, "nevpt2": _nevpt2_answer},
}


def least_mb(mol: Any, settings: Settings) -> float:
    """Return a lower bound of the memory of a label in MB, to refuse one early.

    It counts the arrays that PySCF holds at once in any case, from the numbers of
    occupied (o) and virtual (v) orbitals. SCF: ten matrices of all functions. MP2: the
    amplitudes and one copy, 2 o²v². CCSD: amplitudes of both equations and a copy each,
    4 o²v² (integrals and density matrices go to disk). UCCSD(T) gradients: three arrays
    of triples of the larger spin, 3 (ov)³. A label below the bound may still exceed the
    limit.
    """
    method, functions = settings["method"], mol.nao
    numbers = 10.0 * functions**2
    spins = [(float(o), float(functions - o)) for o in mol.nelec]
    pairs = sum((o * v) ** 2 for o, v in spins) / 2
    if method == "mp2":
        numbers += 2 * pairs
    if method in COUPLED_CLUSTER:
        numbers += 4 * pairs
    if method == "ccsd(t)" and mol.spin:
        numbers += 3 * max(o * v for o, v in spins) ** 3
    return float(numbers * 8e-6)


def refuse_hopeless(mol: Any, settings: Settings) -> None:
    """Raise `Refused` if the label needs more memory than it is allowed."""
    needed, allowed = least_mb(mol, settings), allowed_mb()
    if needed > allowed:
        text = (
            f"{settings['method']} of {mol.natm} atoms with {mol.nao} functions needs "
            f"at least {needed / 1e3:.0f} GB of memory, {allowed / 1e3:.1f} are allowed"
        )
        raise Refused(Failure.MEMORY, text, {"functions": int(mol.nao)})


_LIMITS = ("cbs", "complete basis set", "basis set limit")
_COMMON = ("H", "He", "C", "O", "Cl", "Fe", "I")
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "reference": ("auto", "unrestricted"),
    "stability": ("auto", "always", "never"),
    "init_guess": ("minao", "atom", "huckel", "mod_huckel", "1e", "sap"),
}


def problems(settings: Settings, elements: Sequence[str]) -> list[str]:
    """Return a sentence for each problem of the level; empty if it is sound."""
    texts = [
        *_method_problems(settings["method"]),
        *_basis_problems(settings["basis"], elements),
        *_dispersion_problems(settings["dispersion"]),
        *_ladder_problems(settings["ladder"]),
        *_choice_problems(settings),
    ]
    if texts:
        return texts
    if problem := card_problem(settings):
        return [problem]
    if "kpoints" in settings:
        problem = cell_problem(settings)
        texts = [problem] if problem else []
        return [*texts, *_pseudo_problems(settings["pseudo"], elements)]
    texts = [
        *_core_problems(settings, elements),
        *_auxiliary_problems(settings, elements),
        *shell_problems(settings.get(ACTIVE_SPACE, {}), list(elements)),
    ]
    if problem := dispersion_problem(settings["method"], settings["dispersion"]):
        texts.append(problem)
    return texts or _trial_problems(settings)


def _method_problems(method: str) -> list[str]:
    if method in WAVE_FUNCTIONS:
        return []
    if is_known_functional(method):
        return []
    names = [*WAVE_FUNCTIONS, *(f.lower() for f in FUNCTIONALS), *known_functionals()]
    hint = _nearest_name(method, names, "try hf, b3lyp, wb97x-d3bj, mp2 or ccsd(t)")
    return [f"PySCF knows no method or functional {method!r}; {hint}"]


def _basis_problems(basis: str, elements: Sequence[str]) -> list[str]:
    if not any(has_functions(basis, element) for element in (*elements, *_COMMON)):
        names = [*(b.lower() for b in BASES), *basis_sets.ALIAS, *basis_sets.GTH_ALIAS]
        hint = _nearest_name(basis, names, "try def2-svp")
        if basis.lower().startswith(_LIMITS):
            hint = (
                "it is the limit of a series, not a basis; name one, such as cc-pvqz, "
                "or two, as in 'mp2/cbs(tz-qz)'"
            )
        return [f"PySCF knows no basis {basis!r}; {hint}"]
    lacks = ", ".join(e for e in elements if not has_functions(basis, e))
    if not lacks:
        return []
    return [f"the basis {basis!r} has no functions for {lacks}; try def2-svp"]


def _core_problems(settings: Settings, elements: Sequence[str]) -> list[str]:
    name = settings["ecp"]
    if name != OF_THE_BASIS and not any(
        has_core(name, element) for element in (*elements, "Cu", "I", "Au")
    ):
        names = [*(b.lower() for b in BASES), *basis_sets.ALIAS]
        hint = _nearest_name(name, names, "try def2-svp")
        return [f"PySCF knows no effective core {name!r}; {hint}"]
    lacking = without_core(settings, list(elements))
    return [no_core(settings, lacking)] if lacking else []


def _auxiliary_problems(settings: Settings, elements: Sequence[str]) -> list[str]:
    name = settings.get("aux_basis", OF_THE_BASIS)
    lacks = [e for e in elements if name != OF_THE_BASIS and not has_functions(name, e)]
    if not lacks:
        return []
    fits = [n for n in basis_sets.ALIAS if n.endswith("fit")]
    hint = _nearest_name(name, fits, "try def2-universal-jkfit")
    return [f"the fitting basis {name!r} has nothing for {', '.join(lacks)}; {hint}"]


def _pseudo_problems(name: str, elements: Sequence[str]) -> list[str]:
    lacks = [element for element in elements if not has_pseudo(name, element)]
    if not lacks:
        return []
    hint = _nearest_name(name, PSEUDOS, "try gth-pbe")
    return [f"the pseudopotential {name!r} has nothing for {', '.join(lacks)}; {hint}"]


def _dispersion_problems(dispersion: str | None) -> list[str]:
    if dispersion is None or dispersion in DISPERSIONS:
        return []
    hint = _nearest_name(dispersion, DISPERSIONS, "try d3bj")
    return [f"there is no dispersion correction {dispersion!r}; {hint}"]


def _ladder_problems(ladder: Sequence[str]) -> list[str]:
    if not ladder:
        return [f"the ladder has no rung; give some of {', '.join(RUNGS)}"]
    strange = [rung for rung in ladder if rung not in RUNGS]
    return [
        f"the ladder has no rung {rung!r}; "
        f"{_nearest_name(rung, RUNGS, ', '.join(RUNGS))}"
        for rung in strange
    ]


def _choice_problems(settings: Settings) -> list[str]:
    return [
        f"`{key}` is one of {', '.join(allowed)}, got {settings[key]!r}; "
        f"{_nearest_name(str(settings[key]), allowed, f'try {allowed[0]}')}"
        for key, allowed in _CHOICES.items()
        if key in settings and settings[key] not in allowed
    ]


def _trial_problems(settings: Settings) -> list[str]:
    """Label a hydrogen molecule in the smallest basis, and return what goes wrong."""
    frame = Frame(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]]))
    small: dict[str, Any] = {**settings, "basis": "sto-3g", "ecp": OF_THE_BASIS}
    small.pop("device", None)  # this machine may have no card
    if ACTIVE_SPACE in small:
        small[ACTIVE_SPACE] = {"electrons": 2, "orbitals": 2}
    try:
        refuse_level(settings)
        label_with_pyscf(frame, {**small, "aux_basis": OF_THE_BASIS, "grid": 0})
    except Refused as refused:
        return [f"the level cannot be used: {refused.message}"]
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        return [f"PySCF cannot do this level: {type(error).__name__}: {error}"]
    return []


def _nearest_name(name: str, names: Sequence[str], otherwise: str) -> str:
    close = nearest_word(name, names)
    return f"did you mean {close!r}?" if close else otherwise
