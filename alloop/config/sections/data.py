"""The `start:`, `validation:` and `replay:` sections: molecules and supplied data."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from alloop.config.sections.base import (
    Count,
    LabelsOrNone,
    Section,
    Whole,
    by_key,
    setting_key,
    union_tag,
)
from alloop.config.sections.explore import Temperatures
from alloop.loop.rules import Examining, SeedRules
from alloop.md.dynamics import DynamicsSettings
from alloop.md.integrate import Langevin

Energy: TypeAlias = Literal["eV", "meV", "hartree", "kcal/mol", "kJ/mol"]
Length: TypeAlias = Literal["angstrom", "bohr", "nm"]
Fidelity: TypeAlias = Literal["cheap", "expensive"]


def _slice(value: Any) -> Any:
    return str(value) if isinstance(value, int) else value


class SpinState(Section):
    """The spin of structures, by the number of unpaired electrons or the multiplicity.

    A multiplicity is turned into `spin`, so that a store has one of them.
    """

    spin: Whole | None = Field(
        None, description="unpaired electrons, 2S; by default the file's, or 0"
    )
    multiplicity: Count | None = Field(
        None, description="2S + 1, in place of `spin`: 1 for a singlet, 2 for a doublet"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_spin(cls, section: Any) -> Any:
        if not isinstance(section, Mapping) or section.get("multiplicity") is None:
            return section
        if section.get("spin") is not None:
            raise ValueError(
                "expected `spin` (2S) or `multiplicity` (2S + 1), got both; leave one "
                "out"
            )
        multiplicity = section["multiplicity"]
        if type(multiplicity) is not int or multiplicity < 1:
            return section
        rest = {key: x for key, x in section.items() if key != "multiplicity"}
        return {**rest, "spin": multiplicity - 1}


class Molecule(SpinState):
    """A molecule by its name."""

    molecule: str = Field(
        description="formula or name of a small molecule, such as H2O or methanol"
    )
    charge: int = Field(0, description="total charge, e")
    spin: Whole | None = Field(
        None,
        description="number of unpaired electrons, 2S; by default that of the "
        "molecule's ground state",
    )


class Smiles(SpinState):
    """Conformers of a molecule by its SMILES; walkers start from all of them."""

    smiles: str = Field(description="SMILES of the molecule, with its charges: `CCO`")
    conformers: int = Field(
        20, description="most conformers that are made by RDKit", ge=1, le=1000
    )
    spin: Whole | None = Field(
        None,
        description="number of unpaired electrons, 2S; by default that of the SMILES",
    )


class File(SpinState):
    """Structures in any format that ASE reads; each is a separate start."""

    file: str = Field(description="path of the structures, relative to this YAML file")
    index: Annotated[str, BeforeValidator(_slice)] = Field(
        ":",
        description="frames to take, written as in Python (`0`, `:10`); by default all",
    )
    charge: int | None = Field(
        None, description="total charge, e; by default the file's, or 0"
    )
    conformers: bool = Field(
        False,
        description="whether the structures are conformers of one molecule, so that "
        "they are one start",
    )


class Units(SpinState):
    """The units and keys of a file's numbers, which have no default units."""

    energy_unit: Energy = Field(description="unit of the energies")
    length_unit: Length = Field(description="unit of the positions")
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


class Labels(Units):
    """Labelled frames for training: extxyz, npz or an ASE database."""

    labels: str = Field(
        description="path of the labelled frames, relative to this YAML file"
    )
    level: Fidelity = Field(description="level at which the labels were made")


class Store(Section):
    """Labels of another campaign, made at the same levels."""

    store: str = Field(description="path of the store, relative to this YAML file")


class Examined(Section):
    """The examination: MD on the best generation.

    Its frames are labelled at the expensive level and never trained on.
    """

    examination: int = setting_key(Examining, "examination")
    examination_spacing: int = setting_key(Examining, "examination_spacing")
    examination_equilibration: int = setting_key(Examining, "examination_equilibration")
    beyond: LabelsOrNone | None = Field(
        None,
        description="frames with bonds turned and stretched at random that the model "
        "is tested on beside the examination; by default a third of `examination`, "
        "none without `shapes`",
    )


class Sampled(Examined):
    """A validation set made by MD at the cheap level, labelled at the expensive one."""

    frames: int = setting_key(SeedRules, "frames")
    examination: int = setting_key(
        Examining,
        "examination",
        default=20,
        description="frames of the examination, from MD on the model; 0 for none",
    )
    temperature: Temperatures | None = Field(
        None,
        description="temperature of the MD of validation set and examination, K, or "
        "several that walkers have in turn; by default those of `explore`",
    )
    timestep: float = setting_key(
        DynamicsSettings,
        "timestep",
        description="time step of the MD at the cheap level, fs",
    )
    friction: float = setting_key(
        Langevin,
        "friction",
        default=0.02,
        description="friction of its thermostat, 1/fs",
    )
    each: int = setting_key(SeedRules, "each")
    spacing: Count = Field(20, description="MD steps between two of these frames")


class Shared(Store, Examined):
    """The validation set of another campaign with the same levels."""


class Labelled(Units, Examined):
    """Validation frames of the user, labelled at the expensive level."""

    file: str = Field(
        description="path of the labelled frames, relative to this YAML file"
    )


Start: TypeAlias = Annotated[
    Annotated[Molecule, union_tag("molecule")]
    | Annotated[Smiles, union_tag("smiles")]
    | Annotated[File, union_tag("file")]
    | Annotated[Labels, union_tag("labels")]
    | Annotated[Store, union_tag("store")],
    by_key("molecule", "smiles", "file", "labels", "store"),
]
Validation: TypeAlias = Annotated[
    Annotated[Sampled, union_tag("sampled")]
    | Annotated[Labelled, union_tag("file")]
    | Annotated[Shared, union_tag("store")],
    by_key("file", "store", otherwise="sampled"),
]


_Head: TypeAlias = Literal["shared", "own"]
_Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
_SHARE = Field(
    0.3, description="share of the replayed frames in the loss of each stage"
)


_HEAD: Any = Field(
    "shared",
    description="readouts of replayed frames: those of the model, or a head of their "
    "own that is left out of it (a universal potential's)",
)


class ReplayedLabels(Units):
    """Labelled frames, such as a part of what the potential was trained on."""

    labels: str = Field(
        description="path of the labelled frames, relative to this YAML file"
    )
    share: _Share = _SHARE
    head: _Head = _HEAD


class ReplayedFrames(File):
    """Frames without labels, which the potential labels itself before fine-tuning."""

    share: _Share = _SHARE
    head: _Head = _HEAD


Replay: TypeAlias = Annotated[
    Annotated[ReplayedLabels, union_tag("labels")]
    | Annotated[ReplayedFrames, union_tag("file")],
    by_key("labels", "file"),
]
