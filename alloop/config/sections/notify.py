"""The `notify:` section: who is told what a campaign does, and of what."""

from typing import Annotated, TypeAlias, get_args

from pydantic import Field, model_validator

from alloop.config.sections.base import Duration, Line, Loose, Section
from alloop.core.records import Topic

# A name of an environment variable, whose value never reaches store or report.
Secret: TypeAlias = Annotated[str, Field(pattern=r"^\$[A-Za-z_]\w*$", max_length=200)]
Address: TypeAlias = Annotated[
    str, Field(pattern=r"^(\$[A-Za-z_]\w*|https?://[^\s@]+)$", max_length=2000)
]


class Notify(Section):
    """Receivers of notices of the end of a run and of trouble.

    `$NAME` stands for the value of an environment variable of the process that runs the
    campaign.
    """

    command: Line | None = Field(
        None,
        description="shell line that is run for each notice, with ALLOOP_ID, "
        "ALLOOP_ABOUT, ALLOOP_TITLE and ALLOOP_TEXT in its environment and the notice "
        "as JSON on standard input; none by default",
    )
    webhook: Address | None = Field(
        None,
        description="address that each notice is posted to as JSON, or `$NAME` of the "
        "environment variable with it; none by default",
    )
    token: Secret | None = Field(
        None,
        description="`$NAME` of the environment variable with a bearer token for the "
        "webhook; none by default",
    )
    apprise: Secret | None = Field(
        None,
        description="`$NAME` of the environment variable with addresses of Apprise, "
        "for mail, Slack and others (`pip install 'alloop[apprise]'`); none by default",
    )
    heartbeat: Address | None = Field(
        None,
        description="address that is requested while the campaign goes on, or `$NAME` "
        "of the environment variable with it: whoever watches it raises the alarm "
        "when requests stay away; none by default",
    )
    beat: Duration = Field(
        600.0,
        description="time between two requests of `heartbeat`, such as 10 min (a plain "
        "number is in s)",
    )
    about: Annotated[tuple[Topic, ...], Loose] = Field(
        get_args(Topic), min_length=1, description="what is told"
    )
    failures: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of failures among the last tasks of a kind "
        "(`limits: failure_window`) that is told",
    )
    stalled: float = Field(
        10.0,
        ge=2,
        description="times the median duration of the open tasks' kind without any "
        "answer that count as stalled; at least ten minutes",
    )

    @model_validator(mode="after")
    def _has_receiver(self) -> "Notify":
        receivers = (self.command, self.webhook, self.apprise, self.heartbeat)
        if all(receiver is None for receiver in receivers):
            raise ValueError(
                "expected `command`, `webhook`, `apprise` or `heartbeat`, got none of "
                "them"
            )
        if self.token is not None and self.webhook is None:
            raise ValueError("expected a `webhook` for the `token`, got none")
        return self
