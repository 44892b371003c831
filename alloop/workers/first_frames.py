"""First frames of a campaign without data, sampled at the cheap level."""

from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.roles import Labeller
from alloop.core.seeds import random_stream
from alloop.loop import events as e
from alloop.md.dynamics import run_dynamics
from alloop.md.thermal_frames import (
    harmonic_frames,
    normal_modes,
    numerical_hessian,
    rattled_frames,
    relax_frame,
    thermal_walkers,
)
from alloop.potentials.labeller_potential import LabelFailed, LabellerPotential
from alloop.workers.settings import WorkerSettings

_APART = 1_000_000  # keeps indices of test walkers apart from explorers'


def first_frames(
    command: e.Prepare, kit: WorkerSettings, oracle: Labeller
) -> tuple[Frame, tuple[Frame, ...], tuple[Walker, ...]]:
    """Return the relaxed molecule, frames for the first labels, and test MD walkers.

    Raises LabelFailed where the cheap level cannot treat the start molecule.
    """
    potential = LabellerPotential(oracle)
    beginning = kit.beginning
    minimum = relax_frame(command.frame, potential)
    modes = normal_modes(minimum, numerical_hessian(minimum, potential))
    rng = random_stream(kit.seed, command.name)
    seeds = (
        rattled_frames(minimum, beginning.sigma, command.seeds, rng)
        if beginning.kind == "rattle"
        else harmonic_frames(minimum, modes, beginning.temperature, command.seeds, rng)
    )
    starts = thermal_walkers(
        minimum,
        modes,
        beginning.test.temperature,
        command.walkers,
        random_stream(kit.seed, f"{command.name}/test"),
        molecule=command.molecule,
        first_index=_APART * (command.molecule + 1),
    )
    return minimum, tuple(seeds), tuple(starts)


def sample_frames(
    command: e.Sample, kit: WorkerSettings, oracle: Labeller
) -> tuple[Frame, ...]:
    """Return frames of MD at the cheap level; fewer where that level fails."""
    potential = LabellerPotential(oracle)
    walker, frames = command.walker, []
    for number in range(command.frames):
        rng = random_stream(kit.seed, f"{command.name}/{number}")
        try:
            beginning = kit.beginning
            moved = run_dynamics(
                [walker], potential, beginning.test, beginning.spacing, [rng]
            )
        except LabelFailed:
            break
        (walker,) = moved.walkers
        if walker.stopped is not None:
            break
        frames.append(walker.frame)
    return tuple(frames)
