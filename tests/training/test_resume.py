"""Trainings that are killed go on bit for bit, and nobody takes up another's."""

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from alloop.models.checkpoint import Checkpoint
from alloop.training.fit import LossCurve, fit_stage
from alloop.training.stage_state import StageTask
from alloop.training.stages import Compile
from alloop.training.state_folder import StateFolder, TrainingProgress, read_progress
from tests.training.springs import bits, network, pool, stage


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Halted(Exception):
    """A training was broken off."""


@dataclass
class Memory:
    """Keeps the last state at each step, and breaks off after some."""

    halt: int | None = None
    saves: int = 0
    kept: dict[str, Checkpoint] = field(default_factory=dict)
    reports: list[TrainingProgress] = field(default_factory=list)

    def should_save(self) -> bool:
        return True

    def save(self, name: str, state: Checkpoint) -> None:
        self.kept[name] = state
        self.saves += 1
        if self.saves == self.halt:
            raise Halted

    def load(self, name: str) -> Checkpoint | None:
        return self.kept.get(name)

    def report(self, progress: TrainingProgress) -> None:
        self.reports.append(progress)


def trained(
    keeper: object = None, steps: int = 30, **settings: object
) -> tuple[bytes, LossCurve]:
    chosen = stage(steps, **settings)
    task = StageTask(network(), pool(), chosen, 5, validation=pool(4, "test"))
    found, curve = fit_stage(task, keeper)
    return bits(found), curve


def killed(folder: Path, steps: int, compile: Compile = False) -> int:
    """Kill a training's process after a random step; the step."""
    last = random.randrange(2, steps - 5)
    command = [sys.executable, "-m", "tests.training.springs", str(folder)]
    process = subprocess.Popen(
        [*command, str(steps), "yes" * bool(compile)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process, process.stdout as said:
        for line in said:
            if int(line) >= last:
                process.kill()
                break
    return last


def undisturbed(steps: int, compile: Compile = False) -> tuple[bytes, LossCurve]:
    return trained(None, steps, compile=compile, every=1)


def gone_on(folder: Path, steps: int, compile: Compile = False) -> tuple:
    keeper = StateFolder(folder, every=0.0)
    return trained(keeper, steps, compile=compile, every=1)


def test_a_killed_training_goes_on_bit_for_bit(tmp_path) -> None:
    last = killed(tmp_path, 60)
    assert len(list(tmp_path.glob("[!.]*.safetensors"))) == 1  # half-written: .name
    assert gone_on(tmp_path, 60) == undisturbed(60), f"killed after step {last}"


@pytest.mark.slow
@pytest.mark.parametrize("compile", [False, True])
def test_a_training_that_is_killed_again_and_again_ends_alike(
    tmp_path, compile: Compile
) -> None:
    steps = [killed(tmp_path, 300, compile) for _ in range(4)]
    found, curve = gone_on(tmp_path, 300, compile)
    assert curve.engine == ("compiled" if compile else "plain")
    assert (found, curve) == undisturbed(300, compile), f"killed after {steps}"


@pytest.mark.parametrize("halt", [1, 2, 7, 29])
def test_every_state_holds_all_that_the_rest_depends_on(halt: int) -> None:
    settings = {"weight_decay": 0.01, "layer_decay": 0.5, "patience": 12}
    memory = Memory(halt)
    with pytest.raises(Halted):
        trained(memory, **settings)
    memory.halt = None
    assert trained(memory, **settings) == trained(**settings)


def test_a_finished_training_is_not_run_again() -> None:
    memory = Memory()
    first = trained(memory)
    saves = memory.saves
    assert trained(memory) == first
    assert memory.saves == saves


def test_another_trainings_state_is_not_taken_up() -> None:
    memory = Memory()
    trained(memory)
    for other in ({"steps": 29}, {"lr": 1e-3}, {"compile": "auto"}):
        trained(memory, **other)
    fit_stage(StageTask(network(), pool(), stage(30), 5), memory)  # without validation
    fit_stage(StageTask(network(), pool(), stage(30), 6), memory)
    fit_stage(StageTask(network(1), pool(), stage(30), 6), memory)
    fit_stage(StageTask(network(), pool(12, "other"), stage(30), 6), memory)
    heavy = pool().with_weights(torch.linspace(0.5, 1.5, 12).numpy())
    fit_stage(StageTask(network(), heavy, stage(30), 6), memory)
    fit_stage(StageTask(network(), pool(), replace(stage(30), name="other"), 6), memory)
    assert len(memory.kept) == 10


def test_a_damaged_state_is_passed_over(tmp_path) -> None:
    expected = trained()
    assert trained(StateFolder(tmp_path, every=0.0)) == expected
    (path,) = tmp_path.glob("*.safetensors")
    whole = path.read_bytes()
    for bad in (b"", whole[:100], whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(bad)
        assert trained(StateFolder(tmp_path)) == expected


def test_how_far_it_is_can_be_heard(tmp_path) -> None:
    memory = Memory()
    _, curve = trained(memory)
    assert [told.step for told in memory.reports] == list(curve.steps)
    assert [told.loss for told in memory.reports] == list(curve.losses)
    assert {(told.stage, told.steps) for told in memory.reports} == {("spring", 30)}
    assert read_progress(tmp_path / "training") is None
    keeper = StateFolder(tmp_path / "training")
    keeper.report(memory.reports[0])
    keeper.report(memory.reports[-1])
    assert read_progress(tmp_path / "training") == memory.reports[-1]
    assert str(memory.reports[-1]).startswith("spring 30 of 30, loss ")
    (file,) = (tmp_path / "training").iterdir()
    for broken in ("", "{", "[1]", '{"stage": "spring"}'):
        file.write_text(broken)
        assert read_progress(tmp_path / "training") is None


def test_a_training_does_not_depend_on_being_heard(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    StateFolder(tmp_path / "file").report(TrainingProgress("spring", 1, 2, 0.5))
    assert read_progress(tmp_path / "file") is None


def test_states_are_kept_as_often_as_was_asked(tmp_path) -> None:
    assert StateFolder(tmp_path, every=0.0).should_save()
    assert not StateFolder(tmp_path, every=1000.0).should_save()


def test_a_time_budget_is_measured_once(monkeypatch) -> None:
    settings = {"seconds": 0.2, "every": 1}
    memory = Memory(halt=4)
    with pytest.raises(Halted):
        trained(memory, 10_000, **settings)
    (state,) = memory.kept.values()
    planned = state.settings["progressed"]["planned"]
    assert 4 < planned < 10_000
    memory.halt = None
    monkeypatch.setattr(  # a machine on which not one step would fit
        "alloop.training.fit.plan_steps", lambda *_: (1, False)
    )
    _, curve = trained(memory, 10_000, **settings)
    assert curve.planned == curve.steps[-1] == planned


def test_a_time_budget_holds() -> None:
    _, curve = trained(None, 10_000, seconds=0.5, patience=None, every=1000)
    assert 0.1 < curve.cpu_seconds < 2.0
    assert curve.steps[-1] == curve.planned
