"""A small world in which every command has one answer, made from its content alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from alloop.core.cost_curve import Curve
from alloop.core.frame import Frame
from alloop.core.label_cost import Cost
from alloop.core.records import Candidate, Failure, Label, Noise, Unlabelled, Walker
from alloop.core.seeds import name_share, random_stream
from alloop.history.reader import History, JournalEntry
from alloop.loop import events as e
from alloop.loop.commands import (
    Command,
    Examine,
    Explore,
    LabelFrame,
    Prepare,
    Price,
    Recheck,
    Sample,
    Train,
    TrainPart,
)
from alloop.loop.policy import decide
from alloop.loop.reducer import apply_commands, apply_event
from alloop.loop.rules import Budget, ExploreRules, Rules, SeedRules
from alloop.loop.state import LoopState

LEVELS = {"cheap": "c" * 16, "expensive": "e" * 16}
STIFF = {"c" * 16: 9.0, "e" * 16: 10.0}  # eV/Å²
COST = {"c" * 16: 1.0, "e" * 16: 20.0}  # CPU s
RULES = Rules(
    budget=Budget(cheap=20, expensive=12),
    seeding=SeedRules(cheap=6, expensive=3, validation=4, per_walker=2),
    exploring=ExploreRules(walkers=4, steps=25, batch=2, piece=10),
    every=4,
    control=0.25,
)


def ids(commands: Sequence[LabelFrame]) -> list[str]:
    return sorted(command.frame.id for command in commands)


def cost(level: str, seconds: float) -> Cost:
    """A level whose labels all cost the same."""
    flat = Curve(seconds, 1e12, 1.0, 1.0)
    return Cost(level, time=flat, memory=flat)


def frame(name: str, molecule: int = 0) -> Frame:
    """A diatomic somewhere; molecule 0 is H2, 1 is He2, 2 is Li2."""
    straight = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.9]])
    bent = straight + random_stream(1, name).normal(0, 0.05, (2, 3))
    return Frame(np.full(2, molecule + 1), bent)


def spring(where: Frame, level: str) -> tuple[float, np.ndarray]:
    arm = where.positions[1] - where.positions[0]
    length = np.linalg.norm(arm)
    pull = STIFF[level] * (length - 0.9) * arm / length
    return 0.5 * STIFF[level] * (length - 0.9) ** 2, np.stack([pull, -pull])


def label(where: Frame, level: str) -> Label:
    energy, forces = spring(where, level)
    return Label(where.id, level, energy, forces, COST[level], {"program": "spring"})


def candidate(name: str, walker: Walker, origin: str = "surprise") -> Candidate:
    where = frame(name, walker.molecule)
    energy, forces = spring(where, LEVELS["expensive"])
    return Candidate(
        frame=where,
        molecule=walker.molecule,
        walker=walker.index,
        step=walker.step,
        surprise=name_share(2, where.id),
        energy=energy,
        forces=forces,
        descriptor=random_stream(3, where.id).normal(size=3),
        origin=origin,
    )


def answer(command: Command) -> e.Answer:
    """What the command leads to."""
    timing = e.Timing(1.0, 2.0, 1.0, "here:1")
    match command:
        case Prepare(name=name, molecule=molecule):
            return e.Prepared(
                name,
                molecule,
                command.frame,
                tuple(frame(f"{name}/{i}", molecule) for i in range(command.seeds)),
                tuple(
                    Walker(1000 * (molecule + 1) + i, molecule, command.frame, still())
                    for i in range(command.walkers)
                ),
                timing,
            )
        case Sample(name=name, walker=walker):
            frames = [
                frame(f"{name}/{i}", walker.molecule) for i in range(command.frames)
            ]
            return e.Sampled(name, walker.molecule, tuple(frames), timing)
        case LabelFrame():
            return e.Labelled(command.name, label(command.frame, command.level), timing)
        case Explore() | Examine():
            return moved(command, timing)
        case Train() | TrainPart():
            return learned(command, timing)
        case Recheck(name=name, frame=where, level=level):
            noise = Noise(where, level, 1e-4, 2e-3, 5e-3, 3 * COST[level])
            return e.Rechecked(name, noise, e.Timing(1.0, 4.0, noise.cpu_seconds))
        case Price(name=name):
            return e.Priced(name, {})
    raise AssertionError(command)


def part_errors(command: TrainPart, *, powers: tuple = (0.3, 0.3)) -> np.ndarray:
    """Errors that fall with powers of the labels: of cheap and expensive ones."""
    cheap, expensive = powers
    noise = [random_stream(4, x).uniform(0.5, 1.5) for x in command.judged]
    fall = len(command.cheap) ** -cheap if command.cheap else 2.0
    return np.array(noise) * fall * len(command.expensive) ** -expensive


def still() -> np.ndarray:
    return np.zeros((2, 3))


def moved(command: Explore | Examine, timing: e.Timing) -> e.Answer:
    if isinstance(command, Examine):
        return examined(command, timing)
    return explored(command, timing)


def explored(command: Explore, timing: e.Timing) -> e.Explored:
    name, lead = command.name, command.walkers[0]
    walkers = tuple(
        replace(
            walker,
            step=walker.step + command.steps,
            frame=frame(f"{name}/{walker.index}/end", walker.molecule),
        )
        for walker in command.walkers
    )
    crew = len(command.walkers)
    return e.Explored(
        command.round,
        command.batch,
        command.piece,
        walkers=walkers,
        candidates=tuple(
            candidate(f"{name}/{i}", command.walkers[i % crew])
            for i in range(command.keep)
        ),
        controls=tuple(
            candidate(f"{name}/control/{i}", lead, "control")
            for i in range(command.controls)
        ),
        scored=command.steps,
        timing=timing,
    )


def examined(command: Examine, timing: e.Timing) -> e.Examined:
    walkers = tuple(
        replace(
            walker,
            step=walker.step + command.steps,
            frame=frame(f"{command.name}/{walker.index}", walker.molecule)
            if command.steps
            else walker.frame,
        )
        for walker in command.walkers
    )
    frames = tuple(
        replace(candidate(command.name, x, "examination"), frame=x.frame)
        for x in walkers
        if command.piece >= command.equilibration
    )
    place = (command.number, command.batch, command.piece)
    return e.Examined(*place, walkers, frames, timing, command.explorer)


def learned(command: Train | TrainPart, timing: e.Timing) -> e.Answer:
    if isinstance(command, TrainPart):
        errors = part_errors(command)
        return e.PartTrained(command.generation, command.part, errors, timing)
    return trained(command, timing)


def trained(command: Train, timing: e.Timing) -> e.Trained:
    known = repr((command.name, command.cheap, command.expensive, command.parent))
    error = 1.0 / len(command.expensive)
    shape = (2 * len(command.test), 3)
    evaluation = e.Evaluation(
        command.test,
        np.zeros(len(command.test)),
        np.zeros(shape),
        np.zeros(len(command.test)),
        energy_mae=error / 10,
        force_mae=error,
        force_rmse=1.3 * error,
    )
    return e.Trained(
        command.name,
        command.generation,
        sha256(known.encode()).hexdigest()[:32],
        threshold=0.5,
        evaluation=evaluation,
        landmarks=np.zeros((0, 3)),
        timing=timing,
    )


def failed(command: LabelFrame) -> e.NotLabelled:
    record = Unlabelled(
        command.frame.id, command.level, Failure.NOT_CONVERGED, "no", 2.0
    )
    return e.NotLabelled(command.name, record)


def opened(molecules: int = 1, **facts: object) -> e.Opened:
    start = tuple(frame(f"start/{i}", i) for i in range(molecules))
    return e.Opened(seed=7, levels=LEVELS, start=start, **facts)


def given(
    name: str, fidelity: str, *, test: bool = False, molecule: int = 0
) -> e.Given:
    where = frame(name, molecule)
    return e.Given(where, molecule, fidelity, label(where, LEVELS[fidelity]), test)


class Game:
    """A campaign without cluster and store: whoever plays answers what is pending."""

    def __init__(self, rules: Rules = RULES, reply: Callable = answer) -> None:
        self.rules = rules
        self.reply = reply
        self.state = LoopState()
        self.turns: list[e.Turn] = []

    def turn(self, event: e.Event) -> tuple[Command, ...]:
        """Take the event in; the commands that follow from it."""
        seen = apply_event(self.state, event)
        commands = decide(seen, event, self.rules)
        self.turns.append(e.Turn(event, commands))
        self.state = apply_commands(seen, commands)
        return commands

    def play(
        self,
        until: Callable[["Game"], bool] = lambda _: False,
        choose: Callable[[int], int] = lambda _: 0,
    ) -> "Game":
        """Answer pending commands until the end, or until a condition holds."""
        while self.state.open and not self.state.finished and not until(self):
            pending = [self.state.open[name] for name in sorted(self.state.open)]
            self.turn(self.reply(pending[choose(len(pending))]))
        return self

    def to(self, stage: str, generation: int = 0) -> "Game":
        """Play until the stage begins, at this generation or later."""
        return self.play(
            lambda g: g.state.stage == stage and g.state.generations.count >= generation
        )

    def asked(self, kind: type, **facts: object) -> list:
        """All commands of a kind so far whose fields say so."""
        return [
            command
            for turn in self.turns
            for command in turn.commands
            if isinstance(command, kind)
            and all(getattr(command, key) == value for key, value in facts.items())
        ]


def same(one: object, other: object) -> bool:
    """Equality all the way down, arrays and records included."""
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)
    if isinstance(one, Frame):
        return one == other
    if is_dataclass(one):
        return type(one) is type(other) and all(
            same(getattr(one, x.name), getattr(other, x.name))
            for x in fields(one)
            if x.compare
        )
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or one is other


def history(turns: Sequence[e.Turn]) -> History:
    """The history of these turns, one a second."""
    entries = tuple(
        JournalEntry(seq, 100.0 + seq, turn) for seq, turn in enumerate(turns)
    )
    return History.from_entries(Path("world.zarr"), {}, entries)


def game(
    rules: Rules = RULES, molecules: int = 1, reply: Callable = answer, **facts: object
) -> Game:
    """A game that has just begun."""
    begun = Game(rules, reply)
    begun.turn(opened(molecules, **facts))
    return begun


@pytest.fixture(scope="session")
def world() -> SimpleNamespace:
    return SimpleNamespace(
        Game=Game,
        LEVELS=LEVELS,
        RULES=RULES,
        answer=answer,
        examined=examined,
        candidate=candidate,
        cost=cost,
        explored=explored,
        failed=failed,
        frame=frame,
        game=game,
        given=given,
        history=history,
        label=label,
        opened=opened,
        part_errors=part_errors,
        same=same,
        still=still,
        trained=trained,
    )
