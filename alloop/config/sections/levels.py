"""The `levels:` section: levels of theory by program, and what all of them share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias, Union

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    model_validator,
)

from alloop.config.sections.base import (
    Count,
    Loose,
    NotNegative,
    Positive,
    Section,
    Share,
    Whole,
    by_kind,
    setting_key,
    union_tag,
)
from alloop.config.sections.data import Energy, Length, SpinState
from alloop.config.sections.potentials import NETWORK_SECTIONS, PotentialSection
from alloop.config.yaml_text import expand_level
from alloop.core.doubts import Doubt
from alloop.core.errors import InputError
from alloop.core.levels import (
    CODE_FOLDER,
    NO_FORCES,
    Fidelity,
    Level,
    energy_level,
    make_level,
)
from alloop.labels.composite import SUM, flat_parts
from alloop.labels.file_levels import file_content
from alloop.labels.levels import (
    ase_level,
    model_level,
    pyscf_level,
    sum_level,
    table_level,
    toy_level,
    universal_level,
    xtb_level,
)
from alloop.labels.tolerances import Tolerances
from alloop.models.settings import is_pretrained

Verdict: TypeAlias = Literal["accept", "flag", "exclude"]


class Doubts(Section):
    """The treatment of labels with a sign of wrong physics."""

    instability: Verdict = Field(
        "flag",
        description="labels of an SCF solution above one of broken spin symmetry",
    )
    multireference: Verdict = Field(
        "flag", description="labels with a large T1 diagnostic or a small gap"
    )
    contamination: Verdict = Field(
        "flag", description="labels whose <S²> is not that of the spin"
    )
    unbound: Verdict = Field(
        "flag", description="labels of anions with an electron that is not bound"
    )
    rival: Verdict = Field(
        "flag", description="labels with several competing SCF solutions"
    )
    active_space: Verdict = Field(
        "flag",
        description="labels with an active orbital that is full or empty",
    )


def _word_or_mapping(value: object) -> str:
    return "<doubts>" if isinstance(value, Mapping | Doubts) else "<word>"


AnyDoubts: TypeAlias = Annotated[
    Annotated[Verdict, union_tag("word")] | Annotated[Doubts, union_tag("doubts")],
    Discriminator(_word_or_mapping),
]


class Gate(Section):
    """Thresholds of this level that replace those of its class."""

    closest: float | None = setting_key(Tolerances, "closest", default=None)
    net_force: float | None = setting_key(Tolerances, "net_force", default=None)
    torque: float | None = setting_key(Tolerances, "torque", default=None)
    force: float | None = setting_key(Tolerances, "force", default=None)
    slope: float | None = setting_key(Tolerances, "slope", default=None)


class LevelSection(Section, ABC):
    """A level of theory; doubts and recheck are the campaign's, not the level's."""

    doubts: AnyDoubts = Field(
        "flag",
        description="treatment of doubtful labels (accept, flag or exclude), for all "
        "doubts or for each",
    )
    recheck: Share = Field(
        0.05, description="share of labels that are made again, to measure their noise"
    )
    gate: Gate | None = Field(
        None,
        description="thresholds that replace those of the level's class; part of the "
        "level",
    )
    forces: Literal["none"] | None = Field(
        None,
        description="none: labels are energies alone, for levels without a gradient or "
        "with a dear one; part of the level",
    )

    @abstractmethod
    def base_level(self) -> Level:
        """Return the level, without the gate's thresholds."""

    def build(self) -> Level:
        """Return the level with all settings; raise InputError if they are invalid."""
        level = self.base_level()
        if self.forces == NO_FORCES:
            level = energy_level(level)
        thresholds = (
            {} if self.gate is None else self.gate.model_dump(exclude_none=True)
        )
        return (
            make_level(level.kind, {**level.settings, "gate": thresholds})
            if thresholds
            else level
        )

    def verdicts(self) -> Mapping[Doubt, str]:
        """Return the treatment of each doubt: accept, flag or exclude."""
        if isinstance(self.doubts, Doubts):
            verdicts = self.doubts.model_dump()
            return {doubt: verdicts[doubt.name.lower()] for doubt in Doubt}
        return dict.fromkeys(Doubt, self.doubts)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        try:
            self.build()
        except InputError as error:
            raise ValueError(str(error)) from error
        return self


CAMPAIGN_KEYS = frozenset(LevelSection.model_fields)


def _named(value: Any) -> Any:
    """Return `{kind: WORD}` for a word."""
    return {"kind": value} if isinstance(value, str) else value


if TYPE_CHECKING:
    AnyUniversal = PotentialSection
else:
    _TAGGED = tuple(
        Annotated[section, union_tag(kind)]
        for kind, section in NETWORK_SECTIONS.items()
        if is_pretrained(kind)
    )
    AnyUniversal = Annotated[
        Annotated[Union[_TAGGED], by_kind()],  # noqa: UP007
        BeforeValidator(_named),
    ]


