"""The `flag:` section: the choice of the frames that are labelled."""

from abc import abstractmethod
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from alloop.config.sections.base import (
    Section,
    build_record,
    by_kind,
    setting_key,
    union_tag,
)
from alloop.core.roles import Scorer, Selector
from alloop.loop.rules import Rules, Triage
from alloop.scores.calibrate import ScorerSettings
from alloop.scores.committee import CommitteeScorer
from alloop.scores.connectivity import ConnectivityScorer
from alloop.scores.leverage import LeverageScorer
from alloop.scores.qresidual import QResidualScorer
from alloop.selection import (
    LargestCluster,
    MostSurprising,
    PerMolecule,
    RandomChoice,
)


class SelectionSection(Section):
    """The selection of frames from those that MD found; its kind alone will do."""

    @model_serializer(mode="wrap")
    def _short(self, serialise: SerializerFunctionWrapHandler) -> Any:
        """Return the kind alone where all else is the default."""
        tree = serialise(self)
        default = type(self).model_validate({"kind": tree["kind"]})
        return tree["kind"] if self == default else tree

    @abstractmethod
    def selector(self, fill: bool) -> Selector:
        """Return the selector; fill: spend the quota below the threshold too."""


class SharedSelection(SelectionSection):
    """A selection by surprise and distance, with its share for each molecule."""

    molecules: Literal["equal", "pooled"] = Field(
        "equal",
        description="parts of the molecules: equal ones, or whatever surprise gives "
        "them",
    )
    duplicate: float = setting_key(MostSurprising, "duplicate")

    def selector(self, fill: bool) -> Selector:
        """Return the selector, for molecules in turn or for all at once."""
        rule = self.rule(fill)
        return PerMolecule(rule) if self.molecules == "equal" else rule

    @abstractmethod
    def rule(self, fill: bool) -> Selector:
        """Return the selector for the frames of one molecule."""


class SurpriseSelection(SharedSelection):
    """Surprising frames that differ from each other and from those trained on."""

    kind: Literal["surprise"] = "surprise"
    balance: float = setting_key(MostSurprising, "balance")

    def rule(self, fill: bool) -> Selector:
        """Return the selector of surprising frames."""
        return build_record(MostSurprising, self, fill=fill)


class ClusterSelection(SharedSelection):
    """The farthest frame of the largest cluster (LCMD, Holzmüller et al., 2023)."""

    kind: Literal["clusters"]

    def rule(self, fill: bool) -> Selector:
        """Return the selector by clusters."""
        return build_record(LargestCluster, self, fill=fill)


class RandomSelection(SelectionSection):
    """Random frames, as a control."""

    kind: Literal["random"]

    def selector(self, fill: bool) -> Selector:  # noqa: ARG002
        """Return the selector of random frames, molecules in turn."""
        return PerMolecule(RandomChoice())


def _with_kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Selection: TypeAlias = Annotated[
    Annotated[SurpriseSelection, union_tag("surprise")]
    | Annotated[ClusterSelection, union_tag("clusters")]
    | Annotated[RandomSelection, union_tag("random")],
    by_kind("surprise"),
    BeforeValidator(
        _with_kind,
        json_schema_input_type=Literal["surprise", "clusters", "random"]
        | SurpriseSelection
        | ClusterSelection
        | RandomSelection,
    ),
]


class FlagSection(Section):
    """The settings of the choice that do not depend on the kind of surprise."""

    quantile: float = setting_key(ScorerSettings, "quantile")
    error: float | None = setting_key(ScorerSettings, "error")
    coverage: float = setting_key(ScorerSettings, "coverage")
    heldout: float = setting_key(Rules, "heldout")
    control: float = setting_key(Rules, "control")
    random: float = setting_key(Rules, "random")
    selection: Selection = Field(
        SurpriseSelection(),
        description="choice of frames: `surprise`, `random`, or a mapping",
    )
    triage: Triage = setting_key(Rules, "triage")
    fill: bool = Field(
        True,
        description="whether the quota of a round is spent on frames below the "
        "threshold too",
    )

    @abstractmethod
    def scorer(self) -> Scorer:
        """Return the scorer of the surprise."""


class DescriptorFlag(FlagSection):
    """The setting that all surprise by descriptors shares."""

    descriptors: Literal["model", "soap"] = Field(
        "model",
        description="descriptors of atoms: the model's own, or SOAP (`pip install "
        "alloop[soap]`), which do without a model and cost more time",
    )

    def scorer(self) -> Scorer:
        """Return the scorer by these descriptors."""
        if self.descriptors == "model":
            return self.of_descriptors()
        from alloop.scores.soap import SoapScorer

        return SoapScorer(self.of_descriptors())

    @abstractmethod
    def of_descriptors(self) -> LeverageScorer | QResidualScorer:
        """Return the scorer of whatever descriptors it is given."""


class LeverageFlag(DescriptorFlag):
    """Surprise by the leverage of descriptors of atoms, Q + T² with one ridge."""

    kind: Literal["leverage"] = "leverage"
    ridge: float = setting_key(LeverageScorer, "ridge")

    def of_descriptors(self) -> LeverageScorer:
        """Return the scorer by leverage."""
        return build_record(LeverageScorer, self)


class QResidualFlag(DescriptorFlag):
    """Surprise by the Q-residual of descriptors of atoms (Wong and Yang, 2026)."""

    kind: Literal["q-residual"]
    components: float = setting_key(QResidualScorer, "components")

    def of_descriptors(self) -> QResidualScorer:
        """Return the scorer by the Q-residual."""
        count = self.components
        return QResidualScorer(count if count < 1 else round(count))


class CommitteeFlag(FlagSection):
    """Surprise by the disagreement of several models, each trained for every round."""

    kind: Literal["committee"]
    members: int = setting_key(CommitteeScorer, "members")
    share: float = setting_key(CommitteeScorer, "share")

    def scorer(self) -> Scorer:
        """Return the scorer by a committee."""
        return build_record(CommitteeScorer, self)


class ConnectivityFlag(FlagSection):
    """Surprise by the spectrum of the neighbour graph (Kreiman and Krishnapriyan)."""

    kind: Literal["connectivity"]
    radius: float = setting_key(ConnectivityScorer, "radius")

    def scorer(self) -> Scorer:
        """Return the scorer by connectivity."""
        return build_record(ConnectivityScorer, self)


Flag: TypeAlias = Annotated[
    Annotated[LeverageFlag, union_tag("leverage")]
    | Annotated[QResidualFlag, union_tag("q-residual")]
    | Annotated[CommitteeFlag, union_tag("committee")]
    | Annotated[ConnectivityFlag, union_tag("connectivity")],
    by_kind("leverage"),
]
