"""A campaign without chemistry: the real policy, answered by springs and a fake clock.

The truth is a molecule of springs; the cheap level's springs are longer; generation g
is wrong by (how far a frame is displaced) / g, and its surprise knows that distance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from alloop.core.frame import Frame
from alloop.core.levels import make_level
from alloop.core.records import (
    Candidate,
    Failure,
    Label,
    Noise,
    Unlabelled,
    Walker,
)
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.history.reader import History, JournalEntry
from alloop.labels.programs import level_cost
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
)
from alloop.loop.policy import decide
from alloop.loop.reducer import apply_commands, apply_event
from alloop.loop.rules import Budget, Examining, ExploreRules, Rules, SeedRules
from alloop.loop.state import LoopState

CHEAP = make_level("pyscf", {"method": "hf", "basis": "sto-3g", "title": "HF/STO-3G"})
EXPENSIVE = make_level(
    "pyscf", {"method": "ccsd(t)", "basis": "cc-pvdz", "title": "CCSD(T)/cc-pVDZ"}
)
LEVELS = {"cheap": CHEAP, "expensive": EXPENSIVE}
PRICES = {"cheap": 0.5, "expensive": 4.0}
NOISES = {"cheap": 1e-8, "expensive": 3e-4}  # eV/Å
BEGAN = 1_790_000_000.0  # s since 1970
FAULT = Failure.NOT_CONVERGED
WATER = Frame(
    np.array([8, 1, 1]),
    np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]]),
)
RULES = Rules(
    budget=Budget(cheap=60, expensive=16),
    seeding=SeedRules(cheap=20, expensive=6, validation=12, per_walker=3),
    exploring=ExploreRules(walkers=4, steps=100, batch=2, piece=100),
    every=5,
    control=0.4,
)


def springs(frame: Frame, stretch: float = 0.0) -> tuple[float, Floats]:
    """Energy (eV) and forces of springs between all atoms of a water-like molecule."""
    forces = np.zeros((len(frame), 3))
    energy = -2000.0 + 40.0 * stretch
    for i in range(len(frame)):
        for j in range(i):
            apart = frame.positions[i] - frame.positions[j]
            length = float(np.linalg.norm(apart))
            rest = (0.97 if min(i, j) == 0 else 1.52) + stretch
            energy += 10.0 * (length - rest) ** 2
            pull = 20.0 * (length - rest) * apart / length
            forces[i] -= pull
            forces[j] += pull
    return energy, forces


def signs(command: LabelFrame) -> dict:
    """What a label says of itself, by the frame's id."""
    number = int(command.frame.id, 16)
    out = {"gap": 5.0 + number % 7, "cycles": 9 + number % 5, "peak_mb": 140.5}
    if number % 5 == 0:
        rescue = {"rung": "damping", "rungs": "default,damping", "lost_seconds": 0.25}
        out |= rescue
    if command.fidelity == "expensive":
        broken = number % 4 == 0
        out |= {
            "external": -0.02 if broken else 0.1,
            "t1": (6 + number % 9) / 1000,
        }
        out["doubts"] = "instability" if broken else ""
    return out


def displaced(frame: Frame, rng: np.random.Generator, sigma: float) -> Frame:
    """The frame with every coordinate moved by a normal random number."""
    moved = frame.positions + sigma * rng.standard_normal((len(frame), 3))
    return Frame(frame.numbers, moved)


@dataclass
class Clock:
    """Workers that take turns; times in seconds since 1970."""

    workers: int = 2
    free: dict[int, float] = field(default_factory=dict)

    def spend(self, seconds: float) -> e.Timing:
        """The next free worker is busy for so long."""
        worker = min(range(self.workers), key=lambda w: (self.free.get(w, BEGAN), w))
        started = self.free.get(worker, BEGAN)
        self.free[worker] = started + seconds
        ended = started + seconds
        return e.Timing(started, ended, 0.9 * seconds, f"node:{100 + worker}")