class Universal(LevelSection):
    """A universal potential as it comes: so3lr, ani, chgnet and others, fast."""

    kind: Literal["universal"]
    potential: AnyUniversal = Field(
        description="so3lr, ani, chgnet, or kind and settings as under `potential:`"
    )

    def base_level(self) -> Level:
        """Return the level with all settings."""
        settings = self.potential.model_dump(exclude={"kind"})
        return universal_level(self.potential.kind, **settings)


_NO_SETTINGS = {"kind", "multiplicity", *CAMPAIGN_KEYS}


class ActiveSpace(Section):
    """The electrons and orbitals of a CASSCF; by default those next to the gap."""

    electrons: Count = Field(description="number of active electrons")
    orbitals: Count = Field(description="number of active orbitals, at most 12")
    indices: Annotated[tuple[Whole, ...], Loose] | None = Field(
        None,
        description="numbers of the mean field's orbitals that are active, from 0",
    )
    atomic_orbitals: Annotated[tuple[str, ...], Loose] | None = Field(
        None,
        description="atomic shells such as 'N 2p' (or '0 N 2p' of atom 0); the "
        "orbitals that overlap most with them are active",
    )


class Pyscf(LevelSection):
    """A level of PySCF; keys that are left out keep alloop's default for the method."""

    kind: Literal["pyscf"]
    method: str = Field(
        description="hf, mp2, ccsd, ccsd(t), casscf, nevpt2 or the name of a functional"
    )
    basis: str = Field(description="name of the basis set, such as cc-pvdz")
    density_fit: bool = Field(
        False, description="whether density fitting is used, for hf and DFT"
    )
    dispersion: Literal["d3bj", "d3zero", "d4"] | None = Field(
        None, description="dispersion correction, for DFT; none by default"
    )
    frozen_core: bool = Field(
        False, description="whether core electrons are left uncorrelated"
    )
    active_space: ActiveSpace | None = Field(
        None, description="active electrons and orbitals, for casscf and nevpt2"
    )
    reference: Literal["auto", "unrestricted"] | None = Field(
        None, description="restricted for singlets (auto), or always unrestricted"
    )
    stability: Literal["auto", "always", "never"] | None = Field(
        None, description="when the solution of the first rung is tested for stability"
    )
    ecp: str | None = Field(
        None, description="name of the effective core potentials; none by default"
    )
    aux_basis: str | None = Field(
        None,
        description="auxiliary basis of density fitting; by default PySCF's",
    )
    grid: Annotated[int, Field(ge=0, le=9)] | None = Field(
        None, description="level of PySCF's integration grid, for DFT"
    )
    grid_response: bool | None = Field(
        None, description="whether forces include the response of the grid, for DFT"
    )
    conv_tol: Positive | None = Field(
        None, description="convergence threshold of the SCF energy, hartree"
    )
    conv_tol_grad: Positive | None = Field(
        None, description="convergence threshold of the SCF gradient, atomic units"
    )
    max_cycle: Count | None = Field(None, description="most SCF cycles on each rung")
    ladder: Annotated[tuple[str, ...], Loose] | None = Field(
        None,
        description="SCF settings (rungs) tried until the SCF converges",
    )
    init_guess: str | None = Field(
        None, description="PySCF's name of the initial guess"
    )
    max_memory: Count | None = Field(
        None, description="memory that PySCF may plan with, MB"
    )
    cc_conv_tol: Positive | None = Field(
        None, description="convergence threshold of the coupled-cluster energy, hartree"
    )
    cc_conv_tol_normt: Positive | None = Field(
        None, description="convergence threshold of the coupled-cluster amplitudes"
    )
    cc_max_cycle: Count | None = Field(None, description="most coupled-cluster cycles")
    cas_conv_tol: Positive | None = Field(
        None, description="convergence threshold of the CASSCF energy, hartree"
    )
    cas_conv_tol_grad: Positive | None = Field(
        None, description="convergence threshold of the CASSCF gradient, atomic units"
    )
    cas_max_cycle: Count | None = Field(None, description="most CASSCF cycles")
    device: Literal["cpu", "gpu"] | None = Field(
        None,
        description="where the SCF and its gradient run, for hf and DFT; gpu: on a "
        "card, by GPU4PySCF",
    )
    kpoints: Annotated[tuple[Count, Count, Count], Loose] | None = Field(
        None,
        description="mesh of k-points such as [2, 1, 1]: the level is for cells",
    )
    pseudo: str | None = Field(
        None, description="name of the pseudopotential, for cells"
    )
    ke_cutoff: Positive | None = Field(
        None, description="kinetic-energy cutoff of plane waves, hartree, for cells"
    )

    def base_level(self) -> Level:
        """Return the level with all settings."""
        settings = self.model_dump(exclude=_NO_SETTINGS, exclude_none=True)
        lists = {key: list(x) for key, x in settings.items() if isinstance(x, tuple)}
        return pyscf_level(**{**settings, **lists})


