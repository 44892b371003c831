"""The `flag:` section: the choice of the frames that are labelled."""

from typing import Annotated, Literal

from pydantic import Field

from alloop.config.sections.base import Positive, Section, Share


class Flag(Section):
    """The choice of the MD frames that are labelled."""

    kind: Literal["q-residual"] = "q-residual"
    components: Positive = Field(
        0.99,
        description="principal components of the scorer: a share of variance below "
        "1, a number from 1 on",
    )
    quantile: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.99,
        description="quantile of the surprise of held-out frames above which a frame "
        "is flagged",
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
    selection: Literal["surprise", "random"] = Field(
        "surprise", description="choice of frames: by surprise, or at random"
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
