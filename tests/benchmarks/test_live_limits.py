"""The benchmark of limits on MD and scans, on frames whose truth is known."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.md.thermal_frames import normal_modes
from benchmarks.accuracy.exploration import explorers as exploration
from benchmarks.accuracy.exploration import reference_frames
from benchmarks.accuracy.uncertainty.live_limits import (
    KELVIN,
    ScoredLabels,
    WalkerLabels,
    drawn_limits,
    judge,
    table_rows,
)
from benchmarks.common import Rows

HESSIAN = np.eye(9)  # eV/Å²


def scored(n: int, seed: int, scale: float = 1.0, length: float = 0.97) -> ScoredLabels:
    """Waters whose error is their surprise times `scale`, and a factor of about 1.5."""
    rng = np.random.default_rng(seed)
    surprise = rng.lognormal(0.0, 0.5, n)
    frames = []
    for _ in range(n):
        atoms = molecule("H2O")
        atoms.set_distance(0, 1, rng.normal(length, 0.01), fix=0)
        frames.append(from_atoms(atoms))
    errors = scale * surprise * rng.lognormal(0.0, 0.4, n)
    return ScoredLabels(pack_frames(frames), surprise, errors)


def test_limits_are_drawn_from_whole_walkers_and_judged_where_they_are_told() -> None:
    validation = WalkerLabels(scored(120, 0), np.repeat(np.arange(40), 3))
    drawn = validation.draw(np.random.default_rng(0), 30)
    places = [validation.labels.surprise.tolist().index(x) for x in drawn.surprise]
    walkers, counts = np.unique(validation.walkers[places], return_counts=True)
    assert counts.tolist() == [3] * 10
    assert [int((walkers % 2 == k).sum()) for k in range(len(KELVIN))] == [5, 5]
    examination = WalkerLabels(scored(80, 1, scale=2.0), np.repeat(np.arange(40), 2))
    kept: dict[str, list[float]] = {}
    judged = scored(200, 2)
    for number in range(8):
        rng = np.random.default_rng(number)
        for way, limits in drawn_limits(validation, examination, rng).items():
            kept.setdefault(way, []).append(judge(limits, judged)[0])
    mean = {way: np.mean(x) for way, x in kept.items()}
    assert mean["validation"] == pytest.approx(0.9, abs=0.05)
    assert mean["as campaigns do"] > mean["validation"]
    stretched = scored(50, 3, length=1.3)
    assert judge(limits, stretched)[1] > 0.5  # the last way does not look at bonds
    found = drawn_limits(validation, examination, rng)
    assert judge(found["as campaigns do"], stretched)[1] == 0.0


def test_a_molecule_without_torsions_has_no_scan_of_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    water = from_atoms(molecule("H2O"))
    monkeypatch.setattr(reference_frames, "_md_frames", lambda *_given: [water])
    frames = reference_frames._test_frames(
        Namespace(molecule="H2O"), water, normal_modes(water, HESSIAN)
    )
    assert {name: len(x) for name, x in frames.items()} == {
        "300 K": 1,
        "500 K": 1,
        "1000 K": 1,
        "stretches": 26,
    }
    error = {"mae": 1.0, "worst_95": 2.0}
    rows = Rows(tmp_path / "rows.jsonl")
    amounts = {"cheap": 1, "expensive": 1, "steps": 1, "frames": 1}
    given = Namespace(molecule="H2O", **amounts, seed=[0], base="md")
    rows[exploration.row_key(given, "md", 0)] = {
        **dict.fromkeys(frames, error),
        "survival": 1.0,
    }
    exploration.show_rows(given, rows)
    assert "stretches" in capsys.readouterr().out
    figures = {"kept": 0.9, "sd": 0.1, "told": 0.5, "ratio": 2.0}
    both = [{"w": {"md": figures}}, {"w": {"md": figures, "torsions": figures}}]
    assert [line["frames"] for line in table_rows(both)] == ["md", "torsions"]


def test_the_table_has_means_and_the_range_of_rows() -> None:
    figures = {"sd": 0.1, "told": 0.5, "ratio": 2.0}
    rows = [{"w": {"md": {"kept": kept, **figures}}} for kept in (0.8, 1.0)]
    (line,) = table_rows(rows)
    assert (line["below"], line["low"], line["high"]) == ("0.900", "0.800", "1.000")
    assert line["with a limit"] == "0.50"
    assert list(table_rows([])) == []
