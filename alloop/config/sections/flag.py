"""The `flag:` section: the choice of the frames that are labelled."""

from typing import Annotated, Literal

from pydantic import Field

from alloop.config.sections.base import Positive, Section, Share


class Flag(Section):
    """The choice of the MD frames that are labelled."""

    kind: Literal["q-residual"] = "q-residual"
    components: Positive = Field(
        0.99, description="principal components: a share of variance, or from 1 a count"
    )
    quantile: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.99, description="of held-out surprise, above which a frame is flagged"
    )
    heldout: Share = Field(
        0.25, description="share of the first cheap frames kept from training"
    )
    control: Share = Field(0.1, description="share of labels for random frames")
    selection: Literal["surprise", "random"] = Field(
        "surprise", description="how frames are picked"
    )
    triage: Literal["bias", "surprise", "both"] = Field(
        "both", description="what decides who gets an expensive label too"
    )
    fill: bool = Field(
        True, description="spend the quota on frames below the limit too"
    )
