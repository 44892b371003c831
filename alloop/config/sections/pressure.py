"""The `barostat:` of a campaign's walkers."""

from typing import Literal

from pydantic import Field

from alloop.config.sections.base import Count, Positive, Section
from alloop.core.units import GIGAPASCAL
from alloop.md import barostat


class Barostat(Section):
    """Stochastic cell rescaling (Bernetti & Bussi, 2020), with a Metropolis test."""

    time: Positive = Field(
        500.0,
        description="relaxation time of the volume of a material with this "
        "`compressibility`, fs",
    )
    compressibility: Positive = Field(
        0.02, description="estimate of the material's compressibility, 1/GPa"
    )
    interval: Count = Field(
        10,
        description="MD steps between two changes of the cell, each of which takes a "
        "force call more",
    )
    cell: Literal["isotropic", "anisotropic"] = Field(
        "isotropic",
        description="whether the cell keeps its shape, or changes it too, for crystals",
    )

    def build(self, pressure: float) -> barostat.Barostat:
        """Return the barostat at a pressure in GPa."""
        return barostat.Barostat(
            pressure=pressure * GIGAPASCAL,
            time=self.time,
            compressibility=self.compressibility / GIGAPASCAL,
            interval=self.interval,
            shape=self.cell,
        )
