"""The runner of the stages of one training, the labels of each, and their history.

Label sets of a stage are less their level's references, changed and weighted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from alloop.core.prediction_errors import best_scale, frame_bias, scaled_bias
from alloop.core.records import LabelSet, Predictions
from alloop.core.seeds import torch_seed
from alloop.core.units import Floats
from alloop.models.network import Network, build_network
from alloop.potentials.learned import LearnedPotential
from alloop.potentials.repulsion import Zbl
from alloop.training.adapters import with_adapters, without_adapters
from alloop.training.bias_weights import (
    Gamma,
    effective_size,
    guarded_weights,
)
from alloop.training.fit import LossCurve, Progress, cpu_seconds, fit_stage
from alloop.training.graph_pool import GraphPool, make_graph_pool
from alloop.training.label_changes import (
    References,
    add_predictions,
    mixed_labels,
    scaled_labels,
    without_references,
)
from alloop.training.losses import Objective, ScoreLoss, thermal_energy
from alloop.training.replay import ReplayedLabels, replayed_rows, with_replay
from alloop.training.replay_head import (
    ReplayHead,
    campaign_network,
    replayed_network,
)
from alloop.training.stage_state import StageTask, label_error
from alloop.training.stages import Adapters, Fidelity, Stage, program_steps
from alloop.training.state_folder import StateKeeper


@dataclass(frozen=True, slots=True, eq=False)
class BiasWeighing:
    """The weighting of cheap frames by their bias.

    bias (cheap frames,) in eV/Å, gamma the γ in eV/Å used, effective the effective
    share of the frames.
    """

    bias: Floats
    gamma: float
    effective: float


@dataclass(frozen=True, slots=True, eq=False)
class TrainedNetworks:
    """The latest networks of each role that a training has made so far.

    teacher: the last one trained on expensive labels, against which cheap ones are
    compared. pupil: the last one trained on cheap labels alone. change: the network
    that a stage on differences has trained.
    """

    teacher: Network | None = None
    pupil: Network | None = None
    change: Network | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StageLabels:
    """The labels that a stage is trained on, and their weights (frames,) of mean 1."""

    labels: LabelSet
    weights: Floats
    weighing: BiasWeighing | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StageData:
    """The data from which the labels of stages are made.

    labels by level, scale the networks' unit in eV, γ, and the least share of cheap
    frames that must stay effective.
    """

    labels: Mapping[Fidelity, LabelSet]
    scale: float
    gamma: Gamma
    least: float

    def stage_labels(self, stage: Stage, networks: TrainedNetworks) -> StageLabels:
        """Return the labels of a stage, given the networks trained before it."""
        expensive = self.labels["expensive"]
        if stage.labels == "difference" and networks.pupil is not None:
            expensive = add_predictions(
                expensive, self.network_predictions(networks.pupil, expensive), -1.0
            )
        if stage.on == "expensive":
            return StageLabels(expensive, np.ones(len(expensive)))
        cheap = self._cheap(stage, networks)
        weights, weighing = self._weights(stage, networks, cheap)
        if stage.on == "both":
            both, weights = mixed_labels(cheap, expensive, stage.mix, weights)
            return StageLabels(both, weights, weighing)
        return StageLabels(cheap, weights, weighing)

    def network_predictions(self, network: Network, labels: LabelSet) -> Predictions:
        """Return a network's predictions for labelled frames, without references."""
        nothing = dict.fromkeys(labels.batch.numbers.tolist(), 0.0)
        return LearnedPotential(network, nothing, self.scale).predict(labels.batch)

    def _cheap(self, stage: Stage, networks: TrainedNetworks) -> LabelSet:
        cheap = self.labels["cheap"]
        if stage.labels == "scaled" and networks.teacher is not None:
            forces = self.network_predictions(networks.teacher, cheap).forces
            return scaled_labels(cheap, best_scale(forces, cheap.forces))
        if stage.labels == "corrected" and networks.change is not None:
            return add_predictions(
                cheap, self.network_predictions(networks.change, cheap)
            )
        if stage.labels == "corrected" and networks.teacher and networks.pupil:
            without = add_predictions(
                cheap, self.network_predictions(networks.pupil, cheap), -1.0
            )
            return add_predictions(
                without, self.network_predictions(networks.teacher, cheap)
            )
        return cheap

    def _weights(
        self, stage: Stage, networks: TrainedNetworks, cheap: LabelSet
    ) -> tuple[Floats, BiasWeighing | None]:
        if stage.weights == "uniform" or networks.teacher is None:
            return np.ones(len(cheap)), None
        forces = self.network_predictions(networks.teacher, cheap).forces
        measure = scaled_bias if stage.weights == "scaled" else frame_bias
        bias = measure(forces, cheap.forces, cheap.batch.offsets)
        weights, value = guarded_weights(bias, self.gamma, self.least)
        share = effective_size(weights) / len(weights)
        return weights, BiasWeighing(bias, value, share)


