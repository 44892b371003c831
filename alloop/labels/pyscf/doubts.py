"""Signs that a converged label may be physically wrong, and their thresholds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alloop.core.doubts import KEY, Doubt, doubts_to_text
from alloop.core.records import Detail
from alloop.labels.pyscf import stability
from alloop.labels.pyscf.scf import Settings, exact_exchange, homo, homo_lumo_gap
from alloop.labels.pyscf.spelling import MULTIREFERENCE, is_correlated

_MOSTLY_EXACT = 0.5  # share of exact exchange with gaps like those of Hartree-Fock


@dataclass(frozen=True, slots=True)
class GapThresholds:
    """HOMO-LUMO gaps (eV) by kind of method, below which a check is made."""

    pure: float
    hybrid: float
    exact: float

    def for_method(self, method: str) -> float:
        """Return the gap for a method, by its share of exact exchange."""
        share = exact_exchange(method)
        if share == 0.0:
            return self.pure
        return self.hybrid if share < _MOSTLY_EXACT else self.exact


@dataclass(frozen=True, slots=True)
class DoubtThresholds:
    """The thresholds of stability checks and doubts.

    unstable: curvature in hartree below which a solution counts as a saddle. It allows
    for the energy that a quadrature grid adds when an atom's open shell is rotated.
    restricted, unrestricted: gaps below which internal stability is checked. They lie
    above the widest gap of an unstable solution among 170 stretched, rattled and
    open-shell molecules in 6-31G: restricted and unrestricted 10.1 and 14.0 eV with
    Hartree-Fock, 1.1 and 4.1 with B3LYP, none and 2.1 with PBE or r2SCAN.
    external: gaps below which spin symmetry breaking is checked, above 4.7 eV with PBE
    or r2SCAN and 6.0 with B3LYP. With Hartree-Fock no gap rules it out (F2: 20.7 eV,
    and weakly HCN: 18.2); the limit leaves ordinary saturated molecules unchecked.
    t1_closed: Lee & Taylor, Int. J. Quantum Chem. Symp. 23, 199 (1989). t1_open:
    Rienstra-Kiracofe, Allen & Schaefer, J. Phys. Chem. A 104, 9823 (2000).
    contamination: the deviation of <S²> from S(S+1). Young, Computational Chemistry
    (Wiley 2001), chapter 27, gives a tenth, which is taken as an absolute value here.
    narrow: gaps of open shells below which other starts are tried, a third of those
    for internal stability.
    equal, same: largest difference in energy (eV) of solutions that count as the same.
    `same` applies where the energy on the grid depends on the orientation of an open d
    or f shell, and to references of correlated methods.
    idle: natural occupation (of 2) below which an active orbital counts as empty, and
    above 2 less which as full: half of the 0.02 beyond which orbitals are usually left
    out (Keller et al., J. Chem. Phys. 142, 244104 (2015)), since the pair of a bond
    that breaks lies near 0.02 where it is whole.
    near, jump: a solution less than `near` eV above the lowest is a rival if its forces
    differ by more than `jump` eV/Å.
    """

    unstable: float = -2e-3
    restricted: GapThresholds = GapThresholds(2.0, 4.0, 13.0)
    unrestricted: GapThresholds = GapThresholds(2.5, 6.0, 21.0)
    external: GapThresholds = GapThresholds(5.0, 6.5, 16.0)
    t1_closed: float = 0.02
    t1_open: float = 0.044
    contamination: float = 0.1
    narrow: GapThresholds = GapThresholds(0.8, 2.0, 7.0)
    equal: float = 1e-5
    same: float = 1e-3
    near: float = 0.05
    jump: float = 0.05
    idle: float = 0.01


SIGNS = DoubtThresholds()


def internal_doubtful(mf: Any, settings: Settings) -> bool:
    """Return True if a solution of the first rung needs an internal stability check."""
    if stability.is_unrestricted(mf):
        # A solution with unbroken spin symmetry may be a saddle at any gap.
        return not mf.mol.spin or _wants_stability(mf, settings, SIGNS.unrestricted)
    return _wants_stability(mf, settings, SIGNS.restricted)


def narrow(mf: Any, settings: Settings) -> bool:
    """Return True if an open shell's gap is so narrow that other starts are needed."""
    width = homo_lumo_gap(mf)
    if width is None or not mf.mol.spin:
        return False
    return width < SIGNS.narrow.for_method(settings["method"])


