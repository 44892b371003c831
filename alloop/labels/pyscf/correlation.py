"""Electron correlation on a converged mean field: MP2, CCSD and CCSD(T)."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from pyscf import cc, mp
from pyscf.cc import (
    ccsd_t_lambda,
    uccsd_rdm,
    uccsd_t_lambda,
    uccsd_t_rdm,
)
from pyscf.data.elements import chemcore
from pyscf.grad import ccsd_t as ccsd_t_grad
from pyscf.grad import uccsd as uccsd_grad

from alloop.core.records import Detail, Failure
from alloop.core.units import HARTREE, Floats
from alloop.labels.pyscf.scf import Settings, scf_gradient
from alloop.labels.pyscf.stability import is_unrestricted
from alloop.labels.result import Refused

Details: TypeAlias = dict[str, Detail]
Answer: TypeAlias = tuple[float, Floats]  # hartree, hartree/bohr


def correlated_answer(mf: Any, settings: Settings, details: Details) -> Answer:
    """Return energy and gradient of the level's method, and fill in `details`."""
    method = _METHODS.get(settings["method"])
    if method is None or _is_uncorrelated(mf, settings):
        return mf.e_tot, scf_gradient(mf, settings)
    return method(mf, settings, details)


def _mp2_answer(mf: Any, settings: Settings, _details: Details) -> Answer:
    pt = mp.MP2(mf, frozen=_frozen_orbitals(mf.mol, settings))
    pt.kernel()
    return pt.e_tot, _nuclear_gradient(mf, pt.nuc_grad_method().kernel)


def _ccsd_answer(mf: Any, settings: Settings, details: Details) -> Answer:
    solver, eris = _solve_amplitudes(mf, settings, details)
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
    t1, t2 = solver.t1, solver.t2
    equations = uccsd_t_lambda if is_unrestricted(mf) else ccsd_t_lambda
    steps, tol = settings["cc_max_cycle"], settings["cc_conv_tol_normt"]
    converged, l1, l2 = equations.kernel(
        solver, eris, t1, t2, max_cycle=steps, tol=tol, verbose=0
    )
    _refuse_unless(converged, "(T) lambda equations", details)
    restricted = ccsd_t_grad.Gradients(solver).kernel
    kernel = partial(_uccsd_t_gradient, solver) if is_unrestricted(mf) else restricted
    return solver.e_tot + triples, _nuclear_gradient(
        mf, kernel, t1, t2, l1, l2, eris=eris
    )


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
    return (chemcore(mol) or None) if settings["frozen_core"] else None


def _is_uncorrelated(mf: Any, settings: Settings) -> bool:
    """Return True for fewer than two electrons to correlate, or no virtual orbital."""
    mol, (alpha, _) = mf.mol, mf.mol.nelec
    electrons = mol.nelectron - 2 * (_frozen_orbitals(mol, settings) or 0)
    return bool(electrons < 2 or alpha >= mf.mo_coeff[0].shape[-1])


def _refuse_unless(converged: bool, what: str, details: Details) -> None:
    if not converged:
        text = f"the {what} did not converge"
        raise Refused(Failure.CC_NOT_CONVERGED, text, details)


_METHODS = {"mp2": _mp2_answer, "ccsd": _ccsd_answer, "ccsd(t)": _ccsd_t_answer}
