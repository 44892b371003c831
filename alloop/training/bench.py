"""Where the stages of one training run: pools made once, a network handed along."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alloop.core.records import LabelSet
from alloop.core.seeds import torch_seed
from alloop.core.units import Floats
from alloop.models.network import Network, build
from alloop.potentials.learned import LearnedPotential
from alloop.training.fit import Course, Progress, fit, force_error
from alloop.training.pool import Pool, make_pool
from alloop.training.references import References, shifted
from alloop.training.stages import Fidelity, Stage
from alloop.training.weights import Gamma, effective_size, frame_bias, guarded_weights


@dataclass(frozen=True, slots=True, eq=False)
class Weighing:
    """Bias (cheap frames,) in eV/Å, the γ in eV/Å used, effective share of frames."""

    bias: Floats
    gamma: float
    effective: float


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """A stage that ran: its course, its CPU seconds, its weights if it had any."""

    stage: Stage
    course: Course
    cpu_seconds: float
    weighing: Weighing | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """How far a training has come: the network, the last one that saw expensive
    labels (the teacher, who judges cheap ones), and the stages behind it."""

    network: Network
    teacher: Network | None = None
    done: tuple[Done, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What all stages of one training share.

    labels and references by level; held_out are expensive ones. scale is the network's
    unit in eV. parent is the network to start from where a stage says so.
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
        last = path.done[-1].stage.on
        other: Fidelity = "cheap" if last == "expensive" else "expensive"
        known = {**self.references[other], **self.references[last]}
        return LearnedPotential(path.network, known, self.scale)

    def _step(self, path: Path, stage: Stage, gamma: Gamma) -> Path:
        began = time.process_time()
        start = self._start(path, stage)
        pool = self._pool(stage.on, self.labels[stage.on], start)
        weighing = None
        if stage.weights == "bias" and path.teacher is not None:
            weights, weighing = self._weigh(path.teacher, gamma)
            pool = pool.weighed(weights)
        held_out = self._validation(start)
        network, course = fit(start, pool, stage, self.seed, held_out, self.progress)
        done = Done(stage, course, time.process_time() - began, weighing)
        teacher = network if stage.on == "expensive" else path.teacher
        return Path(network, teacher, (*path.done, done))

    def _start(self, path: Path, stage: Stage) -> Network:
        if stage.start == "previous":
            return path.network
        if stage.start == "parent" and self.parent is not None:
            return self.parent
        return self.fresh(stage.name)

    def _weigh(self, teacher: Network, gamma: Gamma) -> tuple[Floats, Weighing]:
        cheap = self.labels["cheap"]
        judge = LearnedPotential(teacher, self.references["cheap"], self.scale)
        forces = judge.predict(cheap.batch).forces
        bias = frame_bias(forces, cheap.forces, cheap.batch.offsets)
        weights, value = guarded_weights(bias, gamma, self.least)
        share = effective_size(weights) / len(weights)
        return weights, Weighing(bias, value, share)

    def _validation(self, network: Network) -> Pool | None:
        if self.held_out is None:
            return None
        return self._pool("expensive", self.held_out, network)

    def _pool(self, level: Fidelity, labels: LabelSet, network: Network) -> Pool:
        dtype = next(network.parameters()).dtype
        rest = shifted(labels, self.references[level])
        return make_pool(rest, self.scale, network.cutoff, dtype)
