"""Signs that a converged label may still be physically wrong; they are not failures."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from alloop.core.records import Detail

KEY = "doubts"  # among a label's details


class Doubt(StrEnum):
    """A sign that the method does not fit the frame; the value describes it."""

    INSTABILITY = "externally unstable: a solution with broken spin symmetry lies lower"
    MULTIREFERENCE = "one determinant is not enough here (T1 diagnostic, small gap)"
    CONTAMINATION = "the spin state is mixed: <S²> is off"
    UNBOUND = "an electron is not bound: the highest occupied orbital lies above zero"
    RIVAL = "several SCF solutions compete: forces may jump from one to another"
    ACTIVE_SPACE = "an orbital of the active space is full or empty: it does nothing"


def doubts_to_text(doubts: Iterable[Doubt]) -> str:
    """Return the doubts as one detail of a label; "" for none."""
    return ",".join(sorted(doubt.name.lower() for doubt in doubts))


def doubts_of_details(details: Mapping[str, Detail]) -> frozenset[Doubt]:
    """Return the doubts that are recorded in a label's details."""
    names = str(details.get(KEY) or "").upper()
    return frozenset(Doubt[name] for name in names.split(",") if name)
