"""Facts on universal potentials, without torch: elements, charges, packages."""

import importlib.util
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from alloop.core.atoms import chemical_symbol, hill_formula
from alloop.core.batch import Batch
from alloop.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Pretrained:
    """The weights of a universal potential and the frames that they are for.

    name: as in campaign files. package: the import name of the package that has the
    weights. distribution: its name at PyPI. extra: that of alloop which installs it.
    elements: atomic numbers. states: the charges and spins of frames: "any" (the
    network reads them), "one" for each composition (it does not) or "neutral" singlets.
    """

    name: str
    package: str
    distribution: str
    extra: str
    elements: frozenset[int]
    states: Literal["any", "one", "neutral"]

    def missing(self) -> str | None:
        """Return a sentence where the package is not installed, or None."""
        if importlib.util.find_spec(self.package) is not None:
            return None
        return (
            f"{self.distribution} is not installed; pip install 'alloop[{self.extra}]'"
        )

    def strange_elements(self, numbers: Collection[int]) -> str | None:
        """Return a sentence about elements that it does not know, or None."""
        strange = sorted({int(z) for z in numbers} - self.elements)
        if not strange:
            return None
        return (
            f"expected elements that {self.name} knows ({_listed(self.elements)}), got "
            f"{_listed(strange)}; choose another potential"
        )

    def refusal(self, batch: Batch) -> str | None:
        """Return a sentence about elements, charges or spins beyond it, or None."""
        return self.strange_elements(batch.numbers.tolist()) or self.state_refusal(
            batch
        )

    def require(self, batch: Batch) -> None:
        """Raise InputError for frames that `refusal` refuses."""
        if why := self.refusal(batch):
            raise InputError(why)

    def state_refusal(self, batch: Batch) -> str | None:
        """Return a sentence about charges or spins that it cannot read, or None."""
        if self.states == "any":
            return None
        ignored = f"as {self.name} knows neither, got"
        states: dict[bytes, tuple[int, int]] = {}
        for frame in batch.frames():
            state = (frame.charge, frame.spin)
            if self.states == "neutral":
                if state != (0, 0):
                    return (
                        f"expected charge 0 and spin 0 of {hill_formula(frame)}, "
                        f"{ignored} {state}; choose another potential"
                    )
                continue
            atoms = np.sort(frame.numbers).tobytes()
            if states.setdefault(atoms, state) != state:
                return (
                    f"expected one charge and spin of {hill_formula(frame)}, {ignored} "
                    f"{states[atoms]} and {state}; choose another potential"
                )
        return None


def require_choice(kind: str, name: str, word: str, choices: Collection[str]) -> None:
    """Raise InputError unless a setting of a network is one of the choices."""
    if word not in choices:
        raise InputError(
            f"expected {name} of {kind} to be {' or '.join(choices)}, got {word!r}"
        )


def _listed(numbers: Collection[int]) -> str:
    """Return chemical symbols; "H to Pu" for many in a row."""
    ordered = sorted(numbers)
    if len(ordered) > 20 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{chemical_symbol(ordered[0])} to {chemical_symbol(ordered[-1])}"
    return ", ".join(map(chemical_symbol, ordered))
