"""The `training: replay:` section: frames that fine-tuning goes on learning."""

from typing import Annotated, TypeAlias

from pydantic import Field

from alloop.config.sections.base import by_key, union_tag
from alloop.config.sections.data import File, Units

_Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
_SHARE = Field(
    0.3, description="share of the replayed frames in the loss of each stage"
)


class ReplayedLabels(Units):
    """Labelled frames, such as a part of what the potential was trained on."""

    labels: str = Field(
        description="path of the labelled frames, relative to this YAML file"
    )
    share: _Share = _SHARE


class ReplayedFrames(File):
    """Frames without labels, which the potential labels itself before fine-tuning."""

    share: _Share = _SHARE


Replay: TypeAlias = Annotated[
    Annotated[ReplayedLabels, union_tag("labels")]
    | Annotated[ReplayedFrames, union_tag("file")],
    by_key("labels", "file"),
]
