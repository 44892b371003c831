"""Labels by PySCF, refused unless every iteration has converged.

PySCF raises nothing when an SCF, coupled-cluster or lambda iteration does not converge
and returns forces all the same, so every `converged` is tested here. It also divides
its work by the memory that its process uses; here each label gets fresh objects, one
thread and a fixed memory, so that its bits do not depend on what ran before.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pyscf
from pyscf import df, lib
from pyscf.lib.exceptions import BasisNotFoundError

from alloop.core.frame import Frame
from alloop.core.records import Failure
from alloop.core.units import BOHR, HARTREE
from alloop.labels.gate import check_electrons
from alloop.labels.pyscf.card import card_problem, card_version, wants_card
from alloop.labels.pyscf.correlation import Details, correlated_answer
from alloop.labels.pyscf.doubts import mean_field_signs, with_doubts
from alloop.labels.pyscf.elements import OF_THE_BASIS
from alloop.labels.pyscf.functionals import dispersion_problem
from alloop.labels.pyscf.ladder import converged_scf, is_small_guess
from alloop.labels.pyscf.memory import refuse_hopeless
from alloop.labels.pyscf.periodic import cell_problem, label_of_cell
from alloop.labels.pyscf.scf import Settings, make_molecule
from alloop.labels.pyscf.spelling import WAVE_FUNCTIONS
from alloop.labels.result import Refused, Result

Made = TypeVar("Made")
NO_EXACT_GRADIENT = (
    "PySCF's density-fitted {method} has no exact gradient; set density_fit to false"
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
    forces = -np.asarray(gradient, dtype=np.float64) * (HARTREE / BOHR)  # (atoms, 3)
    if settings["method"] == "mp2":
        details["energy_mp2"] = float(energy) * HARTREE
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
    if settings["method"] in WAVE_FUNCTIONS[1:]:
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
    refuse_level(settings)


def refuse_level(settings: Settings) -> None:
    """Raise Refused if PySCF does not support the level's settings."""
    problem = card_problem(settings)
    if problem:
        raise Refused(Failure.UNSUPPORTED, problem)
    if "kpoints" in settings:
        problem = cell_problem(settings)
    elif settings["density_fit"] and settings["method"] in WAVE_FUNCTIONS[1:]:
        problem = NO_EXACT_GRADIENT.format(method=settings["method"].upper())
    else:
        problem = dispersion_problem(settings["method"], settings["dispersion"])
    if problem:
        raise Refused(Failure.UNSUPPORTED, problem)


def _nothing_used() -> tuple[float, float]:
    return 0.0, 0.0
