"""Lower bounds of the memory of a label, to refuse hopeless molecules early.

The bounds are the arrays that PySCF holds at once in any case, from the numbers of
occupied (o) and virtual (v) orbitals. SCF: ten matrices of all functions. MP2: the
amplitudes and one copy, 2 o²v². CCSD: amplitudes of both equations and a copy each,
4 o²v² (integrals and density matrices go to disk). UCCSD(T) gradients: three arrays of
triples of the larger spin, 3 (ov)³. A molecule above a bound cannot fit; one below it
may still exceed the limit.
"""

from typing import Any

from alloop.core.records import Failure
from alloop.labels.child.memory import allowed_mb
from alloop.labels.pyscf.scf import Settings
from alloop.labels.pyscf.spelling import WAVE_FUNCTIONS
from alloop.labels.result import Refused


def least_mb(mol: Any, settings: Settings) -> float:
    """Return the memory in MB that the label needs at least."""
    method, functions = settings["method"], mol.nao
    numbers = 10.0 * functions**2
    spins = [(float(o), float(functions - o)) for o in mol.nelec]
    pairs = sum((o * v) ** 2 for o, v in spins) / 2
    if method == "mp2":
        numbers += 2 * pairs
    if method in WAVE_FUNCTIONS[2:]:
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