def mean_field_signs(mf: Any, settings: Settings) -> dict[str, Detail]:
    """Return the details of a mean field from which doubts follow.

    <S²> of an unrestricted solution, the external curvature (hartree) of a restricted
    one if it is checked, and the HOMO's energy (eV) if it is above zero. Only the
    latter where the mean field is but the start of a CASSCF.
    """
    highest = homo(mf)
    signs: dict[str, Detail] = {"homo": highest} if highest > 0.0 else {}
    if settings["method"] in MULTIREFERENCE:
        return signs
    if stability.is_unrestricted(mf):
        return {**signs, "s2": float(mf.spin_square()[0])}
    always = correlated(settings) and settings["stability"] == "auto"
    if not always and not _wants_stability(mf, settings, SIGNS.external):
        return signs
    curvature = stability.external_curvature(mf, SIGNS.unstable)
    return signs if curvature is None else {**signs, "external": curvature}


def correlated(settings: Settings) -> bool:
    """Return True for methods that start from Hartree-Fock: MP2 and beyond."""
    return is_correlated(settings["method"])


def with_doubts(
    details: Mapping[str, Detail], spin: int, settings: Settings
) -> dict[str, Detail]:
    """Return the details, with the doubts that they raise added.

    spin: 2S of the frame.
    """
    doubts = {
        Doubt.INSTABILITY: _finite_detail(details, "external") < SIGNS.unstable,
        Doubt.CONTAMINATION: _is_contaminated(details, spin / 2),
        Doubt.MULTIREFERENCE: _finite_detail(details, "t1") > _t1_limit(details),
        Doubt.UNBOUND: _finite_detail(details, "homo") > 0.0,
        Doubt.RIVAL: bool(details.get("compete")) or _broken(details, settings),
        Doubt.ACTIVE_SPACE: _has_idle_orbital(details),
    }
    return {
        **details,
        KEY: doubts_to_text(doubt for doubt, there in doubts.items() if there),
    }


def _wants_stability(mf: Any, settings: Settings, gaps: GapThresholds) -> bool:
    policy, width = settings["stability"], homo_lumo_gap(mf)
    if policy != "auto":
        return bool(policy == "always")
    return width is not None and width < gaps.for_method(settings["method"])


def _broken(details: Mapping[str, Detail], settings: Settings) -> bool:
    """Return True if a correlated method uses the broken one of several references."""
    if settings["method"] in MULTIREFERENCE:
        return False
    unrestricted = correlated(settings) and "s2" in details
    return unrestricted and _finite_detail(details, "apart") > SIGNS.same


def _is_contaminated(details: Mapping[str, Detail], s: float) -> bool:
    return "s2" in details and (
        abs(_finite_detail(details, "s2") - s * (s + 1)) > SIGNS.contamination
    )


def _has_idle_orbital(details: Mapping[str, Detail]) -> bool:
    """Return True if an active orbital is full or empty; False without any."""
    full = _finite_detail(details, "occupation_max")
    empty = details.get("occupation_min")
    return full > 2 - SIGNS.idle or (isinstance(empty, float) and empty < SIGNS.idle)


def _t1_limit(details: Mapping[str, Detail]) -> float:
    return SIGNS.t1_open if "s2" in details else SIGNS.t1_closed


def _finite_detail(details: Mapping[str, Detail], key: str) -> float:
    value = details.get(key)
    return float(value) if isinstance(value, float) else 0.0