class Xtb(LevelSection):
    """Extended tight binding by tblite, `pip install alloop[xtb]`."""

    kind: Literal["xtb"]
    method: str = Field("gfn2-xtb", description="gfn1-xtb or gfn2-xtb")
    spin_polarized: bool = Field(
        False, description="whether the spin-polarised variant spGFN-xTB is used"
    )
    accuracy: Positive = Field(
        0.01, description="accuracy in tblite's units; smaller is tighter"
    )
    temperature: NotNegative = Field(300.0, description="electronic temperature, K")
    max_cycle: Count = Field(250, description="most self-consistency cycles")

    def base_level(self) -> Level:
        """Return the level with all settings."""
        return xtb_level(**self.model_dump(exclude=_NO_SETTINGS))


class _Code(LevelSection):
    """A level that is code, whose module may lie beside the file that names it."""

    code_folder: str = Field(
        "",
        description="folder of the module where Python does not find it; alloop fills "
        "in that of this file if the module lies there",
    )

    def placed(self, level: Level) -> Level:
        """Return a level with the folder of its code, if there is one."""
        if not self.code_folder:
            return level
        return make_level(level.kind, {**level.settings, CODE_FOLDER: self.code_folder})


class Ase(_Code):
    """Any ASE calculator that gives energy and forces."""

    kind: Literal["ase"]
    calculator: str = Field(description="import path, such as ase.calculators.emt.EMT")
    arguments: dict[str, Any] = Field(
        {}, description="keyword arguments of the calculator"
    )

    def base_level(self) -> Level:
        """Return the level, identified by path and arguments."""
        return self.placed(ase_level(self.calculator, self.arguments))


class _Stored(LevelSection):
    """A level that is a file, identified by its content: the file may be moved."""

    path: str = Field(description="path of the file, relative to this YAML file")
    content: str = Field("", description="hash of the file, which alloop fills in")

    @model_validator(mode="before")
    @classmethod
    def _named_by_content(cls, section: Any) -> Any:
        if not isinstance(section, Mapping) or not isinstance(section.get("path"), str):
            return section
        path = Path(section["path"]).absolute()
        try:
            content = section.get("content") or file_content(path)
        except InputError as error:
            raise ValueError(str(error)) from error
        return {**section, "path": str(path), "content": content}


class Table(SpinState, _Stored):
    """A stored set of labelled frames: extxyz, an ASE database or an npz."""

    kind: Literal["table"]
    energy_unit: Energy | None = Field(
        None, description="unit of the energies; by default eV, but not for npz"
    )
    length_unit: Length | None = Field(
        None,
        description="unit of the positions; by default angstrom, but not for npz",
    )
    force_unit: str | None = Field(
        None,
        description="unit of the forces; by default energy_unit/length_unit",
    )
    energy_key: str | None = Field(
        None,
        description="name of the energies; by default a usual one",
    )
    forces_key: str | None = Field(
        None,
        description="name of the forces; by default a usual one",
    )
    charge: int | None = Field(
        None, description="total charge, e; by default the file's, or 0"
    )
    recheck: Annotated[float, Field(ge=0, le=0)] = Field(
        0.0, description="always 0, since a table has no noise"
    )

    def base_level(self) -> Level:
        """Return the level, identified by the file's content, units and keys."""
        return table_level(**self.model_dump(exclude=_NO_SETTINGS))


class Model(_Stored):
    """A trained alloop model, such as `alloop export --model` writes."""

    kind: Literal["model"]
    outside: bool = Field(
        False,
        description="whether frames beyond the training domain are allowed",
    )

    def base_level(self) -> Level:
        """Return the level, identified by the file's content."""
        return model_level(self.path, content=self.content, outside=self.outside)


class Toy(LevelSection):
    """Morse pairs in place of quantum chemistry, for trials that take seconds."""

    kind: Literal["toy"]
    stiffness: Positive = Field(
        1.0, description="factor of the depth of every Morse well"
    )
    stretch: float = Field(0.0, description="length added to every bond, Å")
    offset: float = Field(0.0, description="energy added for each atom, eV")
    burn: NotNegative = Field(0.0, description="CPU time wasted on each label, s")
    fail_above: Positive | None = Field(
        None,
        description="largest distance of a pair above which a label does not "
        "converge, Å; none by default",
    )

    @model_validator(mode="before")
    @classmethod
    def _without_fault(cls, section: Any) -> Any:
        """Drop the empty key `fault` that configurations in older stores hold."""
        if isinstance(section, Mapping) and section.get("fault") == "":
            return {key: value for key, value in section.items() if key != "fault"}
        return section

    def base_level(self) -> Level:
        """Return the level of these settings."""
        return toy_level(**self.model_dump(exclude=_NO_SETTINGS))


