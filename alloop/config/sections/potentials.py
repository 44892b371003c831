"""The `potential:` section: the network, or the model to start from."""

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from alloop.config.sections.base import LayerSize, Section, by_kind, union_tag

Cutoff: TypeAlias = Annotated[float, Field(gt=0, le=20)]


class Network(Section):
    """The setting that all untrained networks share."""

    repulsion: Literal["zbl", "none"] = Field(
        "zbl", description="of atoms far closer than bonds, known and not learned"
    )


class Painn(Network):
    """PaiNN, an equivariant message-passing network (Schütt et al., 2021)."""

    kind: Literal["painn"] = "painn"
    channels: LayerSize = Field(64, description="features of an atom")
    layers: LayerSize = Field(3, description="rounds of messages")
    radial: LayerSize = Field(8, description="radial functions")
    cutoff: Cutoff = Field(5.0, description="how far atoms see, Å")


class Egnn(Network):
    """E(n)-equivariant network (Satorras et al., 2021)."""

    kind: Literal["egnn"] = "egnn"
    channels: LayerSize = Field(128, description="features of an atom")
    layers: LayerSize = Field(5, description="rounds of messages")
    radial: LayerSize = Field(8, description="radial functions")
    cutoff: Cutoff = Field(5.0, description="how far atoms see, Å")


class Tensornet(Network):
    """TensorNet, equivariant messages of 3x3 tensors (Simeon, De Fabritiis, 2023)."""

    kind: Literal["tensornet"]
    channels: LayerSize = Field(64, description="tensors of an atom")
    layers: LayerSize = Field(2, description="rounds of messages")
    radial: LayerSize = Field(8, description="radial functions")
    cutoff: Cutoff = Field(5.0, description="how far atoms see, Å")


class Gemnet(Network):
    """GemNet-T, edge messages that depend on angles (Gasteiger et al., 2021).

    The paper has channels 128, narrow 64 and layers 4.
    """

    kind: Literal["gemnet"]
    channels: LayerSize = Field(64, description="features of an atom and of an edge")
    narrow: LayerSize = Field(32, description="features of a triplet")
    layers: LayerSize = Field(3, description="rounds of messages")
    spherical: LayerSize = Field(7, description="angular functions")
    radial: LayerSize = Field(6, description="radial functions")
    cutoff: Cutoff = Field(5.0, description="how far atoms see, Å")


class Schnet(Network):
    """SchNet, from torch-geometric (Schütt et al., 2017)."""

    kind: Literal["schnet"]
    channels: LayerSize = Field(128, description="features of an atom")
    layers: LayerSize = Field(6, description="rounds of messages")
    radial: Annotated[int, Field(ge=2, le=4096)] = Field(
        25, description="radial functions"
    )
    cutoff: Cutoff = Field(5.0, description="how far atoms see, Å")


class Visnet(Network):
    """ViSNet, from torch-geometric (Wang et al., 2024)."""

    kind: Literal["visnet"]
    channels: LayerSize = Field(
        64, description="features of an atom, a multiple of heads"
    )
    heads: LayerSize = Field(8, description="heads of the attention")
    layers: LayerSize = Field(4, description="rounds of messages")
    radial: LayerSize = Field(32, description="radial functions")
    cutoff: Cutoff = Field(5.0, description="how far atoms see, Å")

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.channels % self.heads:
            raise ValueError(
                f"expected channels to be a multiple of heads ({self.heads}), "
                f"got {self.channels}"
            )
        return self


class Pairwise(Section):
    """Pair functions fitted by least squares, for trials that take seconds."""

    kind: Literal["pairwise"] = "pairwise"
    radial: Annotated[int, Field(ge=2, le=4096)] = Field(
        12, description="functions a pair"
    )
    cutoff: Cutoff = Field(5.0, description="how far atoms see, Å")


class Chgnet(Section):
    """CHGNet, a universal potential to fine-tune (Deng et al., 2023)."""

    kind: Literal["chgnet"]
    version: Literal["0.3.0", "r2scan"] = Field("0.3.0", description="of its weights")
    freeze: Literal["nothing", "embeddings", "body"] = Field(
        "nothing", description="what training leaves alone"
    )


class Ready(Section):
    """A model file that `alloop export --model` wrote: generation 0 and parent."""

    kind: Literal["file"]
    path: str = Field(description="path, relative to this YAML file")
    network: dict[str, Any] | None = Field(
        None, description="kind and settings of its network, filled in from the file"
    )


Potential: TypeAlias = Annotated[
    Annotated[Painn, union_tag("painn")]
    | Annotated[Egnn, union_tag("egnn")]
    | Annotated[Tensornet, union_tag("tensornet")]
    | Annotated[Gemnet, union_tag("gemnet")]
    | Annotated[Schnet, union_tag("schnet")]
    | Annotated[Visnet, union_tag("visnet")]
    | Annotated[Pairwise, union_tag("pairwise")]
    | Annotated[Chgnet, union_tag("chgnet")]
    | Annotated[Ready, union_tag("file")],
    by_kind("painn"),
]
