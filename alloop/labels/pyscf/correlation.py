"""Electron correlation on a converged mean field: MP2, CCSD and CCSD(T)."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from pyscf import cc, mp
from pyscf.cc import ccsd_t_lambda, uccsd_t_lambda
from pyscf.data.elements import chemcore
from pyscf.grad import ccsd_t as ccsd_t_grad
from pyscf.grad import uccsd_t as uccsd_t_grad

from alloop.core.records import Detail, Failure
from alloop.core.units import HARTREE, Floats
from alloop.labels.outcome import Refused
from alloop.labels.pyscf.scf import Settings, scf_gradient

Details: TypeAlias = dict[str, Detail]
Answer: TypeAlias = tuple[float, Floats]  # hartree, hartree/bohr


def answer(mf: Any, settings: Settings, details: Details) -> Answer:
    """Energy and gradient of the level's method; fills in `details` on the way."""
    method = _METHODS.get(settings["method"])
    if method is None or _uncorrelated(mf, settings):
        return mf.e_tot, scf_gradient(mf, settings)
    return method(mf, settings, details)


def _mp2(mf: Any, settings: Settings, _details: Details) -> Answer:
    pt = mp.MP2(mf, frozen=_frozen(mf.mol, settings))
    pt.kernel()
    return pt.e_tot, _gradient(mf, pt.nuc_grad_method().kernel)


def _ccsd(mf: Any, settings: Settings, details: Details) -> Answer:
    solver, eris = _amplitudes(mf, settings, details)
    solver.solve_lambda(eris=eris)
    _refuse_unless(solver.converged_lambda, "lambda equations", details)
    amplitudes = (solver.t1, solver.t2, solver.l1, solver.l2)
    kernel = solver.nuc_grad_method().kernel
    return solver.e_tot, _gradient(mf, kernel, *amplitudes, eris=eris)


def _ccsd_t(mf: Any, settings: Settings, details: Details) -> Answer:
    """CCSD(T): lambda and gradient of its own, PySCF's default ones leave (T) out."""
    solver, eris = _amplitudes(mf, settings, details)
    triples = solver.ccsd_t(eris=eris)  # hartree
    t1, t2 = solver.t1, solver.t2
    equations = uccsd_t_lambda if mf.mol.spin else ccsd_t_lambda
    steps, tol = settings["cc_max_cycle"], settings["cc_conv_tol_normt"]
    converged, l1, l2 = equations.kernel(
        solver, eris, t1, t2, max_cycle=steps, tol=tol, verbose=0
    )
    _refuse_unless(converged, "(T) lambda equations", details)
    gradients = uccsd_t_grad if mf.mol.spin else ccsd_t_grad
    kernel = gradients.Gradients(solver).kernel
    return solver.e_tot + triples, _gradient(mf, kernel, t1, t2, l1, l2, eris=eris)


def _amplitudes(mf: Any, settings: Settings, details: Details) -> tuple[Any, Any]:
    solver = cc.CCSD(mf, frozen=_frozen(mf.mol, settings))
    solver.conv_tol = settings["cc_conv_tol"]
    solver.conv_tol_normt = settings["cc_conv_tol_normt"]
    solver.max_cycle = settings["cc_max_cycle"]
    eris = solver.ao2mo()
    solver.kernel(eris=eris)
    details |= {
        "energy_mp2": float(mf.e_tot + solver.emp2) * HARTREE,
        "cc_cycles": int(solver.cycles),
    }
    _refuse_unless(solver.converged, "amplitude equations", details)
    details["energy_ccsd"] = float(solver.e_tot) * HARTREE
    if not mf.mol.spin:  # Lee and Taylor's diagnostic is for closed shells
        details["t1"] = float(solver.get_t1_diagnostic())
    return solver, eris


def _gradient(mf: Any, kernel: Callable[..., Any], *args: Any, **kwargs: Any) -> Floats:
    if mf.mol.natm == 1:
        return np.zeros((1, 3))
    return np.asarray(kernel(*args, **kwargs), dtype=np.float64)


def _frozen(mol: Any, settings: Settings) -> int | None:
    return (chemcore(mol) or None) if settings["frozen_core"] else None


def _uncorrelated(mf: Any, settings: Settings) -> bool:
    """Fewer than two electrons to correlate, or no orbital to correlate them in."""
    mol, (alpha, _) = mf.mol, mf.mol.nelec
    electrons = mol.nelectron - 2 * (_frozen(mol, settings) or 0)
    return bool(electrons < 2 or alpha >= mf.mo_coeff[0].shape[-1])


def _refuse_unless(converged: bool, what: str, details: Details) -> None:
    if not converged:
        text = f"the {what} did not converge"
        raise Refused(Failure.CC_NOT_CONVERGED, text, details)


_METHODS = {"mp2": _mp2, "ccsd": _ccsd, "ccsd(t)": _ccsd_t}
