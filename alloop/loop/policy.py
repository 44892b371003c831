"""The whole strategy of a campaign: `decide(state, event, rules) -> commands`. Pure.

    seed -> train -> explore -> flag -> bias -> train -> explore -> ...

A step closes when all that it asked for is resolved; the order of the answers has no
effect. Surprise decides which frames get a cheap label (flag); the bias against that
label decides which get an expensive one (bias).

With `staleness: k` exploration does not wait for training: round r explores on
generation r - k (at least 1), so that up to k trainings run beside MD and labels. The
lag is fixed; no round ever uses "the newest" generation. When a round closes, the
frames that the next generation learns from are fixed; trainings follow one another,
each from its parent. The campaign ends after all of them, when the last generation has
learned every label. Then the best generation is examined, on frames of its own MD that
were used neither for training nor for any choice.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil
from typing import Protocol

from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.seeds import random_stream
from alloop.core.splits import EXAMINATION
from alloop.loop import events as e
from alloop.loop.examination import examine_commands, is_examined, next_examine_piece
from alloop.loop.label_choice import (
    RoundQuotas,
    biased_frames,
    control_frames,
    flagged_frames,
)
from alloop.loop.rechecks import recheck_commands
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState
from alloop.loop.stopping import (
    exploring_generation,
    labels_left,
    lost_walkers,
    reason_to_stop,
)
from alloop.md.integrate import maxwell_boltzmann

Commands = tuple[e.Command, ...]


class Policy(Protocol):
    """The strategy of a campaign; `decide` is the one that alloop ships."""

    def __call__(self, state: LoopState, event: e.Event, rules: Rules, /) -> Commands:
        """Return the commands that follow from the event.

        It must be pure: the same arguments give the same commands, down to the bits.
        state: the state with the event already applied.
        """
        ...


def decide(state: LoopState, event: e.Event, rules: Rules) -> Commands:
    """Return the commands that follow from the event.

    state: the state with the event already applied.
    """
    if state.finished:
        return ()
    if state.broken:
        return (e.Stop(state.broken),)
    return _follow_up(state, event, rules) or _next_commands(state, rules)


def _follow_up(state: LoopState, event: e.Event, rules: Rules) -> Commands:
    """Return the commands that follow from one answer, without waiting for others."""
    match event:
        case e.TaskLost():
            command = state.open.get(event.name)
            return () if command is None else (command,)
        case e.Prepared():
            return _seed_labels(state, event, rules) + _sample_commands(event, rules)
        case e.Sampled():
            return tuple(
                _label_command(
                    state, frame, event.molecule, "expensive", "test", "frozen set"
                )
                for frame in event.frames
            )
        case e.Explored():
            return _next_piece(state, event, rules)
        case e.Examined():
            return (*_papers(state, event), *next_examine_piece(state, event))
        case _:
            return ()


def _next_commands(state: LoopState, rules: Rules) -> Commands:
    """Return a training that had to wait, and the next step.

    Lost labels that were asked for again come first, when all else is resolved.
    """
    if state.retries:
        again = tuple(state.retries[name] for name in sorted(state.retries))
        return () if state.open else again
    return _waiting_training(state, rules) + _next_step(state, rules)


def _next_step(state: LoopState, rules: Rules) -> Commands:
    """Return the commands of the first step that has any, if no step is open."""
    beside = (e.Train, e.Recheck) if rules.staleness else ()
    if not all(isinstance(command, beside) for command in state.open.values()):
        return ()
    for step in _STEPS[state.stage]:
        commands = step(state, rules)
        if commands:
            return commands
    return _end_campaign(state, rules, "nothing is left to label or to learn")


def _end_campaign(state: LoopState, rules: Rules, reason: str) -> Commands:
    """Stop when all is answered.

    Before that, labels that came late are learned from, and the best generation is
    examined.
    """
    if state.open or state.waiting:
        return ()
    if state.unlearned:
        return _train_and_price(state, rules)
    if state.ending is None:
        return examine_commands(state, rules, reason) or (e.Stop(reason),)
    return (e.Stop(reason),) if is_examined(state) else (_unexamined(rules, reason),)


def _conclude(state: LoopState, rules: Rules) -> Commands:
    """End the campaign after its examination, if nothing changed since."""
    return () if state.ending is None else _end_campaign(state, rules, state.ending)


def _stalled(state: LoopState, rules: Rules) -> Commands:
    """Stop if no walker got beyond its first steps in two rounds in a row."""
    return _walkers_lost(rules) if state.stalled > 1 else ()


def _died(state: LoopState, rules: Rules) -> Commands:
    """Stop if no walker got beyond its first steps and there is no frame to label."""
    return _walkers_lost(rules) if state.died else ()


def _walkers_lost(rules: Rules) -> Commands:
    return (e.Stop(lost_walkers(rules.exploring), broken=True),)


def _unexamined(rules: Rules, reason: str) -> e.Stop:
    """Return the stop of a campaign whose examination gave no frame."""
    return e.Stop(f"{reason}, but {lost_walkers(rules.exploring)}", broken=True)


def _prepare_molecules(state: LoopState, rules: Rules) -> Commands:
    has_test = bool(state.test_frames())
    seeding = rules.seeding
    commands = []
    for molecule, frame in enumerate(state.start):
        if has_test and not _missing_fidelities(state, molecule, rules):
            continue
        test = 0 if has_test else _equal_part(seeding.test, molecule, len(state.start))
        seeds = _equal_part(
            max(seeding.cheap, seeding.expensive), molecule, len(state.start)
        )
        walkers = ceil(test / seeding.per_walker)
        commands.append(e.Prepare(molecule, frame, seeds=seeds, walkers=walkers))
    return tuple(commands)


def _seed_labels(state: LoopState, event: e.Prepared, rules: Rules) -> Commands:
    molecule, molecules = event.molecule, len(state.start)
    counts = {
        "expensive": _equal_part(rules.seeding.expensive, molecule, molecules),
        "cheap": _equal_part(rules.seeding.cheap, molecule, molecules),
    }
    return tuple(
        _label_command(
            state, frame, molecule, fidelity, "seed", "drawn around the minimum"
        )
        for fidelity in _missing_fidelities(state, molecule, rules)
        for frame in event.seeds[: counts[fidelity]]
    )


def _missing_fidelities(
    state: LoopState, molecule: int, rules: Rules
) -> tuple[str, ...]:
    """Return the fidelities without training labels of the molecule from the user."""
    needed = ("expensive",) if rules.is_single_fidelity else ("expensive", "cheap")
    brought = {
        entry.fidelity
        for entry in state.entries()
        if entry.purpose == "given" and entry.molecule == molecule
    }
    return tuple(fidelity for fidelity in needed if fidelity not in brought)


def _sample_commands(event: e.Prepared, rules: Rules) -> Commands:
    frames = rules.seeding.per_walker
    return tuple(e.Sample(walker, frames=frames) for walker in event.starts)


def _train_and_price(state: LoopState, rules: Rules) -> Commands:
    """Return the next training, some rechecks of labels and the fit of label costs.

    The training is left out while the generation before it is not there. The rest runs
    on cores that the training leaves idle.
    """
    lesson = state.lesson + 1
    train = _train_command(state, rules) if state.generation + 1 == lesson else ()
    if any(isinstance(command, e.Stop) for command in train):
        return train
    return (*train, *recheck_commands(state, rules), e.Price(lesson))


def _waiting_training(state: LoopState, rules: Rules) -> Commands:
    """Return the next training that had to wait, on the labels fixed for it."""
    blocks = state.waiting.get(state.generation + 1)
    return () if blocks is None else _train_command(state.first_blocks(blocks), rules)


def _train_command(state: LoopState, rules: Rules) -> Commands:
    costly, doubted = rules.barred_doubts("expensive"), rules.barred_doubts("cheap")
    expensive = state.trained_on("expensive", costly)
    if not expensive:
        return (e.Stop("no expensive label succeeded: `alloop log` tells why"),)
    heldout = () if rules.is_single_fidelity else state.held_out(rules.heldout, doubted)
    cheap = () if rules.is_single_fidelity else state.trained_on("cheap", doubted)
    train = e.Train(
        generation=state.generation + 1,
        cheap=tuple(sorted(set(cheap) - set(heldout))),
        expensive=expensive,
        test=state.test_frames(costly),
        parent=state.model,
        heldout=heldout,
    )
    return (train,)


def _stop_reason(state: LoopState, rules: Rules) -> str | None:
    """Return the reason why no further round follows, or None."""
    picks = RoundQuotas.from_state(state, rules)
    reason = reason_to_stop(state, rules)
    if reason is None and picks.expensive + picks.controls == 0:
        hours = rules.budget.cpu_hours
        reason = f"the budget of {hours} CPU hours for labels pays for no further round"
    return reason


def _explore_round(state: LoopState, rules: Rules) -> Commands:
    """Start a round once its generation is there.

    End the campaign instead if there is a reason to.
    """
    state = replace(state, explorer=exploring_generation(state, rules))
    if state.explorer > state.generation:
        return ()
    reason = _stop_reason(state, rules)
    if reason is not None:
        return _end_campaign(state, rules, reason)
    walkers = [
        _round_walker(state, index, rules) for index in range(rules.exploring.walkers)
    ]
    size = rules.exploring.batch
    batches = [walkers[i : i + size] for i in range(0, len(walkers), size)]
    return tuple(
        _explore_piece(state, rules, state.round + 1, number, 0, batch)
        for number, batch in enumerate(batches)
    )


def _next_piece(state: LoopState, event: e.Explored, rules: Rules) -> Commands:
    _, round_, batch, piece = event.name.split("/")
    after = int(piece) + 1
    if after * rules.exploring.piece >= rules.exploring.steps:
        return ()
    return (
        _explore_piece(state, rules, int(round_), int(batch), after, event.walkers),
    )


def _explore_piece(
    state: LoopState,
    rules: Rules,
    round_: int,
    batch: int,
    piece: int,
    walkers: Sequence[Walker],
) -> e.Explore:
    exploring = rules.exploring
    steps = min(exploring.piece, exploring.steps - piece * exploring.piece)
    picks = RoundQuotas.from_state(state, rules)
    return e.Explore(
        round=round_,
        piece=piece,
        batch=batch,
        generation=state.explorer,
        model=state.insights[state.explorer].model,
        walkers=tuple(walkers),
        steps=steps,
        keep=3 * max(picks.cheap, picks.expensive),
        controls=picks.controls if rules.selection == "flagged" else picks.all,
    )


def _round_walker(state: LoopState, index: int, rules: Rules) -> Walker:
    """Return the walker where it was, or a new one if it never moved or was stopped."""
    walker = state.walkers.get(index)
    if walker is not None and walker.stopped is None:
        return walker
    molecule = index % len(state.start)
    rng = random_stream(state.seed, f"walker/{index}/{state.round + 1}")
    seeds = state.seeds.get(molecule) or (state.start[molecule],)
    frame = seeds[int(rng.integers(len(seeds)))]
    velocities = maxwell_boltzmann(frame, rules.exploring.temperature, rng)
    return Walker(index, molecule, frame, velocities)


def _papers(state: LoopState, event: e.Examined) -> Commands:
    """Label the frames of an examination; their predictions are recorded by now."""
    why = f"final examination {event.name.split('/')[1]}"
    return tuple(
        _label_command(state, x.frame, x.molecule, "expensive", EXAMINATION, why)
        for x in event.frames
    )


def _label_flagged(state: LoopState, rules: Rules) -> Commands:
    """Label control frames and flagged frames.

    Control frames get both labels, whatever their surprise; flagged ones a cheap one
    (or, where there is no cheap level or budget, an expensive one at once).
    """
    picks = RoundQuotas.from_state(state, rules)
    control = control_frames(state, picks.controls)
    labels = [
        _label_command(
            state, x.frame, x.molecule, fidelity, "control", "random control frame"
        )
        for fidelity in ("expensive", "cheap")
        for x in control[: labels_left(state, rules, fidelity)]
    ]
    taken = {candidate.frame.id for candidate in control}
    fidelity, quota = (
        ("cheap", picks.cheap) if picks.cheap else ("expensive", picks.expensive)
    )
    for candidate, why in flagged_frames(state, rules, quota, taken):
        labels.append(
            _label_command(
                state, candidate.frame, candidate.molecule, fidelity, "flagged", why
            )
        )
    return tuple(labels)


def _label_biased(state: LoopState, rules: Rules) -> Commands:
    quota = RoundQuotas.from_state(state, rules).expensive
    if any(x.purpose == "flagged" and x.fidelity == "expensive" for x in state.recent):
        return ()
    return tuple(
        _label_command(
            state, candidate.frame, candidate.molecule, "expensive", "bias", why
        )
        for candidate, why in biased_frames(state, rules, quota)
    )


def _label_command(
    state: LoopState, frame: Frame, molecule: int, fidelity: str, purpose: str, why: str
) -> e.LabelFrame:
    level = state.levels[fidelity]
    return e.LabelFrame(frame, level, fidelity, purpose, molecule, why)


def _equal_part(total: int, index: int, parts: int) -> int:
    """Return the share of part `index` when `total` is divided into `parts` parts."""
    return total // parts + (index < total % parts)


_STEPS: dict[str, tuple[Callable[[LoopState, Rules], Commands], ...]] = {
    "opened": (_prepare_molecules, _train_and_price),
    "seed": (_train_and_price,),
    "train": (_stalled, _explore_round),
    "explore": (_label_flagged, _died),
    "flag": (_label_biased, _train_and_price),
    "bias": (_train_and_price,),
    "examine": (_conclude, _explore_round),
}
