"""Labels by a plain loop, as in PySCF's manual."""

from collections.abc import Sequence
from typing import TypeAlias

from alloop.core.atoms import chemical_symbol
from alloop.core.frame import Frame
from alloop.core.units import BOHR, HARTREE, Floats

Numbers: TypeAlias = tuple[float, Floats]  # eV, (atoms, 3) eV/Å


def plain_loop(level: str, frames: Sequence[Frame]) -> list[Numbers]:
    """Return energies and forces of a plain loop."""
    from pyscf import gto, lib

    lib.num_threads(1)
    method, basis = level.split("/")
    results = []
    for frame in frames:
        atoms = [
            (chemical_symbol(int(z)), x)
            for z, x in zip(frame.numbers, frame.positions, strict=True)
        ]
        mol = gto.M(atom=atoms, basis=basis, verbose=0, max_memory=4000)
        energy, gradient = _METHODS[method](mol)
        results.append((energy * HARTREE, -gradient * HARTREE / BOHR))
    return results


def _hf(mol: object) -> tuple[float, Floats]:
    from pyscf import scf

    mf = scf.RHF(mol).run(conv_tol=1e-9)
    return mf.e_tot, mf.nuc_grad_method().kernel()


def _b3lyp(mol: object) -> tuple[float, Floats]:
    from pyscf import dft

    mf = dft.RKS(mol, xc="b3lyp")
    mf.grids.level = 3
    mf.run(conv_tol=1e-9)
    gradient = mf.nuc_grad_method()
    gradient.grid_response = True
    return mf.e_tot, gradient.kernel()


def _ccsd_t(mol: object) -> tuple[float, Floats]:
    from pyscf import cc, scf
    from pyscf.cc import ccsd_t_lambda
    from pyscf.grad import ccsd_t

    mf = scf.RHF(mol).run(conv_tol=1e-9)
    mycc = cc.CCSD(mf)
    mycc.conv_tol, mycc.conv_tol_normt = 1e-8, 1e-6
    eris = mycc.ao2mo()
    mycc.kernel(eris=eris)
    triples = mycc.ccsd_t(eris=eris)
    _, l1, l2 = ccsd_t_lambda.kernel(
        mycc, eris, mycc.t1, mycc.t2, max_cycle=100, tol=1e-6, verbose=0
    )
    gradient = ccsd_t.Gradients(mycc)
    return mycc.e_tot + triples, gradient.kernel(mycc.t1, mycc.t2, l1, l2, eris=eris)


_METHODS = {"hf": _hf, "b3lyp": _b3lyp, "ccsd(t)": _ccsd_t}
