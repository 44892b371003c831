"""The settings of a test-time training: plain values, without torch."""

from dataclasses import dataclass

from alloop.core.settings import COUNT, setting
from alloop.training.stages import Schedule

SCHEDULE = Schedule(
    lr=1e-3, batch=10, warmup=20, ema=0.99, optimiser="adamw", energy=0.05
)


@dataclass(frozen=True, slots=True)
class TestTimeSettings:
    """The settings of a test-time training.

    schedule, seed: of the optimisation. whole: move all of the representation, not only
    its beginning.
    """

    __test__ = False  # no class of tests, whatever its name

    steps: int = setting(1500, "gradient steps on the cheap labels", **COUNT)
    schedule: Schedule = SCHEDULE
    whole: bool = False
    worse: float = setting(
        0.02,
        "share by which the force error on the validation set may grow",
        ge=0,
    )
    seed: int = 0
