"""Tasks that make the first frames of a campaign, and the walkers of its tests."""

from collections.abc import Sequence
from dataclasses import replace

from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.roles import Labeller
from alloop.core.seeds import random_stream
from alloop.loop import events as e
from alloop.loop.commands import (
    VALIDATION_WALKERS,
    Prepare,
    Sample,
)
from alloop.md.dynamics import run_dynamics
from alloop.md.thermal_frames import (
    NormalModes,
    harmonic_frames,
    normal_modes,
    numerical_hessian,
    rattled_frames,
    relax_frame,
    strained_frames,
    thermal_walkers,
)
from alloop.potentials.labeller_potential import LabelFailed, LabellerPotential
from alloop.workers.settings import WorkerSettings


def prepare_molecule(
    command: Prepare, settings: WorkerSettings, oracle: Labeller
) -> e.Prepared:
    """Relax a molecule, and make frames for the first labels and test MD walkers.

    Returns the event without timing. Raises LabelFailed where the cheap level cannot
    treat the start molecule.
    """
    potential = LabellerPotential(oracle)
    beginning = settings.beginning
    minimum = relax_frame(command.frame, potential)
    modes = normal_modes(minimum, numerical_hessian(minimum, potential))
    rng = random_stream(settings.seed, command.name)
    count = len(range(0, command.seeds, 1 + len(command.conformers)))
    seeds = (
        rattled_frames(minimum, beginning.sigma, count, rng)
        if beginning.kind == "rattle"
        else harmonic_frames(minimum, modes, beginning.temperature, count, rng)
    )
    seeds = _with_conformers(seeds, command, settings)
    if beginning.strain:
        rng = random_stream(settings.seed, f"{command.name}/strain")
        seeds = strained_frames(seeds, beginning.strain, rng)
    return e.Prepared(
        command.name,
        command.molecule,
        minimum,
        tuple(seeds),
        _test_walkers(command, settings, minimum, modes),
    )


def _with_conformers(
    frames: Sequence[Frame], command: Prepare, settings: WorkerSettings
) -> tuple[Frame, ...]:
    """Return frames around the minimum and the other conformers in turn.

    Those of the conformers are rattled: normal modes of each would cost many labels.
    """
    shapes = len(command.conformers) + 1
    rng = random_stream(settings.seed, f"{command.name}/conformers")
    minima = iter(frames)
    return tuple(
        next(minima)
        if number % shapes == 0
        else rattled_frames(
            command.conformers[number % shapes - 1], settings.beginning.sigma, 1, rng
        )[0]
        for number in range(command.seeds)
    )


def _test_walkers(
    command: Prepare, settings: WorkerSettings, minimum: Frame, modes: NormalModes
) -> tuple[Walker, ...]:
    """Return walkers in thermal equilibrium, temperatures and conformers in turn."""
    cycle = settings.beginning.temperatures
    rng = random_stream(settings.seed, f"{command.name}/test")
    walkers: list[Walker] = []
    for place, kelvin in enumerate(cycle):
        numbers = range(place, command.walkers, len(cycle))
        drawn = thermal_walkers(
            minimum, modes, kelvin, len(numbers), rng, molecule=command.molecule
        )
        walkers += [
            replace(
                walker,
                index=VALIDATION_WALKERS * (command.molecule + 1) + number,
                temperature=kelvin,
            )
            for walker, number in zip(drawn, numbers, strict=True)
        ]
    shapes = (None, *command.conformers)
    return tuple(
        walker
        if (shape := shapes[place % len(shapes)]) is None
        else replace(walker, frame=shape)
        for place, walker in enumerate(sorted(walkers, key=lambda x: x.index))
    )


def sample_frames(
    command: Sample, settings: WorkerSettings, oracle: Labeller
) -> e.Sampled:
    """Run MD at the cheap level for frames; fewer where that level fails.

    Returns the event without timing.
    """
    potential = LabellerPotential(oracle)
    walker, frames = command.walker, []
    beginning = settings.beginning
    for number in range(command.frames):
        rng = random_stream(settings.seed, f"{command.name}/{number}")
        try:
            moved = run_dynamics(
                [walker], potential, beginning.test, beginning.spacing, [rng]
            )
        except LabelFailed:
            break
        (walker,) = moved.walkers
        if walker.stopped is not None:
            break
        frames.append(walker.frame)
    molecule = command.walker.molecule
    return e.Sampled(command.name, molecule, tuple(frames))
