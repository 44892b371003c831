"""Devices: what a campaign asks for, and what is said where they are missing."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alloop.config import parse_campaign
from alloop.config.checks import plan_checks
from alloop.config.checks.plan_checks import card_count
from alloop.core.errors import InputError
from alloop.potentials.devices import on_device, torch_device
from alloop.potentials.pairwise import PairBasis, PairwisePotential
from alloop.training.trainers.staged_trainer import StagedTrainer
from alloop.workers.connection import separate_workers
from tests.config.test_config import TOY, problems

JOBS = {"cores": 4, "memory": "8 GB"}


def with_lines(**lines: Any) -> str:
    return TOY + "".join(f"{key}: {json.dumps(x)}\n" for key, x in lines.items())


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine whose number of cards a test sets."""
    machine = SimpleNamespace(count=0)
    monkeypatch.setattr(plan_checks, "card_count", lambda: machine.count)
    return machine


def test_networks_run_on_the_cpu_unless_something_else_is_asked(
    tmp_path: Path, cards: SimpleNamespace
) -> None:
    plain = parse_campaign(TOY, tmp_path)
    assert plain.plan.device == plain.worker_settings.device == "cpu"
    assert plain.cluster.resources("LEARN") is None
    cards.count = 1
    setup = parse_campaign(with_lines(device="cuda"), tmp_path)
    assert setup.worker_settings.device == "cuda"
    trainer = setup.worker_settings.trainer
    assert isinstance(trainer, StagedTrainer)
    assert trainer.device == "cuda"


@pytest.mark.parametrize(
    ("lines", "path", "text"),
    [
        ({"device": "gpu"}, "device", "expected `cpu`, `cuda` or `auto`"),
        ({"device": "cuda"}, "device", "torch sees none on this machine; set `cpu`"),
        ({"cluster": {"gpus": 1}}, "cluster.gpus", "no use with `device: cpu`"),
        (
            {
                "device": "cuda",
                "cluster": {"kind": "slurm", "walltime": "1 h", "labels": JOBS},
            },
            "device",
            "the jobs for training and MD have no card; set their `gpus: 1`",
        ),
    ],
)
def test_a_device_that_is_not_there_is_a_mistake(
    tmp_path: Path, cards: SimpleNamespace, lines: Any, path: str, text: str
) -> None:
    assert text in problems(with_lines(**lines), tmp_path)[path]


def test_more_cards_than_the_machine_has_are_a_mistake(
    tmp_path: Path, cards: SimpleNamespace
) -> None:
    cards.count = 2
    lines = {"device": "auto", "cluster": {"gpus": 3}}
    found = problems(with_lines(**lines), tmp_path)
    assert "at most 2 cards" in found["cluster.gpus"]
    lines["cluster"] = {"gpus": 2}
    assert parse_campaign(with_lines(**lines), tmp_path).cluster.separate


def test_this_machine_is_not_asked_where_others_do_the_work(tmp_path: Path) -> None:
    card = {**JOBS, "gpus": 1}
    jobs = {"kind": "pbs", "walltime": "1 h", "labels": JOBS, "learning": card}
    address = {"kind": "address", "address": "tcp://10.0.0.1:8786"}
    for cluster in (jobs, address):
        lines = with_lines(device="cuda", cluster=cluster)
        assert parse_campaign(lines, tmp_path).plan.device == "cuda"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_auto_is_the_cpu_and_cuda_is_refused() -> None:
    assert card_count() == 0
    assert torch_device("auto") == torch_device("cpu") == "cpu"
    with pytest.raises(InputError, match="expected a CUDA device"):
        torch_device("cuda")
    pair = PairwisePotential(PairBasis((1,), radial=1), [0.0, 0.0])
    assert on_device(pair, "auto") is pair


def test_tasks_ask_for_the_resources_of_their_kind(tmp_path: Path) -> None:
    cluster = {
        "kind": "address",
        "address": "tcp://10.0.0.1:8786",
        "resources": {"learning": {"GPU": 1}},
    }
    plan = parse_campaign(with_lines(cluster=cluster), tmp_path).cluster
    assert plan.resources("LEARN") == {"GPU": 1}
    assert plan.resources("LABEL") is None
    apart = {**cluster, "separate": True}
    plan = parse_campaign(with_lines(cluster=apart), tmp_path).cluster
    assert plan.resources("LEARN") == {"GPU": 1, "LEARN": 1}


def test_each_learning_worker_of_this_machine_sees_one_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = {"cls": "Nanny", "options": {"nthreads": 1, "env": {"A": "1"}}}

    def seen(workers: int, gpus: int) -> list[tuple[Any, ...]]:
        found = separate_workers(spec, workers, gpus).values()
        each = [worker["options"] for worker in found]
        assert all(x["nthreads"] == 1 and x["env"]["A"] == "1" for x in each)
        return [(*x["resources"], x["env"].get("CUDA_VISIBLE_DEVICES")) for x in each]

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert seen(3, 2) == [("LEARN", "0"), ("LEARN", "1"), ("LABEL", None)]
    assert seen(1, 1) == [("LEARN", "0"), ("LABEL", None)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert seen(4, 2)[:2] == [("LEARN", "4"), ("LEARN", "6")]
