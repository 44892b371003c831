"""The whole strategy of a campaign: `decide(state, event, rules) -> commands`. Pure.

    seed -> train -> explore -> flag -> bias -> train -> explore -> ...

A step closes when all that it asked for is resolved; the order of the answers has no
effect. Surprise decides which frames get a cheap label (flag); the bias against that
label decides which get an expensive one (bias).

With `refine` a generation is refined by the cheap labels of flagged frames, where there
are enough of these, and explores once more before any expensive label is bought:

    ... -> explore -> flag -> refine -> explore -> flag -> bias -> train -> ...

With `staleness: k` exploration does not wait for training: round r explores on
generation r - k (at least 1), so that up to k trainings run beside MD and labels. The
lag is fixed; no round ever uses "the newest" generation. When a round closes, the
frames that the next generation learns from are fixed; trainings follow one another,
each from its parent. The campaign ends after all of them, when the last generation has
learned every label. Then the best generation is examined, on frames of its own MD that
were used neither for training nor for any choice.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import ceil
from typing import Protocol, TypeAlias

from alloop.core.levels import Fidelity
from alloop.core.records import MinimumPath, Walker
from alloop.core.seeds import BEYOND, EXAMINATION, Purpose, random_stream
from alloop.loop import events as e
from alloop.loop.commands import (
    Command,
    Explore,
    LabelFrame,
    Prepare,
    Recheck,
    Sample,
    Stop,
    Train,
)
from alloop.loop.examination import (
    examine_commands,
    is_examined,
    next_examine_piece,
)
from alloop.loop.label_choice import (
    RoundQuotas,
    biased_frames,
    control_frames,
    flagged_frames,
    label_command,
)
from alloop.loop.level_split import no_more_cheap
from alloop.loop.refinement import refine_command
from alloop.loop.rules import Rules, walker_temperature
from alloop.loop.state import LoopState
from alloop.loop.stopping import (
    exploring_generation,
    labels_left,
    lost_walkers,
    reason_to_stop,
)
from alloop.loop.training import (
    recheck_commands,
    train_and_price,
    waiting_training,
    with_rechecks,
)
from alloop.md.integrate import maxwell_boltzmann

Commands: TypeAlias = tuple[Command, ...]


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
        return (Stop(state.broken),)
    return _follow_up(state, event, rules) or _next_commands(state, rules)


def _follow_up(state: LoopState, event: e.Event, rules: Rules) -> Commands:
    """Return the commands that follow from one answer, without waiting for others."""
    match event:
        case e.TaskLost():
            command = state.open.get(event.name)
            return () if command is None else (command,)
        case e.Prepared():
            return seed_label_commands(state, event, rules) + sample_commands(
                state, event, rules
            )
        case e.Sampled():
            return tuple(
                label_command(
                    state,
                    frame,
                    event.molecule,
                    "expensive",
                    purpose="test",
                    why="validation set",
                )
                for frame in event.frames
            )
        case e.Explored():
            return next_explore_piece(state, event, rules)
        case e.Examined():
            return (
                *_examination_labels(state, event),
                *next_examine_piece(state, event),
            )
        case _:
            return ()


def _next_commands(state: LoopState, rules: Rules) -> Commands:
    """Return a training that had to wait, and the next step.

    Lost labels that were asked for again come first, when all else is resolved.
    """
    if state.labels.retries:
        lost = tuple(command for _, command in sorted(state.labels.retries.items()))
        return () if state.open else lost
    return waiting_training(state, rules) + _next_step(state, rules)


def _next_step(state: LoopState, rules: Rules) -> Commands:
    """Return the commands of the first step that has any, if no step is open."""
    beside = (Train, Recheck) if rules.staleness else ()
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
    examined, beside rechecks that waited for further labels.
    """
    if state.open or state.generations.waiting:
        return ()
    if state.labels.unlearned:
        return train_and_price(state, rules)
    if state.examination.reason is None:
        examination = examine_commands(state, rules, reason)
        if examination:
            return (*examination, *recheck_commands(state, rules))
        return (Stop(reason),)
    return (Stop(reason),) if is_examined(state) else (_unexamined(rules, reason),)


def _conclude(state: LoopState, rules: Rules) -> Commands:
    """End the campaign after its examination, if nothing changed since."""
    reason = state.examination.reason
    return () if reason is None else _end_campaign(state, rules, reason)


def _stalled(state: LoopState, rules: Rules) -> Commands:
    """Stop if no walker got beyond its first steps in two rounds in a row."""
    return _walkers_lost(rules) if state.exploration.stalled_rounds > 1 else ()


def _died(state: LoopState, rules: Rules) -> Commands:
    """Stop if no walker got beyond its first steps and there is no frame to label."""
    return _walkers_lost(rules) if state.exploration.died else ()


def _walkers_lost(rules: Rules) -> Commands:
    return (Stop(lost_walkers(rules.exploring), broken=True),)


