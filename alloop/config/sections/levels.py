"""The `levels:` section: levels of theory by program."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from alloop.config.level_text import expand_level
from alloop.config.sections.base import (
    Count,
    Loose,
    NotNegative,
    Positive,
    Section,
    Whole,
    by_kind,
    union_tag,
)
from alloop.config.sections.data import Energy, Length
from alloop.config.sections.level_base import OF_TRUST, LevelSection
from alloop.core.doubts import Doubt
from alloop.core.errors import InputError
from alloop.core.levels import Level, make_level
from alloop.labels.file_levels import file_content
from alloop.labels.levels import (
    ase_level,
    model_level,
    pyscf_level,
    table_level,
    toy_level,
    xtb_level,
)

_NO_SETTINGS = {"kind", *OF_TRUST}


class Pyscf(LevelSection):
    """A level of PySCF; keys that are left out keep alloop's default for the method."""

    kind: Literal["pyscf"]
    method: str = Field(description="hf, mp2, ccsd, ccsd(t) or a functional")
    basis: str = Field(description="a basis set such as cc-pvdz")
    density_fit: bool = Field(False, description="density fitting, for hf and DFT")
    dispersion: Literal["d3bj", "d3zero", "d4"] | None = Field(
        None, description="for DFT"
    )
    frozen_core: bool = Field(False, description="leave core electrons uncorrelated")
    reference: Literal["auto", "unrestricted"] | None = Field(
        None, description="auto is restricted for singlets"
    )
    stability: Literal["auto", "always", "never"] | None = Field(
        None, description="when the first rung's solution is tested"
    )
    ecp: str | None = Field(None, description="effective core potentials, by name")
    aux_basis: str | None = Field(None, description="of density fitting, by name")
    grid: Annotated[int, Field(ge=0, le=9)] | None = Field(
        None, description="PySCF's grid level, for DFT"
    )
    grid_response: bool | None = Field(None, description="of forces, for DFT")
    conv_tol: Positive | None = Field(None, description="of the SCF energy, hartree")
    conv_tol_grad: Positive | None = Field(None, description="of the SCF's gradient")
    max_cycle: Count | None = Field(None, description="SCF cycles on each rung")
    ladder: Annotated[tuple[str, ...], Loose] | None = Field(
        None, description="rungs that are tried until the SCF converges"
    )
    init_guess: str | None = Field(None, description="PySCF's name of it")
    max_memory: Count | None = Field(None, description="told to PySCF, MB")
    cc_conv_tol: Positive | None = Field(None, description="CC energy, hartree")
    cc_conv_tol_normt: Positive | None = Field(None, description="CC amplitudes")
    cc_max_cycle: Count | None = Field(None, description="CC cycles")
    kpoints: Annotated[tuple[Count, Count, Count], Loose] | None = Field(
        None, description="mesh such as [2, 1, 1]: the level is for cells"
    )
    pseudo: str | None = Field(None, description="pseudopotential, for cells")
    ke_cutoff: Positive | None = Field(None, description="of plane waves, hartree")

    def made(self) -> Level:
        """Return the level with all settings."""
        given = self.model_dump(exclude=_NO_SETTINGS, exclude_none=True)
        lists = {key: list(x) for key, x in given.items() if isinstance(x, tuple)}
        return pyscf_level(**{**given, **lists})


class Xtb(LevelSection):
    """Extended tight binding by tblite, `pip install alloop[xtb]`."""

    kind: Literal["xtb"]
    method: str = Field("gfn2-xtb", description="gfn1-xtb or gfn2-xtb")
    spin_polarized: bool = Field(False, description="spGFN-xTB")
    accuracy: Positive = Field(0.01, description="tblite's; smaller is tighter")
    temperature: NotNegative = Field(300.0, description="of the electrons, K")
    max_cycle: Count = Field(250, description="cycles of the charges")

    def made(self) -> Level:
        """Return the level with all settings."""
        return xtb_level(**self.model_dump(exclude=_NO_SETTINGS))


class Ase(LevelSection):
    """Any ASE calculator that gives energy and forces."""

    kind: Literal["ase"]
    calculator: str = Field(description="import path such as ase.calculators.emt.EMT")
    arguments: dict[str, Any] = Field({}, description="what it is made with")

    def made(self) -> Level:
        """Return the level, identified by path and arguments."""
        return ase_level(self.calculator, self.arguments)


