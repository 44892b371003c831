"""The `potential:` section: the network, or the model to start from.

The sections of networks are made from the records in `alloop.models.settings`.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field, create_model, model_validator

from alloop.config.sections.base import (
    Section,
    build_record,
    by_kind,
    setting_keys,
    union_tag,
)
from alloop.core.errors import InputError
from alloop.models.settings import NETWORKS, NetworkSettings
from alloop.models.universal.pretrained import Pretrained

DEFAULT = "tensor-painn"
_UNTRAINED = ("ase", "pyscf", "xtb")  # kinds of levels
_create_section: Callable[..., type["PotentialSection"]] = create_model


class PotentialSection(Section):
    """The base of all kinds of `potential:`."""

    if TYPE_CHECKING:
        kind: str = ""


class NetworkSection(PotentialSection):
    """The setting that all untrained networks share."""

    repulsion: Literal["zbl", "none"] = Field(
        "zbl",
        description="repulsion added to the network for atoms far closer than bonds: "
        "ZBL, or none",
    )


def _network_section(record: type[NetworkSettings]) -> type[PotentialSection]:
    """Return the section of a kind of network: its keys, limits and descriptions."""
    default = record.kind if record.kind == DEFAULT else ...
    keys: dict[str, Any] = {"kind": (Literal[record.kind], default)}
    keys |= setting_keys(record)

    def checked(section: PotentialSection) -> PotentialSection:
        try:
            build_record(record, section)
        except InputError as error:
            raise ValueError(str(error)) from error
        return section

    validators: dict[str, Any] = {"checked": model_validator(mode="after")(checked)}
    return _create_section(
        record.__name__.removesuffix("Settings"),
        __base__=PotentialSection if record.pretrained else NetworkSection,
        __doc__=record.__doc__,
        __module__=__name__,
        __validators__=validators,
        **keys,
    )


class Pairwise(PotentialSection):
    """Pair functions fitted by least squares, for trials that take seconds."""

    kind: Literal["pairwise"] = "pairwise"
    radial: Annotated[int, Field(ge=2, le=4096)] = Field(
        12, description="radial functions of each pair of elements"
    )
    cutoff: Annotated[float, Field(gt=0, le=20)] = Field(
        5.0, description="largest distance of two atoms that interact, Å"
    )


class Ready(PotentialSection):
    """A model file that `alloop export --model` wrote: generation 0 and parent."""

    kind: Literal["file"]
    path: str = Field(description="path of the model file, relative to this YAML file")
    network: dict[str, Any] | None = Field(
        None,
        description="kind and settings of its network, which alloop fills in from "
        "the file",
    )


def _refuse_level(value: Any) -> Any:
    """Return a potential unchanged; raise ValueError where it is a level of theory."""
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind in _UNTRAINED:
        raise ValueError(
            f"a level of kind {kind} cannot be trained; expected a network here, and "
            "such a level under `levels:` or in `alloop md`"
        )
    return value


NETWORK_SECTIONS = {kind: _network_section(NETWORKS[kind]) for kind in NETWORKS}
# Where pickle looks for them, for a worker makes its trainer from the plan.
globals().update({own.__name__: own for own in NETWORK_SECTIONS.values()})


def universal_weights(potential: PotentialSection) -> Pretrained | None:
    """Return the weights of a universal potential, None for other kinds.

    What its file says is left out where that cannot be read.
    """
    record = NETWORKS.get(potential.kind)
    if record is None or record.pretrained is None:
        return None
    try:
        return build_record(record, potential).weights
    except InputError:
        return record.pretrained


if TYPE_CHECKING:
    Potential = PotentialSection
else:
    _OTHERS = {"pairwise": Pairwise, "file": Ready}
    _TAGGED = tuple(
        Annotated[section, union_tag(kind)]
        for kind, section in (NETWORK_SECTIONS | _OTHERS).items()
    )
    Potential = Annotated[
        Union[_TAGGED],  # noqa: UP007
        by_kind(DEFAULT),
        BeforeValidator(_refuse_level),
    ]
