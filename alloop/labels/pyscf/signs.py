"""Signs that a converged label may be the wrong physics, and where they are drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alloop.core.doubts import KEY, Doubt, written
from alloop.core.records import Detail
from alloop.labels.gate import WAVE_FUNCTIONS
from alloop.labels.pyscf import stability
from alloop.labels.pyscf.scf import Settings, exact_exchange, gap

_MOSTLY_EXACT = 0.5  # of the exchange: gaps like those of Hartree-Fock


@dataclass(frozen=True, slots=True)
class Gaps:
    """Below which HOMO-LUMO gap (eV) stability is checked, by kind of method."""

    pure: float
    hybrid: float
    exact: float

    def of(self, method: str) -> float:
        """The gap for a method: by its share of exact exchange."""
        share = exact_exchange(method)
        if share == 0.0:
            return self.pure
        return self.hybrid if share < _MOSTLY_EXACT else self.exact


@dataclass(frozen=True, slots=True)
class Signs:
    """Thresholds.

    unstable: curvature in hartree below which a solution counts as a saddle; what
    rotating an atom's open shell costs on a quadrature grid stays within it.
    restricted, unrestricted: gaps below which internal stability is checked. They lie
    above the widest gap of an unstable solution among 170 stretched, rattled and
    open-shell molecules in 6-31G: restricted and unrestricted 10.1 and 14.0 eV with
    Hartree-Fock, 1.1 and 4.1 with B3LYP, none and 2.1 with PBE or r2SCAN.
    external: gaps for the check against breaking spin symmetry, above 4.7 eV with PBE
    or r2SCAN and 6.0 with B3LYP. With Hartree-Fock no gap rules it out (F2: 20.7 eV,
    and weakly HCN: 18.2): the limit leaves ordinary saturated molecules unchecked.
    t1_closed: Lee & Taylor, Int. J. Quantum Chem. Symp. 23, 199 (1989). t1_open:
    Rienstra-Kiracofe, Allen & Schaefer, J. Phys. Chem. A 104, 9823 (2000).
    contamination: of <S²> over S(S+1); the tenth of Young, Computational Chemistry
    (Wiley 2001), chapter 27, taken absolutely.
    """

    unstable: float = -2e-3
    restricted: Gaps = Gaps(2.0, 4.0, 13.0)
    unrestricted: Gaps = Gaps(2.5, 6.0, 21.0)
    external: Gaps = Gaps(5.0, 6.5, 16.0)
    t1_closed: float = 0.02
    t1_open: float = 0.044
    contamination: float = 0.1


SIGNS = Signs()


def internal_doubtful(mf: Any, settings: Settings) -> bool:
    """Whether a solution of the first rung is to be checked for internal stability."""
    if stability.unrestricted(mf):
        # Spin symmetry that should be broken is a saddle at any gap.
        return not mf.mol.spin or _asked(mf, settings, SIGNS.unrestricted)
    return _asked(mf, settings, SIGNS.restricted)


def mean_field_signs(mf: Any, settings: Settings) -> dict[str, Detail]:
    """<S²> of an unrestricted solution, external stability of a restricted one."""
    if stability.unrestricted(mf):
        return {"s2": float(mf.spin_square()[0])}
    correlated = settings["method"] in WAVE_FUNCTIONS[1:]
    always = correlated and settings["stability"] == "auto"
    if not always and not _asked(mf, settings, SIGNS.external):
        return {}
    curvature = stability.external(mf, SIGNS.unstable)
    return {} if curvature is None else {"external": curvature}


def with_doubts(details: Mapping[str, Detail], spin: int) -> dict[str, Detail]:
    """The details with the doubts that they raise. spin: 2S of the frame."""
    doubts = {
        Doubt.INSTABILITY: _number(details, "external") < SIGNS.unstable,
        Doubt.CONTAMINATION: _contaminated(details, spin / 2),
        Doubt.MULTIREFERENCE: _number(details, "t1") > _t1_limit(details),
    }
    return {**details, KEY: written(doubt for doubt, there in doubts.items() if there)}


def _asked(mf: Any, settings: Settings, gaps: Gaps) -> bool:
    policy, width = settings["stability"], gap(mf)
    if policy != "auto":
        return bool(policy == "always")
    return width is not None and width < gaps.of(settings["method"])


def _contaminated(details: Mapping[str, Detail], s: float) -> bool:
    return "s2" in details and (
        abs(_number(details, "s2") - s * (s + 1)) > SIGNS.contamination
    )


def _t1_limit(details: Mapping[str, Detail]) -> float:
    return SIGNS.t1_open if "s2" in details else SIGNS.t1_closed


def _number(details: Mapping[str, Detail], key: str) -> float:
    value = details.get(key)
    return float(value) if isinstance(value, float) else 0.0
