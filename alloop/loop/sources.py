"""Where the first frames come from when there is nothing: the cheap level itself."""

from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.roles import Labeller
from alloop.core.seeds import stream
from alloop.loop import events as e
from alloop.loop.kit import Kit
from alloop.md.modes import (
    harmonic_frames,
    hessian,
    normal_modes,
    rattle,
    relax,
    thermal_walkers,
)
from alloop.md.run import run
from alloop.potentials.oracle import OracleFailed, OraclePotential

_APART = 1_000_000  # walkers of the test set never share an index with explorers


def first_frames(
    command: e.Prepare, kit: Kit, oracle: Labeller
) -> tuple[Frame, tuple[Frame, ...], tuple[Walker, ...]]:
    """The relaxed molecule, frames for the first labels, and starts of the test MD.

    Raises OracleFailed where the cheap level cannot treat the start.
    """
    potential = OraclePotential(oracle)
    beginning = kit.beginning
    minimum = relax(command.frame, potential)
    modes = normal_modes(minimum, hessian(minimum, potential))
    rng = stream(kit.seed, command.name)
    seeds = (
        rattle(minimum, beginning.sigma, command.seeds, rng)
        if beginning.kind == "rattle"
        else harmonic_frames(minimum, modes, beginning.temperature, command.seeds, rng)
    )
    starts = thermal_walkers(
        minimum,
        modes,
        beginning.test.temperature,
        command.walkers,
        stream(kit.seed, f"{command.name}/test"),
        molecule=command.molecule,
        first_index=_APART * (command.molecule + 1),
    )
    return minimum, tuple(seeds), tuple(starts)


def sample(command: e.Sample, kit: Kit, oracle: Labeller) -> tuple[Frame, ...]:
    """Frames of MD at the cheap level; ends early where that level fails."""
    potential = OraclePotential(oracle)
    walker, frames = command.walker, []
    for number in range(command.frames):
        rng = stream(kit.seed, f"{command.name}/{number}")
        try:
            beginning = kit.beginning
            moved = run([walker], potential, beginning.test, beginning.spacing, [rng])
        except OracleFailed:
            break
        (walker,) = moved.walkers
        if walker.stopped is not None:
            break
        frames.append(walker.frame)
    return tuple(frames)
