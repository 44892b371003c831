"""The history of single frames, from the journal: origin, labels, errors and use."""

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np

from alloop.core.atoms import chemical_symbol, hill_formula
from alloop.core.doubts import doubts_of_details
from alloop.core.frame import Frame, FrameId
from alloop.core.levels import FIDELITIES, Fidelity
from alloop.core.records import Candidate, Detail, Label, Noise, Unlabelled
from alloop.core.text import local_time
from alloop.history.frame_search import FoundFrame, find_frame
from alloop.history.label_entries import label_entries
from alloop.history.reader import History, JournalEntry
from alloop.history.record_index import LabelEntry
from alloop.loop import events as e
from alloop.report.analysis.campaign_facts import level_title, training_commands
from alloop.report.analysis.examination import threshold_basis
from alloop.report.analysis.explorations import (
    EXPLORERS,
    Origin,
    Proposal,
    control_frames,
    exploration_proposals,
    force_differences,
    labels_by_frame,
    origin_of,
)
from alloop.report.analysis.label_facts import (
    doubt_policy,
    latest_labels,
    noise_by_label,
    rescuing_rung,
)
from alloop.report.text.event_log import noise_text
from alloop.report.text.formatting import (
    duration_text,
    failure_text,
    number_text,
    plural,
    span_text,
)


def frame_heading(frame: Frame) -> str:
    """Return the id, formula, charge and spin of a frame as a sentence."""
    charge = f", charge {frame.charge:+d}" if frame.charge else ""
    spin = f", spin {frame.spin} (2S)" if frame.spin else ""
    size = plural(len(frame), "atom")
    return f"Frame {frame.id}: {hill_formula(frame)}, {size}{charge}{spin}."


def label_error_text(
    history: History, who: str, fidelity: Fidelity, mean: float, worst: float
) -> str:
    """Return the errors of a generation on a frame, eV/Å, as a sentence."""
    return (
        f"{who} was wrong by {mean:.4f} eV/Å on average and by {worst:.4f} eV/Å at the "
        f"worst atom, against {level_title(history, fidelity)}."
    )


def proposal_text(origin: Origin, control: bool) -> str:
    """Return the origin of a frame that MD proposed, as a sentence."""
    choice = "control" if control else origin.origin
    why = {
        "surprise": "among the most surprising frames there",
        "control": "drawn at random, whatever its surprise",
    }.get(choice, f"just before the guard rail `{choice}` stopped it")
    source = EXPLORERS[origin.explorer]
    return (
        f"Proposed by {source} on walker {origin.walker} at step {origin.step}, in "
        f"round {origin.round} on generation {origin.generation}, {why}."
    )


def surprise_text(surprise: float, basis: tuple[float, str] | None) -> str:
    """Return a frame's surprise beside the threshold, as a sentence.

    basis: the threshold, and in words what it rests on; None without one.
    """
    if basis is None:
        return f"Its surprise was {surprise:.3g}; there was no threshold."
    threshold, words = basis
    side = "above" if surprise > threshold else "not above"
    return (
        f"Its surprise was {surprise:.3g}, {side} the threshold of {threshold:.3g}, "
        f"which is {words}."
    )


def error_lines(history: History, origin: Origin) -> Iterator[str]:
    """Yield the errors of the generation that proposed the frame, by its labels."""
    who = f"Generation {origin.generation}"
    for fidelity, (mean, worst) in origin.differences.items():
        if fidelity == "cheap":
            yield f"{who} differed from the cheap label by B = {mean:.4f} eV/Å."
        else:
            yield label_error_text(history, who, fidelity, mean, worst)


def generation_text(numbers: list[int]) -> str:
    """Return generations by number: `generations 1–4, 7`."""
    return f"generation{'s' * (len(numbers) > 1)} {span_text(numbers)}"


def inclusion_text(entry: JournalEntry, event: e.Included) -> str:
    """Return the end of an exclusion, as a sentence."""
    what = f" of its {event.fidelity} label" if event.fidelity else ""
    why = f": {event.reason}" if event.reason else ""
    when = local_time(entry.time)
    return f"The exclusion{what} was undone by hand on {when}{why}."


def exclusion_text(entry: JournalEntry, event: e.Excluded) -> str:
    """Return an exclusion by hand, as a sentence."""
    what = f"Its {event.fidelity} label was" if event.fidelity else "It was"
    return f"{what} excluded by hand on {local_time(entry.time)}: {event.reason}."


_UNITS = {
    "gap": " eV",
    "peak_mb": " MB",
    "internal": " hartree",
    "external": " hartree",
}

_DETAILS = {
    "cycles": "cycles",
    "gap": "gap",
    "s2": "<S²>",
    "t1": "T1",
    "internal": "internal stability",
    "external": "external stability",
    "program": "program",
    "peak_mb": "peak memory",
}


