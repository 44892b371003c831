"""Where the stages of one training run: pools made once, a network handed along."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from alloop.core.records import LabelSet
from alloop.core.seeds import torch_seed
from alloop.models.network import Network, build
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.repulsion import Zbl
from alloop.training.engine import cpu_seconds
from alloop.training.fit import Aids, Course, Progress, fit_with, force_error
from alloop.training.lessons import Desk, Known, Weighing
from alloop.training.losses import Objective
from alloop.training.pool import Pool, make_pool
from alloop.training.references import References, shifted
from alloop.training.resume import Keeper
from alloop.training.score import Scored, thermal_energy
from alloop.training.stages import Fidelity, Stage, served
from alloop.training.weights import Gamma


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """A stage that ran: its course, its CPU seconds, its weights if it had any."""

    stage: Stage
    course: Course
    cpu_seconds: float
    weighing: Weighing | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """How far a training has come: the network, those that later stages ask, and the
    stages behind it."""

    network: Network
    known: Known = field(default_factory=Known)
    done: tuple[Done, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What all stages of one training share.

    labels (less the repulsion) and references by level; held_out are expensive ones.
    scale is the network's unit in eV. parent is the network to start from where a stage
    says so. keeper keeps states of trainings, to go on after a kill. stages are those
    of the whole training, from which a stage learns whether compiling pays.
    """

    kind: str
    settings: Mapping[str, Any]
    labels: Mapping[Fidelity, LabelSet]
    references: Mapping[Fidelity, References]
    held_out: LabelSet | None
    scale: float
    parent: Network | None
    least: float
    seed: int
    progress: Progress | None = None
    keeper: Keeper | None = None
    stages: tuple[Stage, ...] = ()
    repulsion: Zbl | None = None

    def walk(self, path: Path, stages: Sequence[Stage], gamma: Gamma) -> Path:
        """The path after these stages."""
        for stage in stages:
            path = self._step(path, stage, gamma)
        return path

    def fresh(self, name: str) -> Network:
        """An untrained network; the name is its random stream."""
        return build(
            self.kind, self.settings, seed=torch_seed(self.seed, f"{name}/network")
        )

    def error(self, path: Path) -> float:
        """Mean absolute force error on the held-out frames in eV/Å; 0 without any."""
        pool = self._validation(path.network)
        return 0.0 if pool is None else force_error(path.network, pool)

    def potential(self, path: Path) -> LearnedPotential:
        """The network with the references of the level it saw last.

        An element that only the other level knows keeps that level's reference: its
        molecules' energies are then off by a constant, their forces are not.
        """
        last = path.done[-1].stage.levels[-1]
        other: Fidelity = "cheap" if last == "expensive" else "expensive"
        known = {**self.references[other], **self.references[last]}
        return LearnedPotential(
            path.network, known, self.scale, repulsion=self.repulsion
        )

    def _step(self, path: Path, stage: Stage, gamma: Gamma) -> Path:
        began = cpu_seconds()
        lesson = self._desk(gamma).lesson(stage, path.known)
        start = self._start(path, stage)
        pool = self._pool(lesson.labels, start).weighed(lesson.weights)
        before = cpu_seconds() - began
        network, course = fit_with(
            start, pool, stage, self.seed, self._aids(stage, start)
        )
        done = Done(stage, course, before + course.cpu_seconds, lesson.weighing)
        known = _learned(path.known, stage, network)
        aside = stage.labels == "difference"
        return Path(path.network if aside else network, known, (*path.done, done))

    def _aids(self, stage: Stage, start: Network) -> Aids:
        aside = stage.labels == "difference"
        objective: Objective | None = None
        if stage.loss == "score":
            kT = thermal_energy(stage.temperature) / self.scale
            objective = Scored(kT, stage.noise)
        return Aids(
            validation=None if aside else self._validation(start),
            progress=self.progress,
            objective=objective,
            keeper=self.keeper,
            ahead=served(stage, self.stages),
        )

    def _start(self, path: Path, stage: Stage) -> Network:
        if stage.start == "previous":
            return path.network
        if stage.start == "parent" and self.parent is not None:
            return self.parent
        return self.fresh(stage.name)

    def _desk(self, gamma: Gamma) -> Desk:
        rest = {
            level: shifted(labels, self.references[level])
            for level, labels in self.labels.items()
        }
        return Desk(rest, self.scale, gamma, self.least)

    def _validation(self, network: Network) -> Pool | None:
        if self.held_out is None:
            return None
        rest = shifted(self.held_out, self.references["expensive"])
        return self._pool(rest, network)

    def _pool(self, labels: LabelSet, network: Network) -> Pool:
        dtype = next(network.parameters()).dtype
        return make_pool(labels, self.scale, network.cutoff, dtype)


def _learned(known: Known, stage: Stage, network: Network) -> Known:
    """What is known after a stage has made a network."""
    if stage.labels == "difference":
        return replace(known, change=network)
    if stage.on == "cheap" and stage.labels != "corrected":
        return replace(known, pupil=network)
    return known if stage.on == "cheap" else replace(known, teacher=network)
