"""Commands on a store take the best generation unless one is named, and say which."""

from pathlib import Path

import ase.io
import pytest

from alloop.campaign import Campaign
from alloop.cli import main
from alloop.core.atoms import to_atoms
from alloop.history.acceptance import generation_sentence
from alloop.loop.state import Generations, LoopState
from tests.conftest import write_toy


def test_each_command_says_which_generation_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_toy(tmp_path)
    store, start = file.with_name("toy.zarr"), tmp_path / "water.xyz"
    assert main(["run", str(file), "--quiet"]) == 0
    campaign = Campaign.from_store(store)
    ase.io.write(start, to_atoms(campaign.history().opened.start[0]))
    errors = campaign.history().state.generations.errors
    count, best = len(errors), 1 + errors.index(min(errors))
    taken = f"generation {best} of {count}, the one with the smallest error on the val"
    short = ["--steps", "1", "--quiet", "--out"]
    model = tmp_path / "best.model"
    capsys.readouterr()
    assert main(["export", str(store), "--model", str(model)]) == 0
    assert taken in capsys.readouterr().out
    other = ["--model", str(tmp_path / "other.model"), "--at", "2"]
    assert main(["export", str(file), *other]) == 0
    assert f"generation 2 of {count}, as asked" in capsys.readouterr().out
    for command in (
        ["md", str(store), str(start), *short, str(tmp_path / "a.xyz")],
        ["md", str(file), str(start), *short, str(tmp_path / "b.xyz")],
        ["score", "--store", str(store), str(start)],
        ["diagnose", str(store), str(start), "--out", str(tmp_path / "d.html")],
    ):
        assert main(command) == 0
        assert taken in capsys.readouterr().err
    assert main(["md", str(model), str(start), *short, str(tmp_path / "c.xyz")]) == 0
    assert "generation" not in "".join(capsys.readouterr())  # a file holds but one
    assert taken in repr(campaign.calculator())
    assert f"generation 2 of {count}, as asked" in campaign.calculator(2).source


def test_without_a_validation_set_the_last_generation_is_taken() -> None:
    untested = LoopState(
        seed=0,
        generations=Generations(models=("a", "b"), errors=(float("inf"), float("inf"))),
    )
    assert generation_sentence(untested).startswith("generation 2 of 2, the last")
