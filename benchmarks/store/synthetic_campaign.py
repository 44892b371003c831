"""A synthetic campaign of any length, made record by record, with equal seeds equal.

Shaped like a real one: most records are labels, one in ten is an exploration with a
hundred candidates, one in a thousand a training, unless told otherwise. Nine candidates
of each exploration get a label: eight a cheap one, the first an expensive one too. A
training names all labels that it learns from and tells the bias of each cheap one, as
real ones do; in that alone the journal grows as labels times generations.
"""

from collections.abc import Iterator

import numpy as np

from alloop.core.frame import Frame, FrameId
from alloop.core.levels import Fidelity, Level, make_level
from alloop.core.records import Candidate, Detail, Failure, Label, Unlabelled, Walker
from alloop.core.seeds import Purpose
from alloop.loop import events as e
from alloop.loop.commands import Command, Explore, LabelFrame, Train

NUMBERS = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
CANDIDATES = 100  # in an exploration: ten frames a record
TRAIN = 1000  # one of so many records
EXPLORE, FAIL = 10, 501  # likewise
TEST = 40  # records before this one are labels of the test set
LEVELS: dict[Fidelity, Level] = {
    "cheap": make_level("toy", {"stiffness": 0.9, "title": "toy 0.9"}),
    "expensive": make_level("toy", {"stiffness": 1.0, "title": "toy 1"}),
}
CONFIG = """
name: scale
training: {every: 100}
budget: {cheap: 1000000, expensive: 100000}
"""
_BEGAN = 1_790_000_000.0
_DESCRIPTOR = np.zeros(64)
_DETAILS: dict[str, Detail] = {
    "program": "pyscf 2.14",
    "rung": "default",
    "cycles": 9,
    "gap": 12.5,
}


class SyntheticCampaign:
    """A campaign that goes on for as many turns as are asked for."""

    def __init__(self, candidates: int = CANDIDATES, train: int = TRAIN) -> None:
        self._candidates, self._train = candidates, train
        self._seq = 0
        self._ids: dict[str, list[FrameId]] = {"test": [], "cheap": [], "expensive": []}
        self._found: tuple[Candidate, ...] = ()
        self._fresh = 0  # candidates that have no label yet begin here
        self._asked: Command = self._ask(1)

    def turns(self, count: int) -> Iterator[e.Turn]:
        """Yield the next turns.

        Each answers the request of the turn before and makes the next request.
        """
        for _ in range(count):
            event = self._answer(self._asked) if self._seq else _open_campaign()
            self._seq += 1
            if self._seq > 1:
                self._asked = self._ask(self._seq)
            yield e.Turn(event, (self._asked,))

    def _ask(self, seq: int) -> Command:
        """Return the request that record `seq` answers."""
        rng = np.random.default_rng((0, seq))
        if seq % self._train == self._train - 1:
            cheap, expensive, test = (
                tuple(sorted(self._ids[x])) for x in ("cheap", "expensive", "test")
            )
            return Train(1 + seq // self._train, cheap, expensive, test)
        if seq % EXPLORE == EXPLORE - 1:
            where, rest = _frame(rng), np.zeros((len(NUMBERS), 3))
            crew = tuple(Walker(i, 0, where, rest, seq) for i in range(8))
            number, model = seq // self._train, "0" * 32
            return Explore(
                round=seq,
                piece=0,
                batch=0,
                generation=number,
                model=model,
                walkers=crew,
                steps=100,
                keep=self._candidates,
                controls=1,
            )
        return self._label(seq, rng)

    def _label(self, seq: int, rng: np.random.Generator) -> LabelFrame:
        kind: Fidelity = "expensive"
        purpose: Purpose = "test"
        if seq < TEST or not self._found:
            frame = _frame(rng)
            self._ids["test"].append(frame.id)
        elif seq % EXPLORE == EXPLORE - 2:
            purpose, frame = "bias", self._found[self._fresh].frame
            self._ids["expensive"].append(frame.id)
            self._fresh += EXPLORE
        else:
            kind, purpose = "cheap", "flagged"
            frame = self._found[self._fresh + seq % EXPLORE].frame
            self._ids["cheap"].append(frame.id)
        why = f"surprise {12 + rng.random():.4f} above 4.5"
        level = LEVELS[kind].id
        return LabelFrame(frame, level, kind, purpose, molecule=0, reason=why)

    def _answer(self, request: Command) -> e.Event:
        rng, seq = np.random.default_rng((1, self._seq)), self._seq
        timing = _timing(seq)
        match request:
            case Train():
                return _trained(request, rng, timing)
            case Explore(round=number, batch=batch, piece=piece, walkers=walkers):
                self._found = tuple(
                    _candidate(rng, seq) for _ in range(self._candidates)
                )
                self._fresh = 0
                return e.Explored(
                    number,
                    batch,
                    piece,
                    walkers=walkers,
                    candidates=self._found[:-1],
                    controls=self._found[-1:],
                    scored=1000,
                    timing=timing,
                )
            case LabelFrame(name=name) if seq % FAIL == 0:
                lost = Unlabelled(request.frame.id, request.level, Failure.TIMEOUT)
                return e.NotLabelled(name, lost, timing)
            case LabelFrame(name=name, level=key, frame=frame):
                forces = rng.normal(size=(len(NUMBERS), 3))
                label = Label(
                    frame.id,
                    key,
                    energy=-4000.0,
                    forces=forces,
                    cpu_seconds=1.0,
                    details=dict(_DETAILS),
                )
                return e.Labelled(name, label, timing)
        raise AssertionError(request)


def _open_campaign() -> e.Opened:
    levels = {fidelity: level.id for fidelity, level in LEVELS.items()}
    return e.Opened(7, levels, (_frame(np.random.default_rng(0)),))


def _frame(rng: np.random.Generator) -> Frame:
    return Frame(NUMBERS, rng.normal(size=(len(NUMBERS), 3)))


def _timing(seq: int) -> e.Timing:
    began = _BEGAN + 0.25 * seq
    return e.Timing(began, began + 1.0, 1.0, f"worker {seq % 4}")


def _candidate(rng: np.random.Generator, seq: int) -> Candidate:
    forces = rng.normal(size=(len(NUMBERS), 3))
    surprise = float(rng.lognormal())
    return Candidate(
        frame=_frame(rng),
        molecule=0,
        walker=3,
        step=seq,
        surprise=surprise,
        energy=-4000.0,
        forces=forces,
        descriptor=_DESCRIPTOR,
    )


def _trained(request: Train, rng: np.random.Generator, timing: e.Timing) -> e.Trained:
    number, test = request.generation, request.test
    shape = (len(test) * len(NUMBERS), 3)
    evaluation = e.Evaluation(
        frames=test,
        energies=rng.normal(size=len(test)),
        forces=rng.normal(size=shape),
        surprise=rng.lognormal(size=len(test)),
        energy_mae=0.01,
        force_mae=0.1,
        force_rmse=0.13,
    )
    landmarks = rng.normal(size=(200, len(_DESCRIPTOR)))
    course: dict[str, Detail | list[Detail]] = {
        "bias": rng.lognormal(size=len(request.cheap)).tolist()
    }
    facts = (number, f"{number:032x}", 4.5, evaluation, landmarks, course, timing)
    return e.Trained(request.name, *facts)