def label_lines(
    history: History,
    label: LabelEntry,
    last: bool,
    noise: Mapping[tuple[str, str], Noise],
) -> Iterator[str]:
    """Yield the history of a label, in sentences.

    last: True if the label was not tried again since; noise: the results of making
    labels again, by level and frame.
    """
    if not label.is_given:
        yield _selection_text(history, label)
    record = label.record
    if isinstance(record, Unlabelled):
        yield _failure_text(label, record)
        yield from _quarantine_lines(record) if last else ()
    else:
        yield _made_text(label, record)
        yield from _rescue_lines(record)
        yield from _doubt_lines(history, label)
        yield from _recheck_lines(label, noise)


def _selection_text(history: History, label: LabelEntry) -> str:
    when = f"in round {label.round}" if label.round else "before the first round"
    if label.retry:
        return f"Tried again {when}."
    return (
        f"Chosen {when} for the {label.fidelity} label "
        f"({level_title(history, label.fidelity)}) as `{label.purpose}`: "
        f"{label.reason or 'no reason given'}."
    )


def _made_text(label: LabelEntry, record: Label) -> str:
    source = (
        "supplied" if label.is_given else "from a cache" if label.cached else "made"
    )
    cost = "" if label.is_given else f", {duration_text(label.cpu_seconds)} of CPU time"
    forces = ""
    if record.has_forces:
        largest = float(np.linalg.norm(record.forces, axis=1).max())
        forces = f", largest force {largest:.3f} eV/Å"
    return (
        f"{label.fidelity.capitalize()} label {source}: {record.energy:.6f} eV"
        f"{forces}{cost}{_detail_text(record.details)}."
    )


def _failure_text(label: LabelEntry, record: Unlabelled) -> str:
    message = f" ({record.message})" if record.message else ""
    return (
        f"No {label.fidelity} label, {failure_text(record.failure)}: {record.failure}"
        f"{message}; {duration_text(record.cpu_seconds)} of CPU time"
        f"{_detail_text(record.details)}."
    )


def _quarantine_lines(record: Unlabelled) -> Iterator[str]:
    if record.is_permanent:
        yield "It is in quarantine; another try would fail in the same way."
    else:
        yield "It is in quarantine; `alloop resume STORE --retry` tries it again."


def _rescue_lines(record: Label) -> Iterator[str]:
    if record.details.get("followed"):
        yield "The SCF ended on a saddle point at first and was led downhill from it."
    rung = rescuing_rung(record.details)
    if rung is None:
        return
    tried = str(record.details.get("rungs") or "").replace(",", ", ")
    lost = record.details.get("lost_seconds")
    cost = (
        f"; {duration_text(lost)} went to the others" if isinstance(lost, float) else ""
    )
    yield f"Rescued by the rung `{rung}`{f' ({tried})' * bool(tried)}{cost}."


def _doubt_lines(history: History, label: LabelEntry) -> Iterator[str]:
    if parts := label.record.details.get("doubted_parts"):
        yield f"Doubts by part: {parts}."
    for doubt in sorted(doubts_of_details(label.record.details)):
        yield (
            f"Doubtful: {doubt}. It is {doubt_policy(history, label.fidelity, doubt)}."
        )


def _recheck_lines(
    label: LabelEntry, noise: Mapping[tuple[str, str], Noise]
) -> Iterator[str]:
    remade = noise.get((label.level, label.frame.id))
    if remade is not None:
        yield f"The {label.fidelity} label {noise_text(remade)}."


def _detail_text(values: Mapping[str, Detail]) -> str:
    details = (
        f"{name} {_value_text(values[key])}{_unit_text(key, values[key])}"
        for key, name in _DETAILS.items()
        if values.get(key) is not None
    )
    text = ", ".join(details)
    return f" ({text})" if text else ""


def _unit_text(key: str, value: Detail) -> str:
    return _UNITS.get(key, "") if not isinstance(value, bool | str) else ""


def _value_text(value: Detail) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number_text(value) if isinstance(value, float) else str(value)


_BY_HAND = ("Excluded", "Included", "Retried")

_ROLES = {
    "cheap": "Its cheap label was learned by {}.",
    "refine": "Its cheap label refined the model before it to {}.",
    "expensive": "Its expensive label was learned by {}.",
    "test": "In the validation set, to measure {}.",
    "heldout": "Held out from the training of {}: it calibrates their surprise.",
}


