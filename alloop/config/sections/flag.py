"""The `flag:` section: the choice of the frames that are labelled."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from alloop.config.sections.base import (
    NotNegative,
    Positive,
    Section,
    Share,
    by_kind,
    union_tag,
)
from alloop.core.roles import Scorer, Selector
from alloop.selection import (
    LargestCluster,
    MostSurprising,
    PerMolecule,
    RandomChoice,
)

if TYPE_CHECKING:
    from alloop.scores.leverage import LeverageScorer
    from alloop.scores.qresidual import QResidualScorer


class SelectionSection(Section):
    """The selection of frames from those that MD found; its kind alone will do."""

    @model_serializer(mode="wrap")
    def _short(self, whole: SerializerFunctionWrapHandler) -> Any:
        """Return the kind alone where all else is the default."""
        tree = whole(self)
        usual = type(self).model_validate({"kind": tree["kind"]})
        return tree["kind"] if self == usual else tree

    def selector(self, fill: bool) -> Selector:
        """Return the selector; fill: spend the quota below the threshold too."""
        raise NotImplementedError


class SharedSelection(SelectionSection):
    """A selection by surprise and distance, with its share for each molecule."""

    molecules: Literal["equal", "pooled"] = Field(
        "equal",
        description="parts of the molecules: equal ones, or whatever surprise gives "
        "them",
    )
    duplicate: NotNegative = Field(
        0.02,
        description="distance, in multiples of the candidates' spread, below which a "
        "frame is a duplicate",
    )

    def selector(self, fill: bool) -> Selector:
        """Return the selector, for molecules in turn or for all at once."""
        rule = self.rule(fill)
        return PerMolecule(rule) if self.molecules == "equal" else rule

    def rule(self, fill: bool) -> Selector:
        """Return the selector for the frames of one molecule."""
        raise NotImplementedError


class SurpriseSelection(SharedSelection):
    """Surprising frames that differ from each other and from those trained on."""

    kind: Literal["surprise"] = "surprise"
    balance: Share = Field(
        0.5,
        description="weight of the distance from known frames against surprise",
    )

    def rule(self, fill: bool) -> Selector:
        """Return the selector of surprising frames."""
        return MostSurprising(fill, self.balance, self.duplicate)


class ClusterSelection(SharedSelection):
    """The farthest frame of the largest cluster (LCMD, Holzmüller et al., 2023)."""

    kind: Literal["clusters"]

    def rule(self, fill: bool) -> Selector:
        """Return the selector by clusters."""
        return LargestCluster(fill, self.duplicate)


class RandomSelection(SelectionSection):
    """Random frames, as a control."""

    kind: Literal["random"]

    def selector(self, fill: bool) -> Selector:  # noqa: ARG002
        """Return the selector of random frames, molecules in turn."""
        return PerMolecule(RandomChoice())


def _with_kind(given: Any) -> Any:
    return {"kind": given} if isinstance(given, str) else given


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

    quantile: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.95,
        description="quantile of the surprise of held-out frames above which a frame "
        "is flagged",
    )
    error: Positive | None = Field(
        None,
        description="flag frames whose largest force error may be above this, eV/Å, "
        "in place of those above the quantile",
    )
    coverage: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.9,
        description="share of frames whose largest force error the limits of errors "
        "promise to hold",
    )
    heldout: Share = Field(
        0.25,
        description="share of the first cheap frames kept from training, to "
        "calibrate surprise",
    )
    control: Share = Field(
        0.1,
        description="share of expensive labels for random frames, whatever their "
        "surprise",
    )
    selection: Selection = Field(
        SurpriseSelection(),
        description="choice of frames: `surprise`, `random`, or a mapping",
    )
    triage: Literal["bias", "surprise", "both"] = Field(
        "both",
        description="quantity that decides which flagged frames get an expensive "
        "label too",
    )
    fill: bool = Field(
        True,
        description="whether the quota of a round is spent on frames below the "
        "threshold too",
    )

    def scorer(self) -> Scorer:
        """Return the scorer of the surprise."""
        raise NotImplementedError


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

    def of_descriptors(self) -> "LeverageScorer | QResidualScorer":
        """Return the scorer of whatever descriptors it is given."""
        raise NotImplementedError


class LeverageFlag(DescriptorFlag):
    """Surprise by the leverage of descriptors of atoms, Q + T² with one ridge."""

    kind: Literal["leverage"] = "leverage"
    ridge: Annotated[float, Field(gt=0, le=1)] = Field(
        1e-4,
        description="variance added in every direction, as a share of the total one",
    )

    def of_descriptors(self) -> "LeverageScorer":
        """Return the scorer by leverage."""
        from alloop.scores.leverage import LeverageScorer

        return LeverageScorer(self.ridge)


class QResidualFlag(DescriptorFlag):
    """Surprise by the Q-residual of descriptors of atoms (Wong and Yang, 2026)."""

    kind: Literal["q-residual"]
    components: Positive = Field(
        0.99,
        description="principal components of the scorer: a share of variance below "
        "1, a number from 1 on",
    )

    def of_descriptors(self) -> "QResidualScorer":
        """Return the scorer by the Q-residual."""
        from alloop.scores.qresidual import QResidualScorer

        count = self.components
        return QResidualScorer(count if count < 1 else round(count))


class CommitteeFlag(FlagSection):
    """Surprise by the disagreement of several models, each trained for every round."""

    kind: Literal["committee"]
    members: Annotated[int, Field(ge=2, le=64)] = Field(
        4, description="number of models, with the campaign's own"
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8, description="share of the labels that each further model learns from"
    )

    def scorer(self) -> Scorer:
        """Return the scorer by a committee."""
        from alloop.scores.committee import CommitteeScorer

        return CommitteeScorer(self.members, self.share)


class ConnectivityFlag(FlagSection):
    """Surprise by the spectrum of the neighbour graph (Kreiman and Krishnapriyan)."""

    kind: Literal["connectivity"]
    radius: Annotated[float, Field(gt=0, le=20)] = Field(
        3.0, description="distance below which two atoms are neighbours, Å"
    )

    def scorer(self) -> Scorer:
        """Return the scorer by connectivity."""
        from alloop.scores.connectivity import ConnectivityScorer

        return ConnectivityScorer(self.radius)


Flag: TypeAlias = Annotated[
    Annotated[LeverageFlag, union_tag("leverage")]
    | Annotated[QResidualFlag, union_tag("q-residual")]
    | Annotated[CommitteeFlag, union_tag("committee")]
    | Annotated[ConnectivityFlag, union_tag("connectivity")],
    by_kind("leverage"),
]