@dataclass
class Synthetic:
    """Answers commands as a campaign would.

    trouble: labels have their frames' signs, and every fifth one had to be rescued.
    """

    rules: Rules = RULES
    fail: Callable[[LabelFrame], bool] = lambda _command: False
    cached: Mapping[tuple[str, str], Label | Unlabelled] = field(default_factory=dict)
    quality: float = 1.0
    trouble: bool = False
    clock: Clock = field(default_factory=Clock)
    frames: dict[str, Frame] = field(default_factory=dict)
    labels: list[tuple[Frame, Label]] = field(default_factory=list)

    def history(self, opened: e.Opened, turns: int | None = None) -> History:
        """Run until the end, or until so many turns are committed."""
        entries: list[JournalEntry] = []
        for state, turn in self.turns(opened):
            entries.append(JournalEntry(len(entries), self._now(turn.event), turn))
            if len(entries) == turns or state.finished:
                break
        return history_of(entries, self.rules)

    def turns(self, opened: e.Opened):
        """State and turn after each commit, for ever."""
        state, event = LoopState(), opened
        while True:
            seen = apply_event(state, event)
            commands = decide(seen, event, self.rules)
            for command in commands:
                if isinstance(command, LabelFrame):
                    self.frames[command.frame.id] = command.frame
            state = apply_commands(seen, commands)
            yield state, e.Turn(event, commands)
            if state.finished or not state.open:
                return
            event = self.answer(next(iter(state.open.values())))

    def answer(self, command: Command) -> e.Answer:
        """What comes of a command."""
        match command:
            case LabelFrame():
                return self._label(command)
            case Prepare():
                return self._prepare(command)
            case Sample():
                rng = random_stream(1, command.name)
                frames = tuple(
                    displaced(command.walker.frame, rng, 0.04)
                    for _ in range(command.frames)
                )
                spent = self.clock.spend(3.0)
                return e.Sampled(command.name, command.walker.molecule, frames, spent)
            case Explore() | Examine():
                return self._move(command)
            case Train():
                return self._train(command)
            case Recheck():
                return self._recheck(command)
            case Price():
                return self._price(command)
        raise TypeError(command)

    def _label(self, command: LabelFrame) -> e.Labelled | e.NotLabelled:
        known = self.cached.get((command.level, command.frame.id))
        if isinstance(known, Label):
            return e.Labelled(command.name, known, cached=True)
        seconds = PRICES[command.fidelity]
        timing = self.clock.spend(seconds)
        if self.fail(command):
            why = "after 4 rungs"
            bad = Unlabelled(
                command.frame.id, command.level, FAULT, why, seconds, {"rung": "none"}
            )
            return e.NotLabelled(command.name, bad, timing)
        stretch = 0.04 if command.fidelity == "cheap" else 0.0
        energy, forces = springs(command.frame, stretch)
        details = {"rung": "default", "gap": 0.42, "program": "pyscf 2.14"}
        if self.trouble:
            details |= signs(command)
        label = Label(command.frame.id, command.level, energy, forces, seconds, details)
        self.labels.append((command.frame, label))
        return e.Labelled(command.name, label, timing)

    def _recheck(self, command: Recheck) -> e.Rechecked:
        seconds, rms = 2 * PRICES[command.fidelity], NOISES[command.fidelity]
        rms *= 1 + int(command.frame, 16) % 3
        noise = Noise(command.frame, command.level, rms / 2, rms, 3 * rms, seconds)
        return e.Rechecked(command.name, noise, self.clock.spend(seconds))

    def _price(self, command: Price) -> e.Priced:
        costs = {
            each.id: level_cost(each, [x for x in self.labels if x[1].level == each.id])
            for each in LEVELS.values()
        }
        return e.Priced(command.name, costs)

    def _prepare(self, command: Prepare) -> e.Prepared:
        rng = random_stream(1, command.name)
        walkers = tuple(
            Walker(1000 + i, command.molecule, command.frame, np.zeros((3, 3)))
            for i in range(command.walkers)
        )
        return e.Prepared(
            name=command.name,
            molecule=command.molecule,
            minimum=command.frame,
            seeds=tuple(
                displaced(command.frame, rng, 0.03) for _ in range(command.seeds)
            ),
            starts=walkers,
            timing=self.clock.spend(6.0),
        )

    def predict(self, frame: Frame, generation: int) -> tuple[float, Floats, float]:
        """Energy, forces and surprise of a frame by a generation."""
        away = float(np.abs(springs(frame)[0] + 2000.0))
        rng = random_stream(generation, frame.id)
        noise = rng.standard_normal((len(frame), 3))
        energy, forces = springs(frame)
        error = self.quality * (0.02 + 0.3 * away) / generation
        return energy + 0.5 + error * noise[0, 0], forces + error * noise, 10 * away

    def _move(self, command: Explore | Examine) -> e.Answer:
        if isinstance(command, Explore):
            return self._explore(command)
        going = command.walkers
        if command.steps:
            going = tuple(self._examined(command, walker) for walker in going)
        found = [self._paper(x, command.generation) for x in going if not x.stopped]
        spent = self.clock.spend(2.0)
        place = (command.number, command.batch, command.piece)
        return e.Examined(*place, going, tuple(found), spent)

    def _examined(self, command: Examine, walker: Walker) -> Walker:
        """The first walker is stopped in the second piece."""
        rng = random_stream(command.number, f"{command.name}/{walker.index}")
        stopped = "force" if walker.index == 0 and command.piece else None
        frame = displaced(WATER, rng, 0.05)
        step = walker.step + command.steps
        return replace(walker, frame=frame, step=step, stopped=stopped)

    def _paper(self, walker: Walker, generation: int) -> Candidate:
        energy, forces, surprise = self.predict(walker.frame, generation)
        return Candidate(
            frame=walker.frame,
            molecule=0,
            walker=walker.index,
            step=walker.step,
            surprise=surprise,
            energy=energy,
            forces=forces,
            descriptor=walker.frame.positions.ravel().copy(),
            origin="examination",
        )

    def _explore(self, command: Explore) -> e.Explored:
        found: list[Candidate] = []
        walkers = []
        for walker in command.walkers:
            rng = random_stream(command.round, f"walk/{walker.index}")
            frames = [displaced(WATER, rng, 0.03 * (1 + i % 3)) for i in range(10)]
            for step, frame in enumerate(frames):
                energy, forces, surprise = self.predict(frame, command.generation)
                found.append(
                    Candidate(
                        frame=frame,
                        molecule=0,
                        walker=walker.index,
                        step=walker.step + 10 * step,
                        surprise=surprise,
                        energy=energy,
                        forces=forces,
                        descriptor=frame.positions.ravel().copy(),
                    )
                )
            stopped = "force" if walker.index == 1 else None
            step = walker.step + command.steps
            walkers.append(
                Walker(walker.index, 0, frames[-1], walker.velocities, step, stopped)
            )
        best = sorted(found, key=lambda x: -x.surprise)
        controls = tuple(
            Candidate(**{**_fields(x), "origin": "control"})
            for x in found[:: max(1, len(found) // max(1, command.controls))]
        )
        return e.Explored(
            round=command.round,
            batch=command.batch,
            piece=command.piece,
            walkers=tuple(walkers),
            candidates=tuple(best[: command.keep]),
            controls=controls[: command.controls],
            scored=len(found),
            timing=self.clock.spend(5.0),
        )

    def _train(self, command: Train) -> e.Trained:
        for worker in range(self.clock.workers):  # everything waits for training
            self.clock.free[worker] = max(self.clock.free.values(), default=BEGAN)
        return e.Trained(
            name=command.name,
            generation=command.generation,
            model=f"{command.generation:032x}",
            threshold=1.5 if command.cheap else None,
            evaluation=self._evaluate(command),
            landmarks=np.zeros((0, 9)),
            history={"bias": [0.1 + 0.01 * i for i in range(len(command.cheap))]},
            timing=self.clock.spend(8.0),
        )

    def _evaluate(self, command: Train) -> e.Evaluation | None:
        if not command.test:
            return None
        frames = [self.frames[key] for key in command.test]
        said = [self.predict(frame, command.generation) for frame in frames]
        forces = np.concatenate([x[1] for x in said])
        energies = np.array([x[0] for x in said])
        truth = [springs(frame) for frame in frames]
        errors = forces - np.concatenate([x[1] for x in truth])
        offset = energies - np.array([x[0] for x in truth])
        return e.Evaluation(
            frames=command.test,
            energies=energies,
            forces=forces,
            surprise=np.array([x[2] for x in said]),
            energy_mae=float(np.abs(offset - offset.mean()).mean()),
            force_mae=float(np.abs(errors).mean()),
            force_rmse=float(np.sqrt((errors**2).mean())),
            energy_absolute=float(np.abs(offset).mean()),
        )

    def _now(self, event: e.Event) -> float:
        ended = getattr(getattr(event, "timing", None), "ended", 0.0)
        return ended or max(self.clock.free.values(), default=BEGAN)


def _fields(candidate: Candidate) -> dict:
    return {name: getattr(candidate, name) for name in Candidate.__slots__}


def config_of(rules: Rules) -> str:
    return (
        "name: springs\nseed: 7\n"
        "validation: {frames: 12, temperature: 500.0}\n"
        "explore: {kind: langevin, temperature: 450.0, timestep: 0.5}\n"
        f"training: {{kind: asteroid, every: {rules.every}}}\n"
        "flag: {heldout: 0.15, quantile: 0.99}\n"
        f"budget: {{cheap: {rules.budget.cheap}, "
        f"expensive: {rules.budget.expensive}}}\n"
        "cluster: {kind: local, workers: 2}\n"
    )


def history_of(entries: list[JournalEntry], rules: Rules = RULES) -> History:
    """A history of these entries, as if read from a store."""
    attrs = {
        "name": "springs",
        "seed": 7,
        "config": config_of(rules),
        "alloop_version": "0.1.0",
        "levels": {
            key: {
                "id": each.id,
                "title": each.title,
                "kind": each.kind,
                "settings": each.settings,
            }
            for key, each in LEVELS.items()
        },
    }
    return History.from_entries(Path("runs/springs.zarr"), attrs, tuple(entries))


def opening() -> e.Opened:
    """Water, two levels, nothing supplied."""
    levels = {key: each.id for key, each in LEVELS.items()}
    return e.Opened(7, levels, (WATER,))


def every_eighth(command: LabelFrame) -> bool:
    return command.purpose == "flagged" and int(command.frame.id, 16) % 8 == 0


@pytest.fixture(scope="session")
def synthetic() -> type[Synthetic]:
    return Synthetic


@pytest.fixture(scope="session")
def opened() -> e.Opened:
    return opening()


@pytest.fixture(scope="session")
def rules() -> Rules:
    return RULES


@pytest.fixture(scope="session")
def remade() -> Callable[..., History]:
    return history_of


@pytest.fixture(scope="session")
def finished() -> History:
    """A whole campaign: two rounds after the first labels, some labels failed."""
    return Synthetic(fail=every_eighth).history(opening())


@pytest.fixture(scope="session")
def examined() -> History:
    """The same, with an examination of 11 frames; a walker was stopped in it."""
    rules = replace(RULES, examining=Examining(12, 200, (450.0,)), heldout=0.7)
    return Synthetic(rules=rules, fail=every_eighth).history(opening())


@pytest.fixture(scope="session")
def troubled() -> History:
    """A campaign some of whose labels were lost, rescued or doubtful; of each level a
    tenth, three at least, was made again."""
    rules = replace(RULES, recheck={"cheap": 0.1, "expensive": 0.1})
    return Synthetic(rules=rules, fail=every_eighth, trouble=True).history(opening())


@pytest.fixture(scope="session")
def control(finished: History) -> History:
    """The same, but worse: a control whose models err twice as much."""
    shared = Synthetic(quality=2.0, cached=finished.label_index.labels)
    return shared.history(opening())
