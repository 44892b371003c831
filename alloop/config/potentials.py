"""The `potential:` section: which network, or which model to start from."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from alloop.config.base import Count, Section, by_kind, tag

Cutoff: TypeAlias = Annotated[float, Field(gt=0, le=20)]


class Painn(Section):
    """PaiNN, an equivariant message-passing network (Schütt et al., 2021)."""

    kind: Literal["painn"] = "painn"
    channels: Count = Field(64, description="features of an atom")
    layers: Count = Field(3, description="rounds of messages")
    radial: Count = Field(8, description="radial functions")
    cutoff: Cutoff = Field(5.0, description="how far atoms see, Å")


class Egnn(Section):
    """E(n)-equivariant network (Satorras et al., 2021)."""

    kind: Literal["egnn"] = "egnn"
    channels: Count = Field(128, description="features of an atom")
    layers: Count = Field(5, description="rounds of messages")
    radial: Count = Field(8, description="radial functions")
    cutoff: Cutoff = Field(5.0, description="how far atoms see, Å")


class Pairwise(Section):
    """Pair functions fitted by least squares: to try things out in seconds."""

    kind: Literal["pairwise"] = "pairwise"
    radial: Annotated[int, Field(ge=2)] = Field(12, description="functions a pair")
    cutoff: Cutoff = Field(5.0, description="how far atoms see, Å")


class Ready(Section):
    """A model file that `alloop export --model` wrote: generation 0 and parent."""

    kind: Literal["file"]
    path: str = Field(description="path, relative to this YAML file")
    network: dict[str, Any] | None = Field(
        None, description="kind and settings of its network, filled in from the file"
    )


Potential: TypeAlias = Annotated[
    Annotated[Painn, tag("painn")]
    | Annotated[Egnn, tag("egnn")]
    | Annotated[Pairwise, tag("pairwise")]
    | Annotated[Ready, tag("file")],
    by_kind("painn"),
]
