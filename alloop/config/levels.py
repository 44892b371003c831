"""The `levels:` section: levels of theory by program."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from alloop.config.base import Count, Loose, Positive, Section, by_kind, tag
from alloop.core.levels import Level, level
from alloop.labels.levels import ase_level, pyscf_level, toy_level


class Pyscf(Section):
    """A level of PySCF; what is left out keeps alloop's default for the method."""

    kind: Literal["pyscf"]
    method: str = Field(description="hf, mp2, ccsd, ccsd(t) or a functional")
    basis: str = Field(description="a basis set such as cc-pvdz")
    density_fit: bool = Field(False, description="density fitting, for hf and DFT")
    dispersion: Literal["d3bj", "d4"] | None = Field(None, description="for DFT")
    frozen_core: bool = Field(False, description="leave core electrons uncorrelated")
    grid: Annotated[int, Field(ge=0, le=9)] | None = Field(
        None, description="PySCF's grid level, for DFT"
    )
    grid_response: bool | None = Field(None, description="of forces, for DFT")
    conv_tol: Positive | None = Field(None, description="of the SCF energy, hartree")
    max_cycle: Count | None = Field(None, description="SCF cycles on each rung")
    ladder: Annotated[tuple[str, ...], Loose] | None = Field(
        None, description="rungs that are tried until the SCF converges"
    )
    init_guess: str | None = Field(None, description="PySCF's name of it")
    max_memory: Positive | None = Field(None, description="told to PySCF, MB")
    cc_conv_tol: Positive | None = Field(None, description="CC energy, hartree")
    cc_conv_tol_normt: Positive | None = Field(None, description="CC amplitudes")
    cc_max_cycle: Count | None = Field(None, description="CC cycles")

    def build(self) -> Level:
        """The level with every setting spelled out."""
        given = self.model_dump(exclude={"kind"}, exclude_none=True)
        if "ladder" in given:
            given["ladder"] = list(given["ladder"])
        return pyscf_level(**given)


class Ase(Section):
    """Any ASE calculator that gives energy and forces."""

    kind: Literal["ase"]
    calculator: str = Field(description="import path such as ase.calculators.emt.EMT")
    arguments: dict[str, Any] = Field({}, description="what it is made with")

    def build(self) -> Level:
        """The level, addressed by path and arguments."""
        return ase_level(self.calculator, self.arguments)


class Toy(Section):
    """Morse pairs in place of quantum chemistry: to try things out in seconds."""

    kind: Literal["toy"]
    stiffness: Positive = Field(1.0, description="scales every well")
    stretch: float = Field(0.0, description="lengthens every bond, Å")
    offset: float = Field(0.0, description="energy of each atom, eV")
    burn: Annotated[float, Field(ge=0)] = Field(0.0, description="wasted CPU time, s")
    fail_above: Positive | None = Field(
        None, description="a pair farther apart does not converge, Å"
    )
    fault: str = Field("", description="what goes wrong at every label, for tests")

    def build(self) -> Level:
        """The level of these settings."""
        return toy_level(**self.model_dump(exclude={"kind"}))


class Program(Section):
    """One's own program: a function (frame, settings) -> Result."""

    kind: str = Field(description="import path `package.module:function`")
    settings: dict[str, Any] = Field({}, description="what the function gets")

    def build(self) -> Level:
        """The level, addressed by path and settings."""
        return level(self.kind, self.settings)


AnyLevel: TypeAlias = Annotated[
    Annotated[Pyscf, tag("pyscf")]
    | Annotated[Ase, tag("ase")]
    | Annotated[Toy, tag("toy")]
    | Annotated[Program, tag("program")],
    by_kind(paths="program"),
]


class Levels(Section):
    """The two levels of theory; without a cheap one there is one fidelity only."""

    cheap: AnyLevel | None = Field(None, description="for many labels")
    expensive: AnyLevel = Field(description="for few labels, and the truth")
