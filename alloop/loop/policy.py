"""What to do next: `decide(state, event, rules) -> commands`. Pure, the whole strategy.

    seed -> train -> explore -> flag -> bias -> train -> explore -> ...

A step closes when all that it asked for is resolved; nothing depends on the order in
which answers came. Surprise decides who gets a cheap label (flag); the bias against
that label decides who gets an expensive one (bias).

With `staleness: k` training is no step to wait for: round r explores on generation
r - k (at least 1), so that up to k trainings run beside MD and labels. The lag is
fixed; no round ever uses "the newest". A round that closes fixes its lesson, which
frames the next generation learns; trainings follow one another, each from its parent.
The end waits for all of them: the last generation has learned every label. Then the
best generation is examined, on frames of its own MD that nothing has learned from or
chosen by.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil

from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.seeds import stream
from alloop.core.splits import EXAMINATION
from alloop.loop import events as e
from alloop.loop.choice import Picks, controls, flagged, of_bias
from alloop.loop.examining import examine, examined, next_piece
from alloop.loop.noise import rechecks
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState
from alloop.loop.stopping import explorer, left, lost_walkers, reason_to_stop
from alloop.md.integrate import maxwell_boltzmann

Commands = tuple[e.Command, ...]


def decide(state: LoopState, event: e.Event, rules: Rules) -> Commands:
    """The commands that follow from the event, in the state that has absorbed it."""
    if state.finished:
        return ()
    if state.broken:
        return (e.Stop(state.broken),)
    return _follow_up(state, event, rules) or _advance(state, rules)


def _follow_up(state: LoopState, event: e.Event, rules: Rules) -> Commands:
    """What one answer asks for at once, without waiting for its siblings."""
    match event:
        case e.TaskLost():
            command = state.open.get(event.name)
            return () if command is None else (command,)
        case e.Prepared():
            return _seed_labels(state, event, rules) + _samples(event, rules)
        case e.Sampled():
            return tuple(
                _label(state, frame, event.molecule, "expensive", "test", "frozen set")
                for frame in event.frames
            )
        case e.Explored():
            return _next_piece(state, event, rules)
        case e.Examined():
            return (*_papers(state, event), *next_piece(state, event))
        case _:
            return ()


def _advance(state: LoopState, rules: Rules) -> Commands:
    """A training that had to wait, and the next step; but what was lost and asked for
    again has its second chance first, when all else is resolved."""
    if state.retries:
        again = tuple(state.retries[name] for name in sorted(state.retries))
        return () if state.open else again
    return _waiting(state, rules) + _next_step(state, rules)


def _next_step(state: LoopState, rules: Rules) -> Commands:
    """The first step that has something to do, once the open one is resolved."""
    beside = (e.Train, e.Recheck) if rules.staleness else ()
    if not all(isinstance(command, beside) for command in state.open.values()):
        return ()
    for step in _STEPS[state.stage]:
        commands = step(state, rules)
        if commands:
            return commands
    return _end(state, rules, "nothing is left to label or to learn")


def _end(state: LoopState, rules: Rules, reason: str) -> Commands:
    """Stop when all is answered; but what came late is learned from before, and the
    best generation is examined."""
    if state.open or state.waiting:
        return ()
    if state.unlearned:
        return _learn(state, rules)
    if state.ending is None:
        return examine(state, rules, reason) or (e.Stop(reason),)
    return (e.Stop(reason),) if examined(state) else (_unexamined(rules, reason),)


def _conclude(state: LoopState, rules: Rules) -> Commands:
    """The end that the examination was taken for, where nothing changed since."""
    return () if state.ending is None else _end(state, rules, state.ending)


def _stalled(state: LoopState, rules: Rules) -> Commands:
    """Stop where walkers got nowhere in two rounds, one after the other."""
    return _walkers_lost(rules) if state.stalled > 1 else ()


def _died(state: LoopState, rules: Rules) -> Commands:
    """Stop where walkers got nowhere and left no frame to label."""
    return _walkers_lost(rules) if state.died else ()


def _walkers_lost(rules: Rules) -> Commands:
    return (e.Stop(lost_walkers(rules.exploring), broken=True),)


def _unexamined(rules: Rules, reason: str) -> e.Stop:
    """The end of a campaign whose examination gave no frame."""
    return e.Stop(f"{reason}, but {lost_walkers(rules.exploring)}", broken=True)


def _prepare(state: LoopState, rules: Rules) -> Commands:
    has_test = bool(state.test())
    seeding = rules.seeding
    commands = []
    for molecule, frame in enumerate(state.start):
        if has_test and not _missing(state, molecule, rules):
            continue
        test = 0 if has_test else _part(seeding.test, molecule, len(state.start))
        seeds = _part(max(seeding.cheap, seeding.expensive), molecule, len(state.start))
        walkers = ceil(test / seeding.per_walker)
        commands.append(e.Prepare(molecule, frame, seeds=seeds, walkers=walkers))
    return tuple(commands)


def _seed_labels(state: LoopState, event: e.Prepared, rules: Rules) -> Commands:
    molecule, molecules = event.molecule, len(state.start)
    counts = {
        "expensive": _part(rules.seeding.expensive, molecule, molecules),
        "cheap": _part(rules.seeding.cheap, molecule, molecules),
    }
    return tuple(
        _label(state, frame, molecule, fidelity, "seed", "drawn around the minimum")
        for fidelity in _missing(state, molecule, rules)
        for frame in event.seeds[: counts[fidelity]]
    )


def _missing(state: LoopState, molecule: int, rules: Rules) -> tuple[str, ...]:
    """The fidelities at which the user brought no labels of the molecule to learn."""
    needed = ("expensive",) if rules.single else ("expensive", "cheap")
    brought = {
        entry.fidelity
        for entry in state.entries()
        if entry.purpose == "given" and entry.molecule == molecule
    }
    return tuple(fidelity for fidelity in needed if fidelity not in brought)


def _samples(event: e.Prepared, rules: Rules) -> Commands:
    frames = rules.seeding.per_walker
    return tuple(e.Sample(walker, frames=frames) for walker in event.starts)


def _learn(state: LoopState, rules: Rules) -> Commands:
    """The next lesson, and its training if the generation before it is there; beside
    it, on cores that it leaves idle, some labels are made again, and what labels cost
    is written down."""
    lesson = state.lesson + 1
    train = _train(state, rules) if state.generation + 1 == lesson else ()
    if any(isinstance(command, e.Stop) for command in train):
        return train
    return (*train, *rechecks(state, rules), e.Price(lesson))


def _waiting(state: LoopState, rules: Rules) -> Commands:
    """The training of the next lesson that is fixed, on the labels of its day."""
    blocks = state.waiting.get(state.generation + 1)
    return () if blocks is None else _train(state.before(blocks), rules)


def _train(state: LoopState, rules: Rules) -> Commands:
    costly, doubted = rules.barred("expensive"), rules.barred("cheap")
    expensive = state.trained_on("expensive", costly)
    if not expensive:
        return (e.Stop("no expensive label succeeded: `alloop log` tells why"),)
    heldout = () if rules.single else state.heldout(rules.heldout, doubted)
    cheap = () if rules.single else state.trained_on("cheap", doubted)
    train = e.Train(
        generation=state.generation + 1,
        cheap=tuple(sorted(set(cheap) - set(heldout))),
        expensive=expensive,
        test=state.test(costly),
        parent=state.model,
        heldout=heldout,
    )
    return (train,)


def _enough(state: LoopState, rules: Rules) -> str | None:
    """Why no further round follows, or None."""
    picks = Picks.of(state, rules)
    reason = reason_to_stop(state, rules)
    if reason is None and picks.expensive + picks.controls == 0:
        hours = rules.budget.cpu_hours
        reason = f"the budget of {hours} CPU hours for labels pays for no further round"
    return reason


def _explore(state: LoopState, rules: Rules) -> Commands:
    """A round, unless enough is known, once the generation that explores is there."""
    state = replace(state, explorer=explorer(state, rules))
    if state.explorer > state.generation:
        return ()
    reason = _enough(state, rules)
    if reason is not None:
        return _end(state, rules, reason)
    walkers = [_walker(state, index, rules) for index in range(rules.exploring.walkers)]
    size = rules.exploring.batch
    batches = [walkers[i : i + size] for i in range(0, len(walkers), size)]
    return tuple(
        _piece(state, rules, state.round + 1, number, 0, batch)
        for number, batch in enumerate(batches)
    )


def _next_piece(state: LoopState, event: e.Explored, rules: Rules) -> Commands:
    _, round_, batch, piece = event.name.split("/")
    after = int(piece) + 1
    if after * rules.exploring.piece >= rules.exploring.steps:
        return ()
    return (_piece(state, rules, int(round_), int(batch), after, event.walkers),)


def _piece(
    state: LoopState,
    rules: Rules,
    round_: int,
    batch: int,
    piece: int,
    walkers: Sequence[Walker],
) -> e.Explore:
    exploring = rules.exploring
    steps = min(exploring.piece, exploring.steps - piece * exploring.piece)
    picks = Picks.of(state, rules)
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


def _walker(state: LoopState, index: int, rules: Rules) -> Walker:
    """The walker where it was, or a fresh one where it never walked or had to stop."""
    walker = state.walkers.get(index)
    if walker is not None and walker.stopped is None:
        return walker
    molecule = index % len(state.start)
    rng = stream(state.seed, f"walker/{index}/{state.round + 1}")
    seeds = state.seeds.get(molecule) or (state.start[molecule],)
    frame = seeds[int(rng.integers(len(seeds)))]
    velocities = maxwell_boltzmann(frame, rules.exploring.temperature, rng)
    return Walker(index, molecule, frame, velocities)


def _papers(state: LoopState, event: e.Examined) -> Commands:
    """Labels of an examination's frames, whose predictions are in the journal now."""
    why = f"final examination {event.name.split('/')[1]}"
    return tuple(
        _label(state, x.frame, x.molecule, "expensive", EXAMINATION, why)
        for x in event.frames
    )


