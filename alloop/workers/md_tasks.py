"""Tasks that run MD on a generation: exploration and examination."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from alloop.core.arrays import Place, on_host
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.records import STATIONARY, Candidate, MinimumPath, Walker
from alloop.core.roles import DevicePotential, Potential
from alloop.core.seeds import EXAMINATION, random_stream
from alloop.core.units import Booleans
from alloop.generation import Generation, from_bytes
from alloop.loop import events as e
from alloop.loop.commands import (
    Examine,
    Explore,
)
from alloop.md.biases import (
    Metadynamics,
    MetadynamicsSettings,
    ShapeMetadynamics,
    UncertaintySettings,
    chosen_variables,
)
from alloop.md.collective_variables import CollectiveVariable
from alloop.md.dynamics import run_dynamics
from alloop.md.frame_collector import ScoredFrames
from alloop.md.guards import proton_transfers, transfer_note
from alloop.md.integrate import maxwell_boltzmann
from alloop.md.path_explorer import Band, PathExplorerSettings, path_bands
from alloop.md.replica_exchange import exchange_temperatures
from alloop.md.rotamers import Turns, drawn_conformer, known_conformers, turn_walkers
from alloop.md.shapes import ShapeSettings, proposed_shapes
from alloop.md.thermal_frames import (
    rattled_frames,
)
from alloop.scores.qresidual import QResidual
from alloop.workers.settings import TaskData, WorkerSettings

_ATTEMPTS = 20  # turns of each bond before a piece of an examination
_models: dict[bytes, Generation] = {}  # cache of the worker's last generation


def perform_explore(
    command: Explore, task_data: TaskData, settings: WorkerSettings
) -> e.Explored:
    """Run a piece of MD; return its event without timing."""
    generation = _load_generation(task_data, settings)
    if command.explorer != "md":
        return _explore_beside(command, generation, settings)
    rngs = [
        random_stream(
            settings.seed, f"explore/{command.round}/{command.piece}/{walker.index}"
        )
        for walker in command.walkers
    ]
    potential, why = _exploring_potential(command.walkers, generation, settings)
    first = (command.round, command.batch, command.piece) == (1, 0, 0)
    exploration = run_dynamics(
        command.walkers,
        potential,
        settings.dynamics,
        command.steps,
        rngs,
        scorer=generation.scorer,
        threshold=generation.threshold,
        keep=command.keep,
        controls=command.controls,
        control_rng=random_stream(settings.seed, command.name),
    )
    walkers = exploration.walkers
    transfers = transfer_note(proton_transfers(command.walkers, walkers))
    if settings.exchange:
        batch = pack_frames([walker.frame for walker in walkers])
        energies = generation.predict(batch).energies
        rng = random_stream(settings.seed, f"{command.name}/exchange")
        walkers = exchange_temperatures(walkers, energies, rng)
    return e.Explored(
        round=command.round,
        batch=command.batch,
        piece=command.piece,
        walkers=walkers,
        candidates=exploration.candidates,
        controls=exploration.controls,
        scored=exploration.scored,
        note="; ".join(filter(None, [why if first else "", transfers])),
    )


def _explore_beside(
    command: Explore, generation: Generation, settings: WorkerSettings
) -> e.Explored:
    """Propose frames as an explorer beside MD; none if it was turned off meanwhile."""
    match settings.explorers.get(command.explorer):
        case ShapeSettings() as shapes:
            return _propose_shapes(command, generation, settings, shapes)
        case MetadynamicsSettings() as metadynamics:
            return _explore_biased(command, generation, settings, metadynamics)
        case UncertaintySettings() as uncertainty:
            return _explore_uncertain(command, generation, settings, uncertainty)
        case PathExplorerSettings() as paths:
            return _propose_paths(command, generation, settings, paths)
    return _proposed(command, (), 0)


def _propose_shapes(
    command: Explore,
    generation: Generation,
    settings: WorkerSettings,
    shapes: ShapeSettings,
) -> e.Explored:
    """Make shapes of the walkers as they are; return the most surprising ones.

    Those that the model puts too high above the frames that they are made of are left
    out: labels of atoms torn apart teach little, and cost as much.
    """
    walkers, parents = [], []
    for parent, walker in enumerate(command.walkers):
        rng = random_stream(settings.seed, f"{command.name}/{walker.index}")
        frames = proposed_shapes(walker.frame, shapes, rng)
        walkers += [replace(walker, frame=frame) for frame in frames]
        parents += [parent] * len(frames)
    scored = _scored_frames(generation, [*command.walkers, *walkers])
    energies = scored.predictions.energies
    before, count = energies[parents], len(command.walkers)
    eligible = scored.eligible & np.isfinite(energies)
    eligible[:count] = False
    eligible[count:] &= energies[count:] - before <= shapes.energy
    candidates = _most_surprising(scored, eligible, command.keep)
    return _proposed(command, candidates, len(walkers))


def _propose_paths(
    command: Explore,
    generation: Generation,
    settings: WorkerSettings,
    paths: PathExplorerSettings,
) -> e.Explored:
    """Follow paths away from the walkers; return their tops and what surprises there.

    Of a path without surprise only the top is proposed; one that is done is left. Tops,
    and ends that surprise, come before other structures.
    """
    records = [x for x in command.paths if x.is_done(paths.tolerance)]
    left = [x for x in command.paths if x not in records]
    walkers: list[Walker] = []
    points: list[Candidate] = []
    for molecule, group in groupby(
        sorted(command.walkers, key=lambda x: x.molecule), lambda x: x.molecule
    ):
        parents = [x for x in group if not any(x.frame.pbc)]
        rng = random_stream(settings.seed, f"{command.name}/{molecule}")
        bands = path_bands(
            [x.frame for x in parents],
            generation.potential,
            paths,
            rng,
            followed=[x.minimum for x in left if x.molecule == molecule],
            done=[x.minimum for x in records if x.molecule == molecule],
        )
        for band in bands:
            record, stationary = _judged_band(band, parents[0], generation)
            records.append(record)
            points += stationary
            if record.surprising:
                taken = {point.frame.id for point in stationary}
                images = [x for x in band.images if x.id not in taken]
                frames = images + [
                    copy
                    for image in band.images
                    for copy in rattled_frames(image, paths.rattle, paths.copies, rng)
                ]
                walkers += [replace(parents[0], frame=frame) for frame in frames]
    candidates = points
    if walkers:
        scored = _scored_frames(generation, walkers)
        candidates = points + _most_surprising(scored, scored.eligible, command.keep)
    event = _proposed(command, candidates, len(walkers) + len(points))
    return replace(event, paths=tuple(records))


def _judged_band(
    band: Band, parent: Walker, generation: Generation
) -> tuple[MinimumPath, list[Candidate]]:
    """Return what is kept of a band, and its stationary points to be labelled."""
    frames = (band.top, band.minimum, *band.images)
    scored = _scored_frames(generation, [replace(parent, frame=x) for x in frames])
    surprising = ~(scored.surprise <= (generation.threshold or 0.0))
    top = scored.candidate(0, STATIONARY)
    points = [top]
    if surprising[1] and band.minimum.id != band.top.id:
        points.append(scored.candidate(1, STATIONARY))
    record = MinimumPath(
        molecule=parent.molecule,
        lowest=band.images[0],
        minimum=band.minimum,
        top=top.frame.id,
        energy=top.energy,
        surprising=int(np.count_nonzero(surprising[2:])),
    )
    return record, points


def _most_surprising(
    frames: ScoredFrames, eligible: Booleans, count: int
) -> list[Candidate]:
    ranked = sorted(np.flatnonzero(eligible), key=lambda i: -frames.surprise[i])
    return [frames.candidate(int(i), "surprise") for i in ranked[:count]]


def _proposed(
    command: Explore, candidates: Sequence[Candidate], scored: int
) -> e.Explored:
    """Return the event of another explorer than MD, which moves no walkers."""
    return e.Explored(
        round=command.round,
        batch=command.batch,
        piece=command.piece,
        walkers=(),
        candidates=tuple(replace(x, explorer=command.explorer) for x in candidates),
        controls=(),
        scored=scored,
        explorer=command.explorer,
    )


def _explore_biased(
    command: Explore,
    generation: Generation,
    settings: WorkerSettings,
    metadynamics: MetadynamicsSettings,
) -> e.Explored:
    """Move copies of the walkers by metadynamics; return the most surprising frames.

    The hills are those of this task alone. Walkers without a variable stay out.
    """
    kelvin = settings.dynamics.temperature
    if metadynamics.variables == "shape":
        movable = [x for x in command.walkers if not any(x.frame.pbc)]

        def hills(place: Place) -> Potential:
            return ShapeMetadynamics.of(
                movable, metadynamics, temperature=kelvin, place=place
            )

        return _biased_frames(command, generation, settings, movable, hills)
    variables: dict[int, tuple[CollectiveVariable, ...]] = {}
    for walker in command.walkers:
        if walker.molecule not in variables:
            variables[walker.molecule] = chosen_variables(
                walker.frame, metadynamics, turn=command.round - 1
            )
    walkers = [walker for walker in command.walkers if variables[walker.molecule]]

    def bias(place: Place) -> Potential:
        return Metadynamics.of(
            walkers, variables, metadynamics, temperature=kelvin, place=place
        )

    return _biased_frames(command, generation, settings, walkers, bias)


def _explore_uncertain(
    command: Explore,
    generation: Generation,
    settings: WorkerSettings,
    uncertainty: UncertaintySettings,
) -> e.Explored:
    """Move copies of the walkers to what surprises; return the most surprising frames.

    None without a threshold, before the first frames were held out.
    """
    from alloop.potentials.learned import LearnedPotential
    from alloop.workers.surprise_bias import SurpriseBias

    potential, scorer = generation.potential, generation.scorer
    threshold = generation.threshold or 0.0
    if not isinstance(potential, LearnedPotential) or threshold <= 0.0:
        return _proposed(command, (), 0)
    if not isinstance(scorer, QResidual):
        return _proposed(command, (), 0)
    return _biased_frames(
        command,
        generation,
        settings,
        command.walkers,
        lambda place: SurpriseBias(potential, scorer, threshold, uncertainty, place),
    )


def _biased_frames(
    command: Explore,
    generation: Generation,
    settings: WorkerSettings,
    walkers: Sequence[Walker],
    bias: Callable[[Place], Potential],
) -> e.Explored:
    """Move walkers with a bias; return the most surprising frames.

    bias: makes it, for arrays that are kept at a place.
    """
    if not walkers:
        return _proposed(command, (), 0)
    potential, _ = _exploring_potential(walkers, generation, settings)
    place = potential.place if isinstance(potential, DevicePotential) else on_host
    exploration = run_dynamics(
        walkers,
        potential,
        settings.dynamics,
        command.steps,
        [
            random_stream(settings.seed, f"{command.name}/{walker.index}")
            for walker in walkers
        ],
        scorer=generation.scorer,
        threshold=generation.threshold,
        keep=command.keep,
        biases=[bias(place)],
    )
    return _proposed(command, exploration.candidates, exploration.scored)


def perform_examine(
    command: Examine, task_data: TaskData, settings: WorkerSettings
) -> e.Examined:
    """Run MD with all guards except surprise, which would bias the choice of frames.

    Returns the event without timing. Predictions are made for the frames exactly as
    they will be labelled. Where the walkers are to reach equilibrium, they begin at
    conformers, and bonds are turned before each piece of MD.
    """
    generation = _load_generation(task_data, settings)
    walkers, seen = command.walkers, _Rotamers({})
    conformers: tuple[tuple[int, int], ...] = ()
    if command.equilibration:
        shapes = task_data.known
        seen = _Rotamers({k: Turns.of(frames[0]) for k, frames in shapes.items()})
        if command.piece == 0:
            walkers, conformers = _at_conformers(command, generation, settings, shapes)
        seen.look(walkers)
        walkers = _turned_walkers(command, walkers, generation, settings, seen.turns)
        seen.look(walkers)
    if command.steps:
        walkers = _examining_md(command, walkers, generation, settings)
        seen.look(walkers)
    moving = tuple(x for x in walkers if x.stopped is None)
    if command.piece < command.equilibration:
        frames: tuple[Candidate, ...] = ()
    elif command.explorer == "shapes":
        frames = _frames_beyond(command, moving, generation, settings)
    else:
        frames = _predicted_frames(generation, moving)
    return e.Examined(
        number=command.number,
        batch=command.batch,
        piece=command.piece,
        walkers=walkers,
        frames=frames,
        explorer=command.explorer,
        conformers=conformers,
        rotamers=tuple(sorted(seen.names)),
        transitions=seen.transitions,
    )


class _Rotamers:
    """The rotamers that walkers are seen in; turns: by molecule."""

    def __init__(self, turns: Mapping[int, Turns]) -> None:
        self.turns = turns
        self.names: set[tuple[int, str]] = set()
        self.transitions = 0
        self._last: dict[int, str] = {}

    def look(self, walkers: Sequence[Walker]) -> None:
        """Note the rotamers in which the walkers are, and which ones changed."""
        for walker in walkers:
            if walker.molecule not in self.turns:
                continue
            name = self.turns[walker.molecule].rotamer(walker.frame)
            self.names.add((walker.molecule, name))
            self.transitions += name != self._last.get(walker.index, name)
            self._last[walker.index] = name


def _examining_md(
    command: Examine,
    walkers: tuple[Walker, ...],
    generation: Generation,
    settings: WorkerSettings,
) -> tuple[Walker, ...]:
    guards = replace(settings.dynamics.guards, surprise=None)
    dynamics = replace(settings.dynamics, guards=guards)
    name = f"examine/{command.number}/{command.piece}"
    rngs = [
        random_stream(settings.seed, f"{name}/{walker.index}") for walker in walkers
    ]
    potential, _ = _exploring_potential(walkers, generation, settings)
    return run_dynamics(walkers, potential, dynamics, command.steps, rngs).walkers


def _at_conformers(
    command: Examine,
    generation: Generation,
    settings: WorkerSettings,
    shapes: Mapping[int, Sequence[Frame]],
) -> tuple[tuple[Walker, ...], tuple[tuple[int, int], ...]]:
    """Return the walkers at conformers, and by molecule the number of these.

    They are drawn by the Boltzmann weights of their energies. Walkers of a molecule
    without a minimum on the model stay where they are.
    """
    minima = {
        molecule: known_conformers(frames, generation.potential, Turns.of(frames[0]))
        for molecule, frames in shapes.items()
    }
    walkers = []
    for walker in command.walkers:
        frames, energies = minima[walker.molecule]
        if frames:
            name = f"examine/{command.number}/conformer/{walker.index}"
            rng = random_stream(settings.seed, name)
            kelvin = walker.temperature or settings.dynamics.temperature
            frame = drawn_conformer(frames, energies, kelvin, rng)
            velocities = maxwell_boltzmann(frame, kelvin, rng)
            walker = replace(walker, frame=frame, velocities=velocities)
        walkers.append(walker)
    counts = tuple((molecule, len(x)) for molecule, (x, _) in sorted(minima.items()))
    return tuple(walkers), counts


def _turned_walkers(
    command: Examine,
    walkers: tuple[Walker, ...],
    generation: Generation,
    settings: WorkerSettings,
    turns: Mapping[int, Turns],
) -> tuple[Walker, ...]:
    name = f"examine/{command.number}/{command.piece}/turns"
    return turn_walkers(
        walkers,
        turns,
        generation.potential,
        attempts=_ATTEMPTS,
        rngs=[random_stream(settings.seed, f"{name}/{x.index}") for x in walkers],
        contact=settings.dynamics.guards.contact or 0.0,
    )


def _frames_beyond(
    command: Examine,
    walkers: Sequence[Walker],
    generation: Generation,
    settings: WorkerSettings,
) -> tuple[Candidate, ...]:
    """Return a random shape of each walker, with the predictions of the generation.

    Surprise has no part in the choice. As for labels, a shape that the model puts too
    high above the walker is left out.
    """
    shapes = settings.explorers.get("shapes")
    if not isinstance(shapes, ShapeSettings):
        shapes = ShapeSettings()
    chosen = []
    for walker in walkers:
        rng = random_stream(settings.seed, f"{command.name}/{walker.index}")
        frames = [walker.frame, *proposed_shapes(walker.frame, shapes, rng)]
        energies = generation.predict(pack_frames(frames)).energies
        low = np.flatnonzero(energies[1:] - energies[0] <= shapes.energy)
        if len(low):
            chosen.append(replace(walker, frame=frames[1 + int(rng.choice(low))]))
    predicted = _predicted_frames(generation, tuple(chosen))
    return tuple(replace(x, explorer="shapes") for x in predicted)


def _predicted_frames(
    generation: Generation, walkers: tuple[Walker, ...]
) -> tuple[Candidate, ...]:
    """Return the frames of the walkers, with the predictions of the generation."""
    if not walkers:
        return ()
    frames = _scored_frames(generation, walkers)
    return tuple(frames.candidate(i, EXAMINATION) for i in range(len(walkers)))


def _scored_frames(generation: Generation, walkers: Sequence[Walker]) -> ScoredFrames:
    """Return the walkers as they are, scored; eligible where surprise is finite."""
    batch = pack_frames([walker.frame for walker in walkers])
    predictions = generation.predict(batch, descriptors=True)
    scorer = generation.scorer
    none = np.full(len(batch), np.nan)
    surprise = none if scorer is None else scorer.score(batch, predictions)
    return ScoredFrames(
        tuple(walkers), batch, predictions, surprise, np.isfinite(surprise), step=0
    )


def _exploring_potential(
    walkers: Sequence[Walker], generation: Generation, settings: WorkerSettings
) -> tuple[Potential, str]:
    """Return the potential as it moves walkers, and the reason if it is not compiled.

    On a device it keeps their arrays there. The reason is "" unless compilation was
    wanted but impossible.
    """
    if not settings.compile and settings.device == "cpu":
        return generation.potential, ""
    from alloop.potentials.placed import moving_potential

    batch = pack_frames([walker.frame for walker in walkers])
    potential, why = moving_potential(generation.potential, batch, settings.compile)
    return potential, why or ""


def _load_generation(task_data: TaskData, settings: WorkerSettings) -> Generation:
    blob = task_data.model or b""
    if blob not in _models:
        _models.clear()
        _models[blob] = from_bytes(
            blob, settings.restore_on_device, settings.scoring.scorer
        )
    return _models[blob]
