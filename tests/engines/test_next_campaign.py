"""What a deployed model does not trust starts its next campaign."""

from pathlib import Path

import numpy as np
from ase.build import molecule
from ase.io import read, write

from alloop.campaign import Campaign
from alloop.core.atoms import from_atoms, to_atoms
from alloop.engines.evaluator import Evaluator, Watch, repeated
from tests.conftest import write_toy


def test_frames_beyond_the_limit_start_a_campaign_by_one_command(
    tmp_path: Path,
) -> None:
    budget = {"cheap": 20, "expensive": 8}
    first = write_toy(tmp_path / "first", budget=budget)
    assert Campaign.from_yaml(first).run().exit_code == 0
    second = tmp_path / "second"
    second.mkdir()
    model = Campaign.from_yaml(first).export_model(second / "water.model")
    water = from_atoms(molecule("H2O"))
    write(second / "beyond.xyz", to_atoms(water), format="extxyz")  # the minimum
    watch = Watch(action="write", file=second / "beyond.xyz", spacing=1)
    evaluator = Evaluator.of_file(model, watch=watch)
    for stretch in (1.0, 1.5, 1.8):  # what an engine would come to
        positions = water.positions.copy()
        positions[1] += (stretch - 1.0) * (positions[1] - positions[0])
        evaluator.evaluate(repeated(water, positions[None]))
    frames = read(second / "beyond.xyz", index=":")
    assert [round(x.get_distance(0, 1), 2) for x in frames] == [0.97, 1.45, 1.74]
    again = write_toy(
        second,
        start=[{"file": "beyond.xyz", "conformers": True}],
        potential={"kind": "file", "path": model.name},
        budget=budget,
    )
    campaign = Campaign.from_yaml(again)
    assert campaign.run().exit_code == 0
    frames = campaign.history().state.labels.trained_on("expensive")
    records = [campaign.history().frame(key) for key in frames]
    lengths = [
        np.linalg.norm(x.positions[1:] - x.positions[0], axis=1).max() for x in records
    ]
    assert max(lengths) > 1.6  # labelled where the model was not trusted
