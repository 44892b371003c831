"""The settings of a test-time training: plain values, without torch."""

from dataclasses import dataclass

from alloop.training.schedule import Schedule

SCHEDULE = Schedule(
    lr=1e-3, batch=10, warmup=20, ema=0.99, optimiser="adamw", energy=0.05
)


@dataclass(frozen=True, slots=True)
class TestTimeSettings:
    """The settings of a test-time training.

    steps, schedule, seed: of the optimisation. whole: move all of the representation,
    not only its beginning. worse: share by which the error on held-out expensive labels
    may grow.
    """

    __test__ = False  # no class of tests, whatever its name

    steps: int = 1500
    schedule: Schedule = SCHEDULE
    whole: bool = False
    worse: float = 0.02
    seed: int = 0
