"""The `training: references:` section: the energies of free atoms at each level."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from ase.data import atomic_numbers
from pydantic import BeforeValidator, Field

from alloop.config.sections.base import Section
from alloop.config.yaml_text import shown_value


def _reference_energies(value: Any) -> Any:
    """Return reference energies unchanged; raise ValueError if they are invalid."""
    if value == "fitted":
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError(
            "expected `fitted`, or an energy in eV for each element such as "
            f"{{H: -13.6}}, got {shown_value(value)}"
        )
    for element, energy in value.items():
        if not atomic_numbers.get(element):  # ASE knows X, with number 0
            raise ValueError(
                f"there is no element `{element}`; expected chemical symbols"
            )
        if isinstance(energy, bool) or not isinstance(energy, int | float):
            raise ValueError(
                f"expected the energy of {element} in eV, got {shown_value(energy)}"
            )
    return value


Energies: TypeAlias = Annotated[
    Literal["fitted"] | dict[str, float], BeforeValidator(_reference_energies)
]


class References(Section):
    """The reference energy of each element at each level, given or fitted."""

    cheap: Energies = Field(
        "fitted",
        description="energy of each element at the cheap level, eV, or `fitted`",
    )
    expensive: Energies = Field(
        "fitted",
        description="energy of each element at the expensive level, eV, or `fitted`",
    )