@dataclass(frozen=True, slots=True, eq=False)
class FinishedStage:
    """A stage that ran: its loss curve, CPU seconds and, if it had any, weighting."""

    stage: Stage
    curve: LossCurve
    cpu_seconds: float
    weighing: BiasWeighing | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TrainingState:
    """The state of a training between stages.

    network: the present one. known: the networks that later stages use. done: the
    stages that have run.
    """

    network: Network
    known: TrainedNetworks = field(default_factory=TrainedNetworks)
    done: tuple[FinishedStage, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class StageRunner:
    """The runner of the stages of one training, and what they share.

    labels (less the repulsion) and references by level; held_out are expensive ones.
    scale is the network's unit in eV. parent is the network that a stage with start
    "parent" begins with. keeper stores states of trainings, to resume after a kill.
    stages are those of the whole training, which decide if compiling saves time.
    replayed: labels that stages on labels learn too, with readouts of their own where
    `own_head`. adapters: those that are trained instead of matrices. device: torch's
    name of the one that networks are trained on.
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
    keeper: StateKeeper | None = None
    stages: tuple[Stage, ...] = ()
    repulsion: Zbl | None = None
    replayed: ReplayedLabels | None = None
    own_head: bool = False
    adapters: Adapters | None = None
    device: str = "cpu"

    def run_stages(
        self, state: TrainingState, stages: Sequence[Stage], gamma: Gamma
    ) -> TrainingState:
        """Run these stages and return the state of the training after them."""
        for stage in stages:
            state = self._run_stage(state, stage, gamma)
        return state

    def new_network(self, name: str) -> Network:
        """Return an untrained network; the name selects its random stream."""
        seed = torch_seed(self.seed, f"{name}/network")
        return build_network(self.kind, self.settings, seed=seed).to(self.device)

    def first_network(self, stage: Stage) -> Network:
        """Return the network that the first stage begins with."""
        if stage.start == "parent" and self.parent is not None:
            network = self.parent.to(self.device)
        else:
            network = self.new_network(stage.name)
        if self.adapters is not None:
            network = with_adapters(network, self.adapters, self.seed)
        if self.own_head and self.replayed is not None:
            network = ReplayHead(network)
        return network

    def validation_error(self, state: TrainingState) -> float:
        """Return the mean absolute force error on the held-out frames in eV/Å.

        It is an error of energies where they have no forces (see `label_error`), and 0
        where no frames are held out.
        """
        pool = self._validation_pool(state.network)
        return 0.0 if pool is None else label_error(state.network, pool)

    def final_potential(self, state: TrainingState) -> LearnedPotential:
        """Return the network with the references of the last stage's level.

        An element that only the other level has keeps that level's reference: its
        molecules' energies are then off by a constant, their forces are not.
        """
        last = state.done[-1].stage.levels[-1]
        other: Fidelity = "cheap" if last == "expensive" else "expensive"
        old = {} if self.replayed is None else self.replayed.references
        references = {**old, **self.references[other], **self.references[last]}
        network = without_adapters(campaign_network(state.network))
        return LearnedPotential(
            network, references, self.scale, repulsion=self.repulsion
        )

    def replay_error(self, state: TrainingState) -> float | None:
        """Return the mean absolute force error on replayed labels in eV/Å, or None.

        It is that of the readouts which replayed frames have.
        """
        if self.replayed is None:
            return None
        network = replayed_network(state.network)
        pool = self._label_pool(self.replayed.labels, network)
        return label_error(network, pool)

    def _run_stage(
        self, state: TrainingState, stage: Stage, gamma: Gamma
    ) -> TrainingState:
        began = cpu_seconds()
        chosen = self._stage_data(gamma).stage_labels(stage, state.known)
        start = self._starting_network(state, stage)
        pool = self._stage_pool(stage, chosen, start)
        before = cpu_seconds() - began
        task = self._stage_task(stage, start, pool)
        network, curve = fit_stage(task, self.keeper, self.progress)
        seconds = before + curve.cpu_seconds
        done = FinishedStage(stage, curve, seconds, chosen.weighing)
        return TrainingState(
            network=state.network if stage.labels == "difference" else network,
            known=_with_network(state.known, stage, network),
            done=(*state.done, done),
        )

    def _stage_pool(self, stage: Stage, new: StageLabels, start: Network) -> GraphPool:
        old = self.replayed
        if old is None or stage.loss == "score" or stage.labels == "difference":
            return self._label_pool(new.labels, start).with_weights(new.weights)
        labels, weights = with_replay(new.labels, new.weights, old.labels, old.share)
        pool = self._label_pool(labels, start).with_weights(weights)
        if not self.own_head:
            return pool
        rows = replayed_rows(new.labels, old.labels, old.share)
        return pool.with_replayed(len(labels) - rows)

    def _stage_task(self, stage: Stage, start: Network, pool: GraphPool) -> StageTask:
        objective: Objective | None = None
        if stage.loss == "score":
            kT = thermal_energy(stage.temperature) / self.scale
            objective = ScoreLoss(kT, stage.noise)
        aside = stage.labels == "difference"
        return StageTask(
            network=start,
            pool=pool,
            stage=stage,
            seed=self.seed,
            validation=None if aside else self._validation_pool(start),
            objective=objective,
            ahead=program_steps(stage, self.stages),
        )

    def _starting_network(self, state: TrainingState, stage: Stage) -> Network:
        if stage.start == "previous":
            return state.network
        return self.first_network(stage)

    def _stage_data(self, gamma: Gamma) -> StageData:
        rest = {
            level: without_references(labels, self.references[level])
            for level, labels in self.labels.items()
        }
        return StageData(rest, self.scale, gamma, self.least)

    def _validation_pool(self, network: Network) -> GraphPool | None:
        if self.held_out is None:
            return None
        rest = without_references(self.held_out, self.references["expensive"])
        return self._label_pool(rest, network)

    def _label_pool(self, labels: LabelSet, network: Network) -> GraphPool:
        weights = next(network.parameters())
        kind = (weights.dtype, weights.device)
        return make_graph_pool(labels, self.scale, network.cutoff, *kind)


def _with_network(
    networks: TrainedNetworks, stage: Stage, network: Network
) -> TrainedNetworks:
    """Return the known networks after a stage has trained one."""
    if stage.labels == "difference":
        return replace(networks, change=network)
    if stage.on == "cheap" and stage.labels != "corrected":
        return replace(networks, pupil=network)
    return networks if stage.on == "cheap" else replace(networks, teacher=network)


def training_history(state: TrainingState, scale: float) -> dict[str, Any]:
    """Return the history of a training as flat JSON.

    Lists by stage: stages, steps, loss, validation (eV/Å or None), engine (how steps
    were computed), cpu_seconds. Where frames were weighted: bias (eV/Å, by cheap
    frame), gamma (eV/Å) and effective (share of the cheap frames). Curves:
    curve/STAGE/{step,loss,validation}. scale is in eV/Å.
    """
    out: dict[str, Any] = {
        "stages": [done.stage.name for done in state.done],
        "steps": [done.curve.steps[-1] for done in state.done],
        "loss": [done.curve.losses[-1] for done in state.done],
        "validation": [_last_error(done.curve.validation) for done in state.done],
        "engine": [done.curve.engine for done in state.done],
        "cpu_seconds": [done.cpu_seconds for done in state.done],
        "scale": scale,
    }
    for done in state.done:
        out |= _weighing_facts(done) | _loss_curve(done)
    return out


def _weighing_facts(done: FinishedStage) -> dict[str, Any]:
    if done.weighing is None:
        return {}
    return {
        "bias": done.weighing.bias.tolist(),
        "gamma": done.weighing.gamma,
        "effective": done.weighing.effective,
    }


def _loss_curve(done: FinishedStage) -> dict[str, Any]:
    name = f"curve/{done.stage.name}"
    return {
        f"{name}/step": list(done.curve.steps),
        f"{name}/loss": list(done.curve.losses),
        f"{name}/validation": list(done.curve.validation),
    }


def _last_error(errors: tuple[float, ...]) -> float | None:
    return errors[-1] if errors else None
