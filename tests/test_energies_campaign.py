"""A campaign whose expensive level gives energies alone, from start to report."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import read

from alloop import Campaign
from alloop.export.choice import Choice
from alloop.export.files import dataset, write_export
from alloop.report.sections.page import write_report
from alloop.report.status import campaign_status, error_sentences
from tests.config.toy_campaign import TOY, problems
from tests.conftest import write_toy

LEVELS = {
    "cheap": {"kind": "toy", "stiffness": 0.95, "stretch": 0.01},
    "expensive": {"kind": "toy", "forces": "none"},
}


def campaign(folder: Path, **changes: Any) -> Path:
    steps = {"teacher": 10, "pretrain": 20, "finetune": 5}
    training = {"kind": "asteroid", **steps, "every": 4, "compile": False}
    return write_toy(
        folder,
        levels=LEVELS,
        potential={"kind": "painn", "channels": 8, "layers": 1, "cutoff": 3.0},
        training=training,
        **changes,
    )


@pytest.mark.usefixtures("figures")
def test_it_runs_and_tells_errors_of_energies(tmp_path: Path) -> None:
    ended = Campaign.from_yaml(campaign(tmp_path))
    assert ended.run().exit_code == 0
    history = ended.history()
    trained = [x for _, x in history.generations]
    assert all(np.isnan(x.evaluation.force_mae) for x in trained)
    assert all(x.evaluation.error == x.evaluation.energy_mae > 0 for x in trained)
    assert all(x.error_limits is None and x.threshold is not None for x in trained)
    assert len(history.state.generations.errors) == len(trained)
    for sentence in error_sentences(history)[:2]:
        assert re.search(r"errs by [\d.]+ meV \(MAE, mean offset removed", sentence)
    assert campaign_status(history)["errors"] == [None] * len(trained)
    page = tmp_path / "report.html"
    write_report(history, page, {})
    text = page.read_text()
    assert "Learning curve: energy error on the validation set" in text
    assert "in energies (MAE)" in text
    assert "nan" not in re.sub(r"<(style|script|svg).*?</\1>", "", text, flags=re.S)
    assert "the expensive level has no forces" in text


def test_its_labels_are_exported_without_forces(tmp_path: Path) -> None:
    ended = Campaign.from_yaml(campaign(tmp_path, budget={"cheap": 30, "expensive": 6}))
    assert ended.run().exit_code == 0
    out = tmp_path / "out.extxyz"
    write_export(ended.history(), out, Choice("expensive", "train"))
    frames = read(out, ":")
    assert len(frames) == 6
    assert all("REF_forces" not in x.arrays for x in frames)
    assert all(x.info["REF_energy"] == x.get_potential_energy() for x in frames)
    both = dataset(ended.history(), Choice("both", "all"))
    with_forces = {x.info["level"] for x in both if "REF_forces_cheap" in x.arrays}
    assert with_forces == {"cheap"}
    assert not any("REF_forces_expensive" in x.arrays for x in both)


BARE = TOY.replace("expensive: {kind: toy", "expensive: {kind: toy, forces: none")


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        (TOY.replace("0.9", "0.9, forces: none"), "levels.cheap", "learned from cheap"),
        (
            BARE + "potential: {kind: pairwise}",
            "potential.kind",
            "choose a network",
        ),
        (
            BARE + "stop: {target: 5}",
            "stop.target",
            "leave it out",
        ),
        (
            BARE + "training: {kind: standard}",
            "levels.expensive",
            "no forces from energies alone",
        ),
        (
            BARE + "training: {kind: asteroid, bias: plain}",
            "training.bias",
            "leave it out",
        ),
        (TOY.replace("0.9", "0.9, forces: some"), "levels.cheap.forces", "none"),
    ],
)
def test_what_needs_forces_is_refused(
    text: str, path: str, words: str, tmp_path: Path
) -> None:
    assert words in problems(text, tmp_path)[path]
