"""The settings of each kind of network: one frozen record a kind, without torch.

A record holds the defaults, the limits and the meaning of a network's settings. The
`potential:` section of a campaign, the settings in model files and the networks
themselves all come from it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from alloop.core.errors import InputError
from alloop.core.settings import setting
from alloop.models.universal.pretrained import Pretrained

if TYPE_CHECKING:
    from alloop.models.layers import Network

HEADED = (
    "painn",
    "tensor-painn",
    "gemnet",
)  # networks whose last layer can be a head of its own
BONDED = 2.0  # Å: atoms that are closer keep their trained envelope at any radius


def _count(default: int, description: str, smallest: int = 1) -> int:
    """Return a field for a size of the network."""
    return setting(default, description, ge=smallest, le=4096)


def _cutoff() -> float:
    """Return a field for a cutoff."""
    return setting(
        5.0, "largest distance of two atoms that exchange messages, Å", gt=0, le=20
    )


def _radius() -> float | None:
    """Return a field for the distance at which messages of a refined model end, Å.

    It takes the place of the cutoff, and no file of campaigns has it.
    """
    radius: float | None = field(default=None, metadata={"refined": True})
    return radius


def _frozen_part() -> Any:
    """Return a field for the part of a pretrained network that is not trained."""
    return setting("nothing", "part of the network that training leaves unchanged")


def check_radius(radius: float | None, cutoff: float) -> None:
    """Raise InputError for a radius that is too small or that the basis cannot reach.

    Radial functions are waves of period 2 cutoff: beyond that they repeat themselves.
    """
    if radius is None:
        return
    if cutoff <= BONDED:
        raise InputError(
            f"expected a network with a cutoff above {BONDED:g} Å to change its "
            f"radius, it has {cutoff:g} Å"
        )
    if not BONDED < radius <= 2.0 * cutoff:
        raise InputError(
            f"expected a radius above {BONDED:g} Å and up to {2.0 * cutoff:g} Å, twice "
            f"the cutoff that the network was trained with, got {radius:g} Å"
        )


@dataclass(frozen=True)
class NetworkSettings:
    """The base of the records; fields carry limits and descriptions as metadata.

    kind: the name in campaign and model files. network: module and class of the
    network, which takes the record. pretrained: the weights that it comes with, if any.
    """

    kind: ClassVar[str]
    network: ClassVar[str]
    pretrained: ClassVar[Pretrained | None] = None

    @property
    def values(self) -> dict[str, Any]:
        """The settings as JSON values, with all defaults spelled out.

        Those of refined models are left out elsewhere, and so are defaults of settings
        that came later, so that models are the same bytes as before.
        """
        added = [x for x in fields(self) if {"refined", "later"} & set(x.metadata)]
        left_out = {x.name: x.default for x in added}
        values = asdict(self).items()
        return {k: x for k, x in values if k not in left_out or x != left_out[k]}

    @property
    def weights(self) -> Pretrained | None:
        """The weights that it comes with, for the elements that they know."""
        return self.pretrained

    def network_class(self) -> "type[Network]":
        """Import and return the class of the network."""
        module, _, name = self.network.partition(":")
        network: type[Network] = getattr(import_module(module), name)
        return network


@dataclass(frozen=True)
class PaiNNSettings(NetworkSettings):
    """PaiNN, an equivariant message-passing network (Schütt et al., 2021)."""

    kind: ClassVar[str] = "painn"
    network: ClassVar[str] = "alloop.models.networks.painn:PaiNN"
    channels: int = _count(64, "features of each atom")
    layers: int = _count(3, "layers of message passing")
    radial: int = _count(8, "radial basis functions")
    cutoff: float = _cutoff()
    radius: float | None = _radius()
    softening: float = setting(
        1e-4,
        "number added to squared lengths of vector features; 0.1 makes wavenumbers and "
        "higher derivatives smooth",
        gt=0,
        le=100,
        later=True,
    )

    def __post_init__(self) -> None:
        """Raise InputError for a radius that the network cannot use."""
        check_radius(self.radius, self.cutoff)


@dataclass(frozen=True)
class TensorPaiNNSettings(PaiNNSettings):
    """PaiNN with second-rank tensors and products of three features."""

    kind: ClassVar[str] = "tensor-painn"
    network: ClassVar[str] = "alloop.models.networks.tensor_painn:TensorPaiNN"


@dataclass(frozen=True)
class EGNNSettings(NetworkSettings):
    """E(n)-equivariant network (Satorras et al., 2021)."""

    kind: ClassVar[str] = "egnn"
    network: ClassVar[str] = "alloop.models.networks.egnn:EGNN"
    channels: int = _count(128, "features of each atom")
    layers: int = _count(5, "layers of message passing")
    radial: int = _count(8, "radial basis functions")
    cutoff: float = _cutoff()


@dataclass(frozen=True)
class TensorNetSettings(NetworkSettings):
    """TensorNet, equivariant messages of 3x3 tensors (Simeon, De Fabritiis, 2023)."""

    kind: ClassVar[str] = "tensornet"
    network: ClassVar[str] = "alloop.models.networks.tensornet:TensorNet"
    channels: int = _count(64, "tensors of each atom")
    layers: int = _count(2, "layers of message passing")
    radial: int = _count(8, "radial basis functions")
    cutoff: float = _cutoff()


@dataclass(frozen=True)
class GemNetSettings(NetworkSettings):
    """GemNet-T, edge messages that depend on angles (Gasteiger et al., 2021).

    The paper has channels 128, narrow 64 and layers 4.
    """

    kind: ClassVar[str] = "gemnet"
    network: ClassVar[str] = "alloop.models.networks.gemnet:GemNet"
    channels: int = _count(64, "features of each atom and of each edge")
    narrow: int = _count(32, "features of each triplet of atoms")
    layers: int = _count(3, "layers of message passing")
    spherical: int = _count(7, "angular basis functions")
    radial: int = _count(6, "radial basis functions")
    cutoff: float = _cutoff()
    radius: float | None = _radius()

    def __post_init__(self) -> None:
        """Raise InputError for a radius that the network cannot use."""
        check_radius(self.radius, self.cutoff)


@dataclass(frozen=True)
class SchNetSettings(NetworkSettings):
    """SchNet, from torch-geometric (Schütt et al., 2017)."""

    kind: ClassVar[str] = "schnet"
    network: ClassVar[str] = "alloop.models.networks.schnet:SchNet"
    channels: int = _count(128, "features of each atom")
    layers: int = _count(6, "layers of message passing")
    radial: int = _count(25, "radial basis functions", smallest=2)
    cutoff: float = _cutoff()


@dataclass(frozen=True)
class ViSNetSettings(NetworkSettings):
    """ViSNet, from torch-geometric (Wang et al., 2024)."""

    kind: ClassVar[str] = "visnet"
    network: ClassVar[str] = "alloop.models.networks.visnet:ViSNet"
    channels: int = _count(64, "features of each atom, a multiple of `heads`")
    heads: int = _count(8, "attention heads")
    layers: int = _count(4, "layers of message passing")
    radial: int = _count(32, "radial basis functions")
    cutoff: float = _cutoff()

    def __post_init__(self) -> None:
        """Raise InputError for channels that are not a multiple of heads."""
        if self.channels % self.heads:
            raise InputError(
                f"expected channels to be a multiple of heads ({self.heads}), "
                f"got {self.channels}"
            )


@dataclass(frozen=True)
class CHGNetSettings(NetworkSettings):
    """CHGNet, a universal potential to fine-tune (Deng et al., 2023)."""

    kind: ClassVar[str] = "chgnet"
    network: ClassVar[str] = "alloop.models.universal.chgnet:CHGNet"
    pretrained: ClassVar[Pretrained | None] = Pretrained(
        name="chgnet",
        package="chgnet",
        distribution="chgnet",
        extra="chgnet",
        elements=frozenset(range(1, 95)),
        states="one",
    )
    version: Literal["0.3.0", "r2scan"] = setting(
        "0.3.0", "version of the pretrained weights"
    )
    freeze: Literal["nothing", "embeddings", "body"] = _frozen_part()


@dataclass(frozen=True)
class SO3LRSettings(NetworkSettings):
    """SO3LR, a universal potential of molecules to fine-tune (Kabylda et al., 2024)."""

    kind: ClassVar[str] = "so3lr"
    network: ClassVar[str] = "alloop.models.universal.so3lr:SO3LR"
    pretrained: ClassVar[Pretrained | None] = Pretrained(
        name="so3lr",
        package="so3krates_torch",
        distribution="so3krates-torch",
        extra="so3lr",
        elements=frozenset((1, 6, 7, 8, 9, 15, 16, 17)),
        states="any",
    )
    long_range: float = setting(
        1000.0,
        "distance at which electrostatics and dispersion end, Å; 12 in a cell",
        ge=4.5,
        le=1000,
    )
    freeze: Literal["nothing", "embeddings", "body"] = _frozen_part()


@dataclass(frozen=True)
class ANISettings(NetworkSettings):
    """ANI-1x, a universal potential of H, C, N, O molecules (Smith et al., 2018)."""

    kind: ClassVar[str] = "ani"
    network: ClassVar[str] = "alloop.models.universal.ani:ANI"
    pretrained: ClassVar[Pretrained | None] = Pretrained(
        name="ani",
        package="torchani",
        distribution="torchani",
        extra="ani",
        elements=frozenset((1, 6, 7, 8)),
        states="neutral",
    )
    member: int = setting(
        0, "one of the eight members, 1 to 8; 0 for the mean of all", ge=0, le=8
    )
    freeze: Literal["nothing", "body"] = _frozen_part()


@dataclass(frozen=True)
class ConvertedSettings(NetworkSettings):
    """A universal potential with weights that `alloop convert` made from a file."""

    path: str = setting(
        "", "converted file, relative to this YAML file; `alloop convert` writes it"
    )
    head: str = setting("", "head (data set) of a file that has several")
    identity: str = setting("", "content of the file, which alloop fills in")
    licence: str = setting("", "licence of the weights, which alloop fills in")
    freeze: Literal["nothing", "embeddings", "body"] = _frozen_part()
    model: dict[str, Any] | None = field(default=None, metadata={"refined": True})

    def description(self) -> dict[str, Any]:
        """Return what describes the network: of the trained model, or in its file."""
        from alloop.models.universal.converted import read_converted

        return self.model or dict(
            read_converted(self.path, self.identity, self.kind).settings
        )

    @property
    def weights(self) -> Pretrained | None:
        """The elements and states that its file, or the trained model, is for."""
        from alloop.models.universal.converted import chosen_head

        model = self.description()
        chosen_head(model, self.head)
        return replace(
            cast("Pretrained", self.pretrained),
            elements=frozenset(model["elements"]),
            states="any" if model.get("states") else "one",
        )


def _converted(kind: str) -> Pretrained:
    return Pretrained(
        name=kind,
        package="alloop",
        distribution="alloop",
        extra=kind,
        elements=frozenset(range(1, 119)),
        states="one",
    )


@dataclass(frozen=True)
class MACESettings(ConvertedSettings):
    """MACE, with weights that `alloop convert` made from a file of the user."""

    kind: ClassVar[str] = "mace"
    network: ClassVar[str] = "alloop.models.universal.mace:MACE"
    pretrained: ClassVar[Pretrained | None] = _converted("mace")


@dataclass(frozen=True)
class SevenNetSettings(ConvertedSettings):
    """SevenNet, with weights that `alloop convert` made from those of the package."""

    kind: ClassVar[str] = "sevennet"
    network: ClassVar[str] = "alloop.models.universal.sevennet:SevenNet"
    pretrained: ClassVar[Pretrained | None] = _converted("sevennet")


NETWORKS: dict[str, type[NetworkSettings]] = {
    record.kind: record
    for record in (
        PaiNNSettings,
        TensorPaiNNSettings,
        EGNNSettings,
        TensorNetSettings,
        GemNetSettings,
        SchNetSettings,
        ViSNetSettings,
        CHGNetSettings,
        SO3LRSettings,
        ANISettings,
        MACESettings,
        SevenNetSettings,
    )
}


def network_settings(
    kind: str, settings: Mapping[str, Any] | None = None
) -> NetworkSettings:
    """Return the record of a network; settings that are not given have defaults.

    Raises InputError for an unknown kind or setting.
    """
    if kind not in NETWORKS:
        raise InputError(
            f"expected a network of kind {' or '.join(NETWORKS)}, got {kind!r}"
        )
    names = [setting.name for setting in fields(NETWORKS[kind])]
    wrong = sorted(set(settings or ()) - set(names))
    if wrong:
        raise InputError(
            f"{kind} has no setting {', '.join(wrong)}; it has {', '.join(names)}"
        )
    return NETWORKS[kind](**(settings or {}))


def pretrained(kind: str) -> Pretrained | None:
    """Return the trained weights that a network comes with, None for others."""
    return NETWORKS[kind].pretrained if kind in NETWORKS else None


def is_pretrained(kind: str) -> bool:
    """Return True for a network that comes with trained weights."""
    return pretrained(kind) is not None