class _Stored(LevelSection):
    """A level that is a file, identified by its content: the file may be moved."""

    path: str = Field(description="of the file, relative to this YAML file")
    content: str = Field("", description="hash of the file, which alloop fills in")

    @model_validator(mode="before")
    @classmethod
    def _named_by_content(cls, said: Any) -> Any:
        if not isinstance(said, Mapping) or not isinstance(said.get("path"), str):
            return said
        path = Path(said["path"]).absolute()
        try:
            content = said.get("content") or file_content(path)
        except InputError as error:
            raise ValueError(str(error)) from error
        return {**said, "path": str(path), "content": content}


class Table(_Stored):
    """A stored set of labelled frames: extxyz, an ASE database or an npz."""

    kind: Literal["table"]
    energy_unit: Energy | None = Field(None, description="eV, except of an npz")
    length_unit: Length | None = Field(None, description="angstrom, except of an npz")
    force_unit: str | None = Field(
        None, description="energy/length; by default the two units above"
    )
    energy_key: str | None = Field(None, description="name of the energies")
    forces_key: str | None = Field(None, description="name of the forces")
    charge: int | None = Field(None, description="total charge, e; else the file's, 0")
    spin: Whole | None = Field(None, description="2S; else the file's, 0")
    recheck: Annotated[float, Field(ge=0, le=0)] = Field(
        0.0, description="a table has no noise"
    )

    def made(self) -> Level:
        """Return the level, identified by the file's content, units and keys."""
        return table_level(**self.model_dump(exclude=_NO_SETTINGS))


class Model(_Stored):
    """A trained alloop model, such as `alloop export --model` writes."""

    kind: Literal["model"]
    outside: bool = Field(
        False, description="also charges, spins, compositions it was not trained on"
    )

    def made(self) -> Level:
        """Return the level, identified by the file's content."""
        return model_level(self.path, content=self.content, outside=self.outside)


class Toy(LevelSection):
    """Morse pairs in place of quantum chemistry, for trials that take seconds."""

    kind: Literal["toy"]
    stiffness: Positive = Field(1.0, description="scales every well")
    stretch: float = Field(0.0, description="lengthens every bond, Å")
    offset: float = Field(0.0, description="energy of each atom, eV")
    burn: NotNegative = Field(0.0, description="wasted CPU time, s")
    fail_above: Positive | None = Field(
        None, description="a pair farther apart does not converge, Å"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_fault(cls, given: Any) -> Any:
        """Drop the empty key `fault` that configurations in older stores hold."""
        if isinstance(given, Mapping) and given.get("fault") == "":
            return {key: value for key, value in given.items() if key != "fault"}
        return given

    def made(self) -> Level:
        """Return the level of these settings."""
        return toy_level(**self.model_dump(exclude=_NO_SETTINGS))


class Program(LevelSection):
    """A program of the user: a function (frame, settings) -> Result."""

    kind: str = Field(description="import path `package.module:function`")
    settings: dict[str, Any] = Field({}, description="what the function gets")

    def made(self) -> Level:
        """Return the level, identified by path and settings."""
        return make_level(self.kind, self.settings)


AnyLevel: TypeAlias = Annotated[
    Annotated[Pyscf, union_tag("pyscf")]
    | Annotated[Xtb, union_tag("xtb")]
    | Annotated[Ase, union_tag("ase")]
    | Annotated[Table, union_tag("table")]
    | Annotated[Model, union_tag("model")]
    | Annotated[Toy, union_tag("toy")]
    | Annotated[Program, union_tag("program")],
    by_kind(paths="program"),
    BeforeValidator(expand_level),
]


class Levels(Section):
    """The two levels of theory; without a cheap one, there is only one fidelity."""

    cheap: AnyLevel | None = Field(None, description="for many labels")
    expensive: AnyLevel = Field(description="for few labels, and the truth")

    def doubts(self, fidelity: str) -> Mapping[Doubt, str]:
        """Return the treatment of each doubt of a label: accept, flag or exclude."""
        return self._of(fidelity).verdicts()

    def recheck(self, fidelity: str) -> float:
        """Return the share of labels that are made again to measure their noise."""
        return self._of(fidelity).recheck

    def _of(self, fidelity: str) -> LevelSection:
        """Return the level of a fidelity; a single level serves as the cheap one."""
        found = self.cheap if fidelity == "cheap" else self.expensive
        return found or self.expensive