def frame_facts(history: History, prefix: str) -> dict[str, Any]:
    """Return the labels (eV, CPU seconds) and the history of a frame, for scripts.

    The frame is the one whose id begins with `prefix`; every value is fit for
    `json.dumps`. Raises InputError where no frame, or several, have such an id.
    """
    frame = find_frame(history, prefix).frame
    labels = [label for label in label_entries(history) if label.frame.id == frame.id]
    return {
        "frame": frame.id,
        "formula": hill_formula(frame),
        "charge": frame.charge,
        "spin": frame.spin,
        "labels": [_label_facts(history, label) for label in labels],
        "story": describe_frame(history, frame.id),
        "units": {"energy": "eV", "cpu_seconds": "s"},
    }


def _label_facts(history: History, label: LabelEntry) -> dict[str, Any]:
    record = label.record
    return {
        "fidelity": label.fidelity,
        "level": level_title(history, label.fidelity),
        "purpose": label.purpose,
        "round": label.round,
        "good": isinstance(record, Label),
        "energy": record.energy if isinstance(record, Label) else None,
        "failure": None if isinstance(record, Label) else record.failure.name,
        "cpu_seconds": label.cpu_seconds,
        "cached": label.cached,
        "excluded": label.excluded,
    }


def describe_frame(history: History, prefix: str) -> list[str]:
    """Return the history of the frame whose id begins with `prefix`, in sentences.

    Raises InputError where no frame, or several, have such an id.
    """
    match = find_frame(history, prefix)
    frame, proposal = match.frame, _frame_proposal(history, match)
    labels = {
        fidelity: labels_by_frame(history, fidelity).get(frame.id)
        for fidelity in FIDELITIES
    }
    origin = {} if proposal is None else {frame.id: origin_of(proposal, labels)}
    return describe_frames(history, [frame], origin)[frame.id]


def describe_frames(
    history: History,
    frames: Iterable[Frame],
    origins: Mapping[FrameId, Origin],
    limit: int | None = None,
) -> dict[FrameId, list[str]]:
    """Return the histories of these frames by id, as lists of sentences.

    origins: of the frames that MD proposed. limit: the number of last generations whose
    training sets are searched for the frames, all by default, since a training names
    every frame.
    """
    by_id = {frame.id: frame for frame in frames}
    records = _FrameRecords.of(history, by_id, limit)
    return {key: records.describe(x, origins.get(key)) for key, x in by_id.items()}


@dataclass(frozen=True, slots=True, eq=False)
class _FrameRecords:
    """The journal's records of some frames, each part read once.

    labels: requested labels, in order; last: those that no retry replaced;
    first_origins: of frames that no exploration proposed; trainings: generations that
    used a frame, by frame and role, of the `limit` last ones; manual: exclusions and
    other actions by people.
    """

    history: History
    labels: Mapping[FrameId, list[LabelEntry]]
    last: AbstractSet[int]
    noise: Mapping[tuple[str, FrameId], Noise]
    controls: AbstractSet[FrameId]
    thresholds: Mapping[int, tuple[float, str]]
    first_origins: Mapping[FrameId, str]
    trainings: Mapping[FrameId, Mapping[str, list[int]]]
    limit: int | None
    manual: Mapping[FrameId, list[str]]

    @classmethod
    def of(
        cls, history: History, frames: Container[FrameId], limit: int | None
    ) -> "_FrameRecords":
        """Collect the records of these frames."""
        labels: dict[FrameId, list[LabelEntry]] = defaultdict(list)
        for label in label_entries(history):
            if label.frame.id in frames:
                labels[label.frame.id].append(label)
        last = latest_labels(x for entries in labels.values() for x in entries)
        return cls(
            history=history,
            labels=labels,
            last={id(label) for label in last},
            noise=noise_by_label(history),
            controls=control_frames(history),
            thresholds=_known_thresholds(history),
            first_origins=_first_origins(history, frames),
            trainings=_training_roles(history, frames, limit),
            limit=limit if limit and limit < len(history.generations) else None,
            manual=_manual_actions(history, frames),
        )

    def describe(self, frame: Frame, origin: Origin | None) -> list[str]:
        """Return the history of one of the frames, as sentences."""
        labels = self.labels.get(frame.id, [])
        lines = [frame_heading(frame), *self._origin_lines(frame.id, origin, labels)]
        for label in labels:
            lines += label_lines(
                self.history, label, id(label) in self.last, self.noise
            )
        if origin is not None:
            lines += error_lines(self.history, origin)
        if not labels:
            lines.append("It was not chosen for a label.")
        for role, template in _ROLES.items():
            numbers = self.trainings.get(frame.id, {}).get(role)
            lines += [template.format(self._training_text(numbers))] if numbers else []
        return lines + self.manual.get(frame.id, [])

    def _training_text(self, numbers: list[int]) -> str:
        note = f" (of the last {self.limit} searched)" if self.limit else ""
        return f"{generation_text(numbers)}{note}"

    def _origin_lines(
        self, frame: FrameId, origin: Origin | None, labels: list[LabelEntry]
    ) -> Iterator[str]:
        if origin is not None:
            yield proposal_text(origin, frame in self.controls)
            basis = self.thresholds.get(origin.generation)
            yield surprise_text(origin.surprise, basis)
            return
        if any(label.is_given for label in labels):
            yield "Supplied by the user."
        if frame in self.first_origins:
            yield self.first_origins[frame]