class Program(_Code):
    """A program of the user: a function (frame, settings) -> Result."""

    kind: str = Field(
        description="import path of the function, `package.module:function`"
    )
    settings: dict[str, Any] = Field({}, description="settings that the function gets")

    def base_level(self) -> Level:
        """Return the level, identified by path and settings."""
        return self.placed(make_level(self.kind, self.settings))


PartLevel: TypeAlias = Annotated[
    Annotated[Pyscf, union_tag("pyscf")]
    | Annotated[Xtb, union_tag("xtb")]
    | Annotated[Toy, union_tag("toy")],
    by_kind(),
    BeforeValidator(expand_level),
]
_CAMPAIGN_DEFAULTS = {
    key: LevelSection.model_fields[key].default for key in ("doubts", "recheck")
}


class SumPart(Section):
    """A level in a sum and its factor; also LEVEL alone, or `minus: LEVEL`."""

    factor: float = Field(1.0, description="factor of the energy and forces")
    level: PartLevel = Field(description="level of pyscf, xtb or toy")

    @model_validator(mode="after")
    def _no_campaign_keys(self) -> Self:
        for key, default in _CAMPAIGN_DEFAULTS.items():
            if getattr(self.level, key) != default:
                raise ValueError(
                    f"expected `{key}` beside `sum:`, for the sum as a whole, got it "
                    "in a part; move it"
                )
        return self


def _spelled_part(value: Any) -> Any:
    """Return a part in any notation as a mapping of `factor` and `level`."""
    if isinstance(value, Mapping) and value.keys() == {"minus"}:
        value = {"factor": -1.0, "level": value["minus"]}
    elif not isinstance(value, Section | Mapping) or "factor" not in {*dict(value)}:
        value = {"factor": 1.0, "level": value}
    if not isinstance(value, Mapping):
        return value
    try:
        level = expand_sum(expand_level(value.get("level")))
    except ValueError:  # told where the part is validated
        return value
    return {**value, "level": level}


def _spelled_parts(parts: Any) -> Any:
    if not isinstance(parts, list | tuple):
        return parts
    return flat_parts(_spelled_part(part) for part in parts)


def expand_sum(level: Any) -> Any:
    """Return a level with its parts in one notation, those of inner sums among them."""
    if not isinstance(level, Mapping) or SUM not in level:
        return level
    return {"kind": SUM, **level, SUM: _spelled_parts(level[SUM])}


class Sum(LevelSection):
    """A composite level: a sum of levels, with a sign or factor each."""

    kind: Literal["sum"]
    sum: Annotated[tuple[SumPart, ...], Loose, Field(min_length=2)] = Field(
        description="levels that are added; `minus: LEVEL` is taken off, and "
        "`{factor: NUMBER, level: LEVEL}` is scaled"
    )

    def base_level(self) -> Level:
        """Return the level with all settings of its parts."""
        return sum_level((part.factor, part.level.build()) for part in self.sum)


AnyLevel: TypeAlias = Annotated[
    Annotated[Pyscf, union_tag("pyscf")]
    | Annotated[Xtb, union_tag("xtb")]
    | Annotated[Ase, union_tag("ase")]
    | Annotated[Table, union_tag("table")]
    | Annotated[Model, union_tag("model")]
    | Annotated[Universal, union_tag("universal")]
    | Annotated[Toy, union_tag("toy")]
    | Annotated[Sum, union_tag("sum")]
    | Annotated[Program, union_tag("program")],
    by_kind(paths="program"),
    BeforeValidator(expand_sum),
    BeforeValidator(expand_level),
]


class Levels(Section):
    """The two levels of theory; without a cheap one, there is only one fidelity."""

    cheap: AnyLevel | None = Field(
        None, description="level of the many labels; without it there is one level only"
    )
    expensive: AnyLevel = Field(
        description="level of the few labels, which counts as the truth"
    )

    def doubts(self, fidelity: Fidelity) -> Mapping[Doubt, str]:
        """Return the treatment of each doubt of a label: accept, flag or exclude."""
        return self._of(fidelity).verdicts()

    def recheck(self, fidelity: Fidelity) -> float:
        """Return the share of labels that are made again to measure their noise."""
        return self._of(fidelity).recheck

    def _of(self, fidelity: Fidelity) -> LevelSection:
        """Return the level of a fidelity; a single level serves as the cheap one."""
        level = self.cheap if fidelity == "cheap" else self.expensive
        return level or self.expensive
