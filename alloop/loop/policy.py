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

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeAlias

from alloop.core.levels import Fidelity
from alloop.core.splits import EXAMINATION
from alloop.loop import events as e
from alloop.loop.commands import (
    Command,
    Recheck,
    Stop,
    Train,
)
from alloop.loop.examination import examine_commands, is_examined, next_examine_piece
from alloop.loop.exploration import explore_commands, next_explore_piece
from alloop.loop.first_labels import (
    prepare_commands,
    sample_commands,
    seed_label_commands,
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
from alloop.loop.rules import Rules
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
                    state, frame, event.molecule, "expensive", "test", "validation set"
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
    if state.retries:
        again = tuple(state.retries[name] for name in sorted(state.retries))
        return () if state.open else again
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
    if state.open or state.waiting_trainings:
        return ()
    if state.unlearned:
        return train_and_price(state, rules)
    if state.ending is None:
        examination = examine_commands(state, rules, reason)
        if examination:
            return (*examination, *recheck_commands(state, rules))
        return (Stop(reason),)
    return (Stop(reason),) if is_examined(state) else (_unexamined(rules, reason),)


def _conclude(state: LoopState, rules: Rules) -> Commands:
    """End the campaign after its examination, if nothing changed since."""
    return () if state.ending is None else _end_campaign(state, rules, state.ending)


def _stalled(state: LoopState, rules: Rules) -> Commands:
    """Stop if no walker got beyond its first steps in two rounds in a row."""
    return _walkers_lost(rules) if state.stalled_rounds > 1 else ()


def _died(state: LoopState, rules: Rules) -> Commands:
    """Stop if no walker got beyond its first steps and there is no frame to label."""
    return _walkers_lost(rules) if state.died else ()


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
    if number > state.generation:
        return ()
    state = replace(state, exploring_generation=state.usable_until(number))
    reason = _stop_reason(state, rules)
    if reason is not None:
        return _end_campaign(state, rules, reason)
    return explore_commands(state, rules)


def _examination_labels(state: LoopState, event: e.Examined) -> Commands:
    """Label the frames of an examination; their predictions are recorded by now."""
    why = f"examination {event.number}"
    return tuple(
        label_command(state, x.frame, x.molecule, "expensive", EXAMINATION, why)
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
            state, x.frame, x.molecule, level, "control", "random control frame"
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
                "flagged",
                why + ended,
            )
        )
    if fidelity == "expensive":
        return with_rechecks(tuple(labels), state, rules)
    return tuple(labels)


def _label_biased(state: LoopState, rules: Rules) -> Commands:
    quota = RoundQuotas.from_state(state, rules).expensive
    if any(x.purpose == "flagged" and x.fidelity == "expensive" for x in state.recent):
        return ()
    labels = tuple(
        label_command(
            state, candidate.frame, candidate.molecule, "expensive", "bias", why
        )
        for candidate, why in biased_frames(state, rules, quota)
    )
    return with_rechecks(labels, state, rules)


_STEPS: dict[str, tuple[Callable[[LoopState, Rules], Commands], ...]] = {
    "opened": (prepare_commands, train_and_price),
    "seed": (train_and_price,),
    "train": (_stalled, _explore_round),
    "explore": (_label_flagged, _died),
    "flag": (refine_command, _label_biased, train_and_price),
    "bias": (train_and_price,),
    "examine": (_conclude, _explore_round),
}