def _unexamined(rules: Rules, reason: str) -> Stop:
    """Return the stop of a campaign whose examination gave no frame."""
    return Stop(f"{reason}, but {lost_walkers(rules.exploring)}", broken=True)


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
    number = exploring_generation(state, rules)
    if number > state.generations.count:
        return ()
    number = state.generations.usable_until(number)
    exploration = replace(state.exploration, generation=number)
    state = replace(state, exploration=exploration)
    reason = _stop_reason(state, rules)
    if reason is not None:
        return _end_campaign(state, rules, reason)
    return explore_commands(state, rules)


def _examination_labels(state: LoopState, event: e.Examined) -> Commands:
    """Label the frames of an examination; their predictions are recorded by now."""
    beyond = event.explorer != "md"
    why = f"{'beyond MD, ' if beyond else ''}examination {event.number}"
    purpose: Purpose = BEYOND if beyond else EXAMINATION
    return tuple(
        label_command(state, x.frame, x.molecule, "expensive", purpose=purpose, why=why)
        for x in event.frames
    )


def _label_flagged(state: LoopState, rules: Rules) -> Commands:
    """Label control frames and flagged frames.

    Control frames get both labels, whatever their surprise; flagged ones a cheap one
    (or, where there is no cheap level or budget, an expensive one at once).
    """
    picks = RoundQuotas.from_state(state, rules)
    control = control_frames(state, picks.controls)
    bought: tuple[Fidelity, ...] = () if no_more_cheap(state, rules) else ("cheap",)
    labels = [
        label_command(
            state,
            x.frame,
            x.molecule,
            level,
            purpose="control",
            why="random control frame",
        )
        for level in ("expensive", *bought)
        for x in control[: labels_left(state, rules, level)]
    ]
    taken = {candidate.frame.id for candidate in control}
    fidelity: Fidelity = "cheap" if picks.cheap else "expensive"
    quota = picks.cheap or picks.expensive
    ended = "" if bought else "; no more cheap labels are bought"
    for candidate, why in flagged_frames(state, rules, quota, taken):
        labels.append(
            label_command(
                state,
                candidate.frame,
                candidate.molecule,
                fidelity,
                purpose="flagged",
                why=why + ended,
            )
        )
    if fidelity == "expensive":
        return with_rechecks(tuple(labels), state, rules)
    return tuple(labels)


def _label_biased(state: LoopState, rules: Rules) -> Commands:
    quota = RoundQuotas.from_state(state, rules).expensive
    recent = state.labels.recent
    if any(x.purpose == "flagged" and x.fidelity == "expensive" for x in recent):
        return ()
    labels = tuple(
        label_command(
            state,
            candidate.frame,
            candidate.molecule,
            "expensive",
            purpose="bias",
            why=why,
        )
        for candidate, why in biased_frames(state, rules, quota)
    )
    return with_rechecks(labels, state, rules)


def prepare_commands(state: LoopState, rules: Rules) -> tuple[Prepare, ...]:
    """Return a command for each molecule without first labels or validation frames."""
    has_test = bool(state.labels.validation_frames())
    seeding = rules.seeding
    commands = []
    for molecule, frame in enumerate(state.start):
        if has_test and not _missing_fidelities(state, molecule, rules):
            continue
        test = (
            0
            if has_test
            else _equal_part(seeding.validation, molecule, len(state.start))
        )
        seeds = _equal_part(
            max(seeding.cheap, seeding.expensive), molecule, len(state.start)
        )
        walkers = ceil(test / seeding.per_walker)
        others = state.conformers.get(molecule, ())
        commands.append(Prepare(molecule, frame, seeds, walkers, others))
    return tuple(commands)


def seed_label_commands(
    state: LoopState, event: e.Prepared, rules: Rules
) -> tuple[LabelFrame, ...]:
    """Return the commands to label a molecule's first frames."""
    molecule, molecules = event.molecule, len(state.start)
    counts: dict[Fidelity, int] = {
        "expensive": _equal_part(rules.seeding.expensive, molecule, molecules),
        "cheap": _equal_part(rules.seeding.cheap, molecule, molecules),
    }
    return tuple(
        label_command(
            state,
            frame,
            molecule,
            fidelity,
            purpose="seed",
            why="drawn around the minimum",
        )
        for fidelity in _missing_fidelities(state, molecule, rules)
        for frame in event.seeds[: counts[fidelity]]
    )


def _missing_fidelities(
    state: LoopState, molecule: int, rules: Rules
) -> tuple[Fidelity, ...]:
    """Return the fidelities without training labels of the molecule from the user."""
    needed: tuple[Fidelity, ...] = (
        ("expensive",) if rules.is_single_fidelity else ("expensive", "cheap")
    )
    supplied = {
        entry.fidelity
        for entry in state.labels.entries()
        if entry.purpose == "given" and entry.molecule == molecule
    }
    return tuple(fidelity for fidelity in needed if fidelity not in supplied)


def sample_commands(
    state: LoopState, event: e.Prepared, rules: Rules
) -> tuple[Sample, ...]:
    """Return the commands for the MD of a molecule's part of the validation set.

    Its walkers divide the frames evenly, so that no label above their number is bought.
    """
    part = _equal_part(rules.seeding.validation, event.molecule, len(state.start))
    walkers = len(event.starts)
    frames = [_equal_part(part, index, walkers) for index in range(walkers)]
    return tuple(
        Sample(walker, frames=min(count, rules.seeding.per_walker))
        for walker, count in zip(event.starts, frames, strict=True)
        if count
    )


