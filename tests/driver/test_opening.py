"""A store that is resumed where its levels or its device are missing."""

from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alloop.campaign import Campaign
from alloop.cli import main
from alloop.config.checks import plan_checks
from alloop.driver.run import RunObserver
from alloop.generation import Generation, to_bytes
from alloop.history.reader import read_history
from alloop.potentials.pairwise import PairBasis, PairwisePotential
from tests.conftest import write_toy


def begun(folder: Path, **changes: Any) -> Path:
    """Return the store of a campaign that was stopped after a few turns."""
    path, turns = write_toy(folder, **changes), count()
    stop = RunObserver(stop=lambda: next(turns) > 8)
    Campaign.from_yaml(path).run(observer=stop)
    return folder / "toy.zarr"


def refusal(store: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what `alloop resume` says; the journal must stay as it is."""
    length = len(read_history(store).entries)
    capsys.readouterr()
    assert main(["resume", str(store), "--quiet"]) == 2
    assert len(read_history(store).entries) == length
    return capsys.readouterr().err


def test_a_level_that_is_missing_costs_no_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    basis = PairBasis((1, 8))
    model = PairwisePotential(basis, [0.0] * basis.size)
    file = tmp_path / "cheap.model"
    file.write_bytes(to_bytes(Generation(model, None, None, {}))[1])
    cheap = {"kind": "model", "path": str(file)}
    store = begun(tmp_path, levels={"cheap": cheap, "expensive": {"kind": "toy"}})
    file.rename(tmp_path / "elsewhere.model")
    said = refusal(store, capsys)
    assert "levels.cheap" in said
    assert "cheap.model" in said
    (tmp_path / "elsewhere.model").rename(file)
    length = len(read_history(store).entries)
    main(["resume", str(store), "--quiet"])
    assert len(read_history(store).entries) > length


def test_a_device_that_is_missing_costs_no_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = SimpleNamespace(cards=1)
    monkeypatch.setattr(plan_checks, "card_count", lambda: machine.cards)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: machine.cards > 0)
    store = begun(tmp_path, device="cuda")
    machine.cards = 0
    assert "expected a CUDA device" in refusal(store, capsys)