def _frame_proposal(history: History, match: FoundFrame) -> Proposal | None:
    if match.explored is None:
        return None
    made = exploration_proposals(history, match.explored)
    return next(x for x in made if x.candidate.frame.id == match.frame.id)


def _first_origins(history: History, frames: Container[FrameId]) -> dict[FrameId, str]:
    """Return the origin of frames that no exploration of the campaign proposed."""
    out: dict[FrameId, str] = {}
    for _, sampled in history.of_kind(e.Sampled):
        text = "Made by MD at the cheap level, for the validation set."
        out |= {x.id: text for x in sampled.frames if x.id in frames}
    for _, examined in history.of_kind(e.Examined):
        candidates = (x for x in examined.frames if x.frame.id in frames)
        out |= {x.frame.id: _examination_text(history, examined, x) for x in candidates}
    for _, prepared in history.of_kind(e.Prepared):
        text = "Drawn around the minimum of the cheap level, as a first frame."
        out |= {x.id: text for x in prepared.seeds if x.id in frames}
        if prepared.minimum.id in frames:
            out[prepared.minimum.id] = "The minimum of its molecule at the cheap level."
    return out


def _examination_text(history: History, event: e.Examined, candidate: Candidate) -> str:
    number = event.number
    command = history.record_index.examinations[number]
    surprise = surprise_text(
        candidate.surprise, _known_thresholds(history).get(command.generation)
    )
    turned = ", with bonds turned or stretched at random beyond MD"
    beyond = "" if candidate.explorer == "md" else turned
    text = (
        f"Taken by examination {number} of generation {command.generation}, on its "
        f"walker {candidate.walker} at step {candidate.step}{beyond}, whatever its "
        "surprise; "
        f"nothing learns from it. {surprise}"
    )
    label = history.label_index.get(
        history.state.levels["expensive"], candidate.frame.id
    )
    if not isinstance(label, Label) or not label.has_forces:
        return text
    mean, worst = force_differences(candidate, label)
    who = f"Generation {command.generation}"
    sentence = label_error_text(history, who, "expensive", mean, worst)
    return f"{text} {sentence}"


def _known_thresholds(history: History) -> dict[int, tuple[float, str]]:
    """Return thresholds with their basis in words, by generation."""
    return {
        x.generation: (x.threshold, threshold_basis(history, x))
        for _, x in history.generations
        if x.threshold is not None
    }


def _training_roles(
    history: History, frames: Container[FrameId], limit: int | None
) -> dict[FrameId, dict[str, list[int]]]:
    """Return the generations trained with or tested on each frame, by role."""
    done = {event.name for _, event in history.generations}
    trainings = [x for x in history.record_index.trainings if x.name in done]
    out: dict[FrameId, dict[str, list[int]]] = {}
    for training in training_commands(
        history, trainings[-limit:] if limit else trainings
    ):
        for role in _ROLES:
            for frame in getattr(training, role):
                if frame in frames:
                    roles = out.setdefault(frame, {})
                    roles.setdefault(role, []).append(training.generation)
    return out


def _manual_actions(
    history: History, frames: Container[FrameId]
) -> dict[FrameId, list[str]]:
    tasks = history.record_index.tasks
    numbers = [x.seq for x in tasks if x.kind in _BY_HAND]
    out: dict[FrameId, list[str]] = defaultdict(list)
    for entry in history.select(numbers):
        match entry.turn.event:
            case e.Excluded() as event if event.frame in frames:
                out[event.frame].append(exclusion_text(entry, event))
            case e.Included() as event if event.frame in frames:
                out[event.frame].append(inclusion_text(entry, event))
            case e.Retried(labels=labels):
                for command in labels:
                    if command.frame.id in frames:
                        what = f"Its {command.fidelity} label was asked for again"
                        line = f"{what} by hand on {local_time(entry.time)}."
                        out[command.frame.id].append(line)
    return dict(out)


def frame_card(frame: Frame, sentences: Sequence[str]) -> dict[str, Any]:
    """Return the JSON values of one frame, see `frame_cards`."""
    card = {
        "t": f"{frame.id[:8]} · {hill_formula(frame)}",
        "s": [chemical_symbol(int(number)) for number in frame.numbers],
        "x": (1000.0 * frame.positions).round().astype(int).ravel().tolist(),
        "w": list(sentences),
    }
    return {**card, "c": frame.cell.round(4).tolist()} if any(frame.pbc) else card