def _equal_part(total: int, index: int, parts: int) -> int:
    """Return the share of part `index` when `total` is divided into `parts` parts."""
    return total // parts + (index < total % parts)


def explore_commands(state: LoopState, rules: Rules) -> tuple[Explore, ...]:
    """Return the first commands of the next round, one for each batch of walkers.

    Other explorers than MD get the same walkers; their batches are numbered after those
    of MD. state.exploration.generation: the generation that explores.
    """
    walkers = [
        _round_walker(state, index, rules) for index in range(rules.exploring.walkers)
    ]
    size = rules.exploring.batch
    batches = [walkers[i : i + size] for i in range(0, len(walkers), size)]
    commands = tuple(
        _explore_piece(
            state,
            rules,
            state.exploration.round + 1,
            batch=number,
            piece=0,
            walkers=batch,
        )
        for number, batch in enumerate(batches)
    )
    beside = [
        replace(
            command,
            batch=turn * len(batches) + command.batch,
            steps=settings.steps,
            keep=ceil(settings.share * command.keep),
            controls=0,
            explorer=explorer,
        )
        for turn, (explorer, settings) in enumerate(rules.active_explorers.items(), 1)
        for command in commands
        if not all(any(walker.frame.pbc) for walker in command.walkers)
    ]
    return (*commands, *_with_paths(beside, state.exploration.all_paths))


def _with_paths(
    commands: Sequence[Explore], paths: Sequence[MinimumPath]
) -> Iterator[Explore]:
    """Yield the commands; those that look for paths get the paths found before.

    The first command with walkers of a molecule gets that molecule's.
    """
    left = list(paths)
    for command in commands:
        if command.explorer != "paths":
            yield command
            continue
        molecules = {walker.molecule for walker in command.walkers}
        followed = tuple(path for path in left if path.molecule in molecules)
        left = [path for path in left if path.molecule not in molecules]
        yield replace(command, paths=followed)


def next_explore_piece(
    state: LoopState, event: e.Explored, rules: Rules
) -> tuple[Explore, ...]:
    """Return the command for a batch's next piece, none at the end of the round."""
    after = event.piece + 1
    if event.explorer != "md" or after * rules.exploring.piece >= rules.exploring.steps:
        return ()
    return (
        _explore_piece(
            state,
            rules,
            event.round,
            batch=event.batch,
            piece=after,
            walkers=event.walkers,
        ),
    )


def _explore_piece(
    state: LoopState,
    rules: Rules,
    round_: int,
    *,
    batch: int,
    piece: int,
    walkers: Sequence[Walker],
) -> Explore:
    exploring = rules.exploring
    steps = min(exploring.piece, exploring.steps - piece * exploring.piece)
    picks = RoundQuotas.from_state(state, rules)
    return Explore(
        round=round_,
        piece=piece,
        batch=batch,
        generation=state.exploration.generation,
        model=state.generations.summaries[state.exploration.generation].model,
        walkers=tuple(_at_temperature(state, x, rules) for x in walkers),
        steps=steps,
        keep=3 * max(picks.cheap, picks.expensive),
        controls=(
            picks.controls + ceil(rules.random * (picks.cheap + picks.expensive))
            if rules.selection == "flagged"
            else picks.all
        ),
    )


def _round_walker(state: LoopState, index: int, rules: Rules) -> Walker:
    """Return the walker where it was, or a new one if it never moved or was stopped.

    By the naive protocol it is always a new one.
    """
    walker = state.exploration.walkers.get(index)
    goes_on = rules.exploring.protocol != "naive"
    if goes_on and walker is not None and walker.stopped is None:
        return walker
    molecule = index % len(state.start)
    rng = random_stream(state.seed, f"walker/{index}/{state.exploration.round + 1}")
    seeds = state.seeds.get(molecule) or (state.start[molecule],)
    frame = seeds[int(rng.integers(len(seeds)))]
    kelvin = _exploring_temperature(state, index, rules)
    velocities = maxwell_boltzmann(frame, kelvin, rng)
    return Walker(index, molecule, frame, velocities, temperature=kelvin)


def _at_temperature(state: LoopState, walker: Walker, rules: Rules) -> Walker:
    """Return the walker at the temperature that the rules give it now."""
    kelvin = _exploring_temperature(state, walker.index, rules)
    if walker.temperature == kelvin:
        return walker
    return replace(walker, temperature=kelvin)


def _exploring_temperature(state: LoopState, index: int, rules: Rules) -> float:
    return walker_temperature(rules.exploring.temperatures, index, len(state.start))


_STEPS: dict[str, tuple[Callable[[LoopState, Rules], Commands], ...]] = {
    "opened": (prepare_commands, train_and_price),
    "seed": (train_and_price,),
    "train": (_stalled, _explore_round),
    "explore": (_label_flagged, _died),
    "flag": (refine_command, _label_biased, train_and_price),
    "bias": (train_and_price,),
    "examine": (_conclude, _explore_round),
}
