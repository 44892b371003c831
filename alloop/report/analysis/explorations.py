"""Frames proposed by MD and facts about all MD of a campaign.

Explorations are many and large: they are read one at a time, and only a few numbers
of each frame are kept.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from alloop.core.batch import pack_frames
from alloop.core.frame import Frame, FrameId
from alloop.core.levels import FIDELITIES, Fidelity
from alloop.core.records import Candidate, Explorer, Label, Walker
from alloop.history.reader import History
from alloop.loop import events as e
from alloop.md.integrate import body_constants, velocity_temperature


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """A frame that a generation proposed, with its prediction made before any label.

    round 0 and generation 0 where the exploration is not in the journal.
    """

    candidate: Candidate
    generation: int
    round: int
    control: bool


def exploration_proposals(history: History, event: e.Explored) -> Iterator[Proposal]:
    """Yield the proposals of one exploration."""
    request = history.record_index.exploration(event.name)
    for control, candidates in ((False, event.candidates), (True, event.controls)):
        for candidate in candidates:
            yield Proposal(candidate, request.generation, request.round, control)


def newest_candidates(history: History) -> Iterator[Candidate]:
    """Yield what the last generation that explored proposed, controls first."""
    for entry in history.select(history.record_index.newest_explorations()):
        event = entry.turn.event
        if isinstance(event, e.Explored):
            yield from (*event.controls, *event.candidates)


def labels_by_frame(history: History, fidelity: Fidelity) -> Mapping[FrameId, Label]:
    """Return the labels of the fidelity, by frame."""
    level_id = history.opened.levels.get(fidelity)
    return {
        frame: label
        for (level, frame), label in history.label_index.labels.items()
        if level == level_id and isinstance(label, Label)
    }


def control_frames(history: History) -> frozenset[FrameId]:
    """Return the frames that were chosen at random, whatever their surprise."""
    index = history.record_index
    answered = {x.frame.id for x in index.labels if x.purpose == "control"}
    commands = (x.command for x in index.open_labels.values())
    return frozenset(
        answered | {x.frame.id for x in commands if x.purpose == "control"}
    )


EXPLORERS: Mapping[Explorer, str] = {  # in words
    "md": "MD",
    "shapes": "turned and stretched bonds",
    "metadynamics": "metadynamics",
    "uncertainty": "uncertainty-driven MD",
    "paths": "reaction paths",
}
_MOST_STOPS = 300  # frames of stopped walkers that are kept

_MOST_POINTS = 20_000  # moments, and energies, that are kept


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a frame in MD and the prediction for it before any label came.

    origin and explorer as in `Candidate`. differences: by fidelity of the labels that
    came, the mean absolute difference of the forces' components and the largest length
    of a difference on an atom, eV/Å.
    """

    frame: FrameId
    molecule: int
    walker: int
    step: int
    origin: str
    surprise: float
    round: int
    generation: int
    explorer: Explorer = "md"
    differences: Mapping[Fidelity, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WalkerMoment:
    """A walker at the end of a piece of MD.

    temperature: kinetic, in K. atoms: their number. stopped: the guard that stopped it
    in this piece, or None.
    """

    round: int
    generation: int
    walker: int
    molecule: int
    step: int
    temperature: float
    atoms: int
    stopped: str | None


@dataclass(frozen=True, slots=True)
class WalkerEnergy:
    """The model's energy, in eV, of a frame returned by a walker.

    random: True if the frame was drawn whatever its surprise; surprise: NaN without.
    """

    molecule: int
    generation: int
    step: int
    energy: float
    random: bool
    surprise: float = float("nan")


@dataclass(frozen=True, slots=True)
class Explorations:
    """The results of all MD of a campaign.

    origins: of labelled frames, and of those returned by stopped walkers; stopping: the
    latter, with their structures. left_out: number of moments that were left out
    because there were too many; all stops are kept. energies: of frames of MD alone.
    scored: the number of frames that each explorer scored.
    """

    origins: Mapping[FrameId, Origin] = field(default_factory=dict)
    stopping: Mapping[FrameId, Frame] = field(default_factory=dict)
    moments: tuple[WalkerMoment, ...] = ()
    energies: tuple[WalkerEnergy, ...] = ()
    left_out: int = 0
    scored: Mapping[Explorer, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExplorerYield:
    """The yield of an explorer: frames scored, labels of chosen ones, their errors.

    errors: by fidelity, the mean absolute difference between the model's forces and the
    label's components, median over frames, eV/Å (a few are very far off); NaN without
    labels. seconds: CPU time of these labels.
    """

    explorer: Explorer
    scored: int
    labels: Mapping[Fidelity, int]
    errors: Mapping[Fidelity, float]
    seconds: float


def explorer_yields(history: History, explored: Explorations) -> list[ExplorerYield]:
    """Return the yield of each explorer, without frames that were drawn at random."""
    chosen = [
        (explored.origins[label.frame.id], label)
        for label in history.record_index.labels
        if label.purpose in ("flagged", "bias") and label.frame.id in explored.origins
    ]
    yields = []
    for explorer, scored in explored.scored.items():
        labels = [(x, label) for x, label in chosen if x.explorer == explorer]
        errors = {
            fidelity: [
                origin.differences[fidelity][0]
                for origin, label in labels
                if label.fidelity == fidelity and fidelity in origin.differences
            ]
            for fidelity in FIDELITIES
        }
        yields.append(
            ExplorerYield(
                explorer,
                scored,
                labels={k: len(values) for k, values in errors.items()},
                errors={
                    k: float(np.median(values)) if values else float("nan")
                    for k, values in errors.items()
                },
                seconds=sum(label.cpu_seconds for _, label in labels),
            )
        )
    return yields


def read_explorations(history: History) -> Explorations:
    """Read all explorations once, in order."""
    labels = {level: labels_by_frame(history, level) for level in FIDELITIES}
    requested = {x.frame.id for x in history.record_index.labels}
    origins: dict[FrameId, Origin] = {}
    stopping: dict[FrameId, Frame] = {}
    moments: list[WalkerMoment] = []
    energies: list[WalkerEnergy] = []
    count = sum(task.kind == "Explored" for task in history.record_index.tasks)
    stopped: set[tuple[int, int, int]] = set()
    left_out = 0
    scored: dict[Explorer, int] = {}
    for number, (_, event) in enumerate(history.of_kind(e.Explored)):
        proposals = list(exploration_proposals(history, event))
        scored[event.explorer] = scored.get(event.explorer, 0) + event.scored
        for proposal in proposals:
            _add_origin(proposal, requested, origins, stopping, labels)
        piece = list(_walker_moments(history, event, stopped))
        keep = _is_sampled(number, count, len(event.walkers))
        moments += piece if keep else [x for x in piece if x.stopped]
        left_out += 0 if keep else len(piece)
        if _is_sampled(number, count, len(proposals)):
            energies += [
                _walker_energy(x) for x in proposals if x.candidate.explorer == "md"
            ]
    return Explorations(
        origins=origins,
        stopping=stopping,
        moments=tuple(moments),
        energies=tuple(energies),
        left_out=left_out,
        scored=scored,
    )


def _is_sampled(number: int, count: int, points: int) -> bool:
    """Return True if exploration `number` of `count` is kept; points: those it has."""
    return number % (1 + count * points // _MOST_POINTS) == 0


def _add_origin(
    proposal: Proposal,
    requested: set[FrameId],
    origins: dict[FrameId, Origin],
    stopping: dict[FrameId, Frame],
    all_labels: Mapping[Fidelity, Mapping[FrameId, Label]],
) -> None:
    """Record the origin of a frame, unless an earlier proposal of it is recorded.

    Only the first proposal of a frame is certain to precede any label of it.
    """
    frame = proposal.candidate.frame
    stops = proposal.candidate.guard is not None and len(stopping) < _MOST_STOPS
    if stops:
        stopping.setdefault(frame.id, frame)
    if frame.id not in origins and (stops or frame.id in requested):
        labels = {at: by_frame.get(frame.id) for at, by_frame in all_labels.items()}
        origins[frame.id] = origin_of(proposal, labels)


def origin_of(proposal: Proposal, labels: Mapping[Fidelity, Label | None]) -> Origin:
    """Return the origin of a proposed frame; labels: those of the frame by fidelity."""
    candidate = proposal.candidate
    return Origin(
        frame=candidate.frame.id,
        molecule=candidate.molecule,
        walker=candidate.walker,
        step=candidate.step,
        origin=candidate.origin,
        surprise=float(candidate.surprise),
        round=proposal.round,
        generation=proposal.generation,
        explorer=candidate.explorer,
        differences={
            at: force_differences(candidate, x)
            for at, x in labels.items()
            if x is not None and x.has_forces
        },
    )


def force_differences(candidate: Candidate, label: Label) -> tuple[float, float]:
    """Return the mean absolute component and the largest length on an atom, eV/Å."""
    differences = candidate.forces - label.forces
    return float(np.abs(differences).mean()), float(
        np.linalg.norm(differences, axis=1).max()
    )


def _walker_energy(proposal: Proposal) -> WalkerEnergy:
    candidate = proposal.candidate
    return WalkerEnergy(
        molecule=candidate.molecule,
        generation=proposal.generation,
        step=candidate.step,
        energy=float(candidate.energy),
        random=proposal.control,
        surprise=float(candidate.surprise),
    )


def _walker_moments(
    history: History, event: e.Explored, stopped: set[tuple[int, int, int]]
) -> Iterator[WalkerMoment]:
    """Yield the walkers that moved in this piece of MD."""
    request = history.record_index.exploration(event.name)
    for walker, kelvin in zip(event.walkers, _walker_temperatures(event), strict=True):
        key = (request.round, walker.index, walker.step)
        if walker.stopped is not None and key in stopped:
            continue  # it had stopped in an earlier piece
        stopped |= {key} if walker.stopped is not None else set()
        yield WalkerMoment(
            round=request.round,
            generation=request.generation,
            walker=walker.index,
            molecule=walker.molecule,
            step=walker.step,
            temperature=float(kelvin),
            atoms=len(walker.frame),
            stopped=walker.stopped,
        )


def _walker_temperatures(event: e.Explored) -> list[float]:
    walkers: tuple[Walker, ...] = event.walkers
    if not walkers:
        return []
    batch = pack_frames([walker.frame for walker in walkers])
    # As in MD: the centre of mass is at rest for a molecule, not for a crystal.
    held = np.array([not any(walker.frame.pbc) for walker in walkers], dtype=np.bool_)
    velocities = np.concatenate([walker.velocities for walker in walkers])
    temperatures: list[float] = velocity_temperature(
        velocities, body_constants(batch, held)
    ).tolist()
    return temperatures