def _flag(state: LoopState, rules: Rules) -> Commands:
    """Control frames get both labels, whatever their surprise; flagged ones a cheap one
    (or, where there is no cheap level or budget, an expensive one at once)."""
    picks = Picks.of(state, rules)
    control = controls(state, picks.controls)
    labels = [
        _label(state, x.frame, x.molecule, fidelity, "control", "random control frame")
        for fidelity in ("expensive", "cheap")
        for x in control[: left(state, rules, fidelity)]
    ]
    taken = {candidate.frame.id for candidate in control}
    fidelity, quota = (
        ("cheap", picks.cheap) if picks.cheap else ("expensive", picks.expensive)
    )
    for candidate, why in flagged(state, rules, quota, taken):
        labels.append(
            _label(state, candidate.frame, candidate.molecule, fidelity, "flagged", why)
        )
    return tuple(labels)


def _bias(state: LoopState, rules: Rules) -> Commands:
    quota = Picks.of(state, rules).expensive
    if any(x.purpose == "flagged" and x.fidelity == "expensive" for x in state.recent):
        return ()
    return tuple(
        _label(state, candidate.frame, candidate.molecule, "expensive", "bias", why)
        for candidate, why in of_bias(state, rules, quota)
    )


def _label(
    state: LoopState, frame: Frame, molecule: int, fidelity: str, purpose: str, why: str
) -> e.LabelFrame:
    level = state.levels[fidelity]
    return e.LabelFrame(frame, level, fidelity, purpose, molecule, why)


def _part(total: int, index: int, parts: int) -> int:
    """The share of part `index` when `total` is dealt out to `parts`."""
    return total // parts + (index < total % parts)


_STEPS: dict[str, tuple[Callable[[LoopState, Rules], Commands], ...]] = {
    "opened": (_prepare, _learn),
    "seed": (_learn,),
    "train": (_stalled, _explore),
    "explore": (_flag, _died),
    "flag": (_bias, _learn),
    "bias": (_learn,),
    "examine": (_conclude, _explore),
}
