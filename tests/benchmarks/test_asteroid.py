"""The comparison of trainings: budgets, rows that are kept, the table."""

import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from alloop.core.errors import InputError
from alloop.core.units import KCAL_PER_MOL
from alloop.training.stages import Schedule
from benchmarks.accuracy.asteroid import __main__ as asteroid
from benchmarks.accuracy.asteroid.arms import (
    ARMS,
    GRID,
    default_steps,
    digest,
    stage_runs,
    with_changes,
    with_schedule,
    with_steps,
    without_cheap_energies,
)
from benchmarks.accuracy.asteroid.data import load
from benchmarks.accuracy.asteroid.figures import (
    by_gamma,
    by_labels,
    by_ratio,
    draw_figures,
    log_slope,
)
from benchmarks.accuracy.asteroid.rows import Row, claim_row, validation_error
from benchmarks.accuracy.asteroid.table import FIGURES, lines
from benchmarks.accuracy.training.averaging import draw_labels

WATER = np.array([8, 1, 1])
SMALL = '{"channels": 4, "layers": 1, "radial": 3}'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Springs at two stiffnesses as if they were ethanol at two levels, kcal/mol."""
    folder = tmp_path_factory.mktemp("data") / "md17_ccsd"
    folder.mkdir()
    rng = np.random.default_rng(1)
    rest = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])

    def level(count: int, stiffness: float, prefix: str) -> dict[str, np.ndarray]:
        moved = 0.05 * rng.normal(size=(count, 3, 3))
        energies = 0.5 * stiffness * (moved**2).sum(axis=(1, 2))
        fields = {"R": rest + moved, "E": energies, "F": -stiffness * moved}
        return {f"{prefix}_{name}": value for name, value in fields.items()}

    labels = level(1000, 100.0, "cc") | level(60, 90.0, "dft")
    np.savez(
        folder / "ethanol.npz",
        z=WATER,
        asteroid_shuffle=rng.permutation(1000),
        **labels,
    )
    return folder.parent


def run(monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
    monkeypatch.setattr(sys, "argv", ["asteroid", *map(str, options)])
    asteroid.main()


def test_an_arm_takes_the_steps_of_its_row() -> None:
    for name, arm in ARMS.items():
        whole = with_steps(arm, 1000)
        cost = [3 if stage.loss == "score" else 1 for stage in whole.stages]
        spent = sum(
            n * c * stage.steps
            for n, c, stage in zip(stage_runs(arm), cost, whole.stages, strict=True)
        )
        assert spent == pytest.approx(1000, abs=8), name


def test_a_change_is_of_one_stage_and_makes_a_row_of_its_own() -> None:
    arm = with_schedule(ARMS["no-bat"], Schedule(), 4e-4)
    change = {"fine-tuning": {"norm": "l1", "steps": 83}}
    before, after = arm.stages, with_changes(arm, change).stages
    assert after[0] == before[0]
    assert after[1].steps == 83
    assert after[1].schedule == replace(before[1].schedule, norm="l1")
    assert digest(before) != digest(after)
    assert with_changes(arm, {}) == arm
    for wrong in ({"teacher": {"lr": 1.0}}, {"fine-tuning": {"pace": 1.0}}):
        with pytest.raises(InputError, match="expected changes of"):
            with_changes(arm, wrong)


def test_gammas_share_the_budget() -> None:
    assert stage_runs(ARMS["asteroid"]) == [1, 1, 1]
    assert stage_runs(ARMS["gammas"]) == [1, 4, 4]


def test_other_facts_another_name() -> None:
    arm = with_schedule(ARMS["asteroid"], Schedule(), 1e-3)
    assert digest(arm) == digest(with_schedule(ARMS["asteroid"], Schedule(), 1e-3))
    assert digest(arm) != digest(
        with_schedule(ARMS["asteroid"], Schedule(lr=1e-3), 1e-3)
    )


def test_who_trains_does_not_judge(data: Path) -> None:
    sets = load(data, "ethanol", ratio=1)
    assert [len(sets.cheap), len(sets.expensive), len(sets.stopping)] == [50, 400, 50]
    groups = (sets.expensive, sets.stopping, sets.choosing, sets.test)
    ids = [frame.id for labels in groups for frame in labels.batch.frames()]
    assert len(set(ids)) == len(ids)
    assert np.abs(sets.cheap.forces).max() < 90.0 * KCAL_PER_MOL


def npz(folder: Path, **changes: np.ndarray) -> Path:
    """The data of a folder with some arrays replaced or added, in a folder beside."""
    with np.load(folder / "md17_ccsd" / "ethanol.npz") as file:
        data = dict(file) | changes
    other = folder.parent / f"{folder.name}-{'-'.join(changes)}" / "md17_ccsd"
    other.mkdir(parents=True, exist_ok=True)
    np.savez(other / "ethanol.npz", **data)
    return other.parent


def test_what_the_name_of_a_row_promises_is_there_or_it_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--out", tmp_path, "--steps", 4, "--settings", SMALL)
    with pytest.raises(SystemExit, match=r"expected 100 cheap frames .* have 60"):
        run(monkeypatch, "--data", data, "--ratio", 2, *where)
    none = np.zeros((0, 3, 3))
    empty = npz(data, dft_R=none, dft_F=none, dft_E=np.zeros(0))
    with pytest.raises(SystemExit, match="have 0 that are not judged on; bring"):
        run(monkeypatch, "--data", empty, "--ratio", 1, *where)
    assert list(tmp_path.glob("*.json")) == []


def test_no_geometry_stands_in_two_sets(data: Path) -> None:
    with np.load(data / "md17_ccsd" / "ethanol.npz") as file:
        known = dict(file)
    order, turn = known["asteroid_shuffle"], np.diag([-1.0, 1.0, 1.0])
    dft, cc = known["dft_R"].copy(), known["cc_R"].copy()
    dft[3] = cc[order[600]] @ turn  # a test frame, mirrored
    dft[4] = dft[5]
    cc[order[700]], cc[order[960]] = cc[order[10]], cc[order[420]]
    sets = load(npz(data, dft_R=dft, cc_R=cc), "ethanol", ratio=1)
    assert dict(sets.left_out) == {"test": 1, "choosing": 1, "cheap": 2}
    groups = (sets.cheap, sets.expensive, sets.stopping, sets.choosing, sets.test)
    found = np.concatenate([x.batch.positions.reshape(-1, 3, 3) for x in groups])
    shape = np.linalg.norm(found - np.roll(found, 1, axis=1), axis=2)
    apart = np.abs(shape[:, None] - shape[None]).max(axis=2) + 9.0 * np.eye(len(shape))
    assert apart.min() > 1e-4


def own_file(folder: Path, frames: int = 200) -> Path:
    """A file of one's own: both levels label the same frames, without a shuffle."""
    rng = np.random.default_rng(7)
    rest = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    moved = 0.05 * rng.normal(size=(frames, 3, 3))
    arrays = {"z": WATER}
    for prefix, stiffness in (("cc", 100.0), ("dft", 90.0)):
        energies = 0.5 * stiffness * (moved**2).sum(axis=(1, 2))
        values = (rest + moved, energies, -stiffness * moved)
        arrays |= {f"{prefix}_{x}": y for x, y in zip("REF", values, strict=True)}
    np.savez(folder / "own.npz", **arrays)
    return folder / "own.npz"


def test_a_file_of_ones_own_whose_levels_share_their_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = own_file(tmp_path)
    sets = load(tmp_path, "own", ratio=1)
    judges = (sets.stopping, sets.choosing, sets.test)
    assert [len(x) for x in (sets.cheap, sets.expensive)] == [50, 80]
    assert [len(x) for x in judges] == [10, 10, 100]
    cheap = {frame.id for frame in sets.cheap.batch.frames()}
    assert cheap <= {frame.id for frame in sets.expensive.batch.frames()}
    twins, true = sets.twins["test"], sets.test
    assert twins.batch is true.batch
    assert twins.forces == pytest.approx(0.9 * true.forces)
    with pytest.raises(InputError, match="expected 100 cheap frames of own"):
        load(tmp_path, "own", ratio=2)
    where = ("--data", tmp_path, "--ratio", 1, "--steps", 4, "--settings", SMALL)
    out = ("--out", tmp_path / "rows", "--molecule", file)
    with pytest.raises(SystemExit, match="expected 250 expensive labels"):
        run(monkeypatch, *where, *out, "--arms", "standard")
    few = ("--expensive", 60, "--arms", "standard,no-bat,delta")
    run(monkeypatch, *where, *out, *few)
    rows = [json.loads(x.read_text()) for x in (tmp_path / "rows").glob("*.json")]
    assert {row["molecule"] for row in rows} == {"own"}
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("command", "words", "refusal"),
    [
        ("asteroid.sgdml", (), "expected 250 expensive labels"),
        ("training.warm_start", (), "expected 1000 cheap frames of own"),
        (
            "training.presets",
            ("--out", "rows", "--expensive", 81),
            "expected 81 expensive",
        ),
        (
            "training.presets",
            ("--out", "rows", "--cheap", 81),
            "expected 100 cheap frames",
        ),
        (
            "universal.few_labels",
            ("--out", "rows"),
            "expected 1000 cheap frames of own",
        ),
    ],
)
def test_all_commands_take_a_file_of_ones_own_or_refuse_in_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    words: tuple[str | int, ...],
    refusal: str,
) -> None:
    file = own_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    where = ("--data", tmp_path, "--molecule", file)
    monkeypatch.setattr("sys.argv", [command, *map(str, (*where, *words))])
    with pytest.raises(SystemExit, match=refusal):
        import_module(f"benchmarks.accuracy.{command}").main()


def test_labels_of_a_file_of_ones_own_are_drawn_for_averages(tmp_path: Path) -> None:
    file = own_file(tmp_path, 1000)
    cheap, expensive, judges = draw_labels(tmp_path, str(file), 0)
    assert [len(x) for x in (cheap, expensive, judges)] == [400, 60, 100]
    few = own_file(tmp_path, 800)
    with pytest.raises(InputError, match="expected 400 cheap frames"):
        draw_labels(tmp_path, str(few), 0)


def test_a_file_that_lacks_something_is_refused_in_a_sentence(tmp_path: Path) -> None:
    own_file(tmp_path)
    with np.load(tmp_path / "own.npz") as file:
        known = dict(file)
    without = {key: x for key, x in known.items() if key != "cc_F"}
    np.savez(tmp_path / "bare.npz", **without)
    (tmp_path / "text.npz").write_text("no archive")
    few = {k: x if k == "z" else x[:20] for k, x in known.items()}
    np.savez(tmp_path / "few.npz", **few)
    broken = {
        "atoms": {"z": WATER[:2]},
        "short": {"cc_E": known["cc_E"][:-1]},
        "column": {"dft_E": known["dft_E"][:, None]},
        "nan": {"cc_F": np.full_like(known["cc_F"], np.nan)},
        "cheap": {"dft_F": None},
        "order": {"asteroid_shuffle": np.arange(len(known["cc_E"])) // 2},
    }
    for name, changes in broken.items():
        arrays = {key: x for key, x in (known | changes).items() if x is not None}
        np.savez(tmp_path / f"{name}.npz", **arrays)
    sentences = {
        "atoms": r"expected numbers cc_R \(200, 2, 3\) for 200 frames of 2 atoms",
        "short": r"expected numbers cc_E \(200,\) .* got float64 \(199,\)",
        "column": r"expected numbers dft_E \(200,\) .* got float64 \(200, 1\)",
        "nan": "expected finite numbers in cc_F",
        "cheap": r"expected numbers dft_F \(200, 3, 3\)",
        "order": "expected an asteroid_shuffle of different numbers from 0 to 199",
        "bare": "expected cc_F in",
        "few": "expected 40 expensive frames or more",
        "none": "found no none in",
        "text": "cannot be read",
        "h2co": "expected h2co_B3LYP",
    }
    for name, sentence in sentences.items():
        with pytest.raises(InputError, match=sentence):
            load(tmp_path, name, ratio=1)
    with pytest.raises(InputError, match="cheap labels of all three"):
        load(tmp_path, "own", ratio=1, multi=True)


def test_energies_that_the_data_call_approximate_are_not_learned(data: Path) -> None:
    marked = npz(data, dft_kind=np.array("recovered from a model (E approximate)"))
    assert load(marked, "ethanol", ratio=1).approximate
    assert not load(data, "ethanol", ratio=1).approximate
    arm = without_cheap_energies(with_schedule(ARMS["asteroid"], Schedule(), 1e-3))
    weights = {stage.name: stage.schedule.energy for stage in arm.stages}
    usual = Schedule().energy
    assert weights == {"teacher": usual, "pretraining": 0.0, "fine-tuning": usual}


def test_a_grid_is_made_and_only_its_best_row_is_tested(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--data", data, "--out", tmp_path, "--ratio", 1, "--steps", 6)
    what = ("--arms", "standard", "--settings", SMALL, "--grid", "--test")
    run(monkeypatch, *where, *what)
    rows = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert {(row["lr"], row["weight_decay"]) for row in rows} == set(GRID)
    (tested,) = [row for row in rows if row["test"] is not None]
    assert validation_error(tested) == min(map(validation_error, rows))
    assert {row["steps"] for row in rows} == {6}
    assert default_steps("ethanol", 10) * 10 == default_steps("ethanol", 5) * 5


def test_rows_are_made_once_and_shown(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = ("--data", data, "--out", tmp_path, "--ratio", 1, "--steps", 8)
    what = ("--arms", "standard,asteroid", "--settings", SMALL, "--seed", 3)
    run(monkeypatch, *where, *what)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    rows = [json.loads(path.read_text()) for path in made]
    assert sorted(row["arm"] for row in rows) == ["asteroid", "standard"]
    assert sorted(row["expensive"] for row in rows) == [200, 250]
    assert all(row["test"] is None for row in rows)
    assert not (tmp_path / "test.log").exists()
    run(monkeypatch, *where, *what, "--test")
    assert len((tmp_path / "test.log").read_text().splitlines()) == 2
    tested = [json.loads(path.read_text()) for path in made]
    assert [row | {"test": None} for row in tested] == rows
    assert all(row["test"] > 0.0 for row in tested)
    capsys.readouterr()
    run(monkeypatch, *where, *what, "--mean", "--test")
    shown = capsys.readouterr().out  # of one network the mean is its own
    for row in tested:
        errors = ", ".join(f"{name} {row[name]:.4f}" for name in FIGURES)
        assert f"{row['arm']}, mean forces of seeds 3: {errors} kcal" in shown
    run(monkeypatch, "--out", tmp_path, "--table")
    shown = capsys.readouterr().out
    assert "ethanol, painn, ratio 1, 8 steps" in shown
    assert "paper: asteroid" in shown


@pytest.mark.slow
def test_the_cheap_level_may_be_another(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--data", data, "--out", tmp_path, "--ratio", 1, "--steps", 4)
    run(monkeypatch, *where, "--arms", "no-bat", "--settings", SMALL)
    run(
        monkeypatch,
        *where,
        "--arms",
        "no-bat",
        "--settings",
        SMALL,
        "--level",
        "hf/sto-3g",
    )
    rows = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert sorted(row["level"] for row in rows) == ["", "hf/sto-3g"]
    assert rows[0]["stopping"] != rows[1]["stopping"]


def test_rows_of_earlier_versions_are_found_under_the_same_names() -> None:
    """A row that was made is not made again: no new option renames it."""
    schedule = Schedule(lr=2.5e-3, batch=5, ema=0.99, weight_decay=0.0)
    names = {"standard": "95ed1c42", "no-bat": "92fd3d36"}
    for arm, facts in names.items():
        assert digest(with_schedule(ARMS[arm], schedule, 4e-4), ()) == facts


def test_a_row_belongs_to_one_process(tmp_path: Path) -> None:
    with (
        claim_row(tmp_path / "row.json") as first,
        claim_row(tmp_path / "row.json") as two,
    ):
        assert first
        assert not two
    with claim_row(tmp_path / "row.json") as again:
        assert again


def made(arm: str, seed: int = 0, error: float = 1.0, **others: object) -> Row:
    task = {"molecule": "benzene", "network": "painn", "ratio": 20, "multi": False}
    facts = {"budget": "5 CPU min", "arm": arm, "facts": "0", "seed": seed}
    outcome = {"steps": 10, "cpu_seconds": 300.0, "test": None, "optimiser": "muon"}
    outcome["batch"] = 10
    seen = {"expensive": 250 if arm == "standard" else 200, "gammas": [2.0]}
    errors = {"stopping": error, "choosing": error}
    return {**task, **facts, **outcome, **seen, **errors, **others}


def test_medians_stand_beside_their_spread() -> None:
    rows = [
        made(arm, seed, error)
        for arm, errors in {
            "standard": (2.0, 3.0, 4.0),
            "ours": (1.5, 1.0, 9.0),
        }.items()
        for seed, error in enumerate(errors)
    ]
    rows += [made("ours", ratio=40, error=0.3), made("standard", expensive=50)]
    rows += [made("standard", facts="1", batch=5, error=3.5)]  # a worse way of it
    found = [line for line in lines(rows) if line.startswith("  ours 10")]
    assert "1.500 (1.000-9.000) -50 %" in found[0]
    assert "0.300 -90 %" in found[1]  # standard training is the same at every ratio


def test_curves_of_what_was_changed(tmp_path: Path) -> None:
    rows = [made("standard", expensive=n, error=100.0 / n) for n in (50, 100, 200, 250)]
    rows += [made("no-bat", ratio=ratio, error=10.0 / ratio) for ratio in (20, 40)]
    rows += [made("asteroid", gammas=[g], error=g) for g in (0.5, 2.0)]
    (curve,) = by_labels(rows).items()
    assert (
        curve[0]
        == "standard, benzene, painn, 5 CPU min, batch 10, ratio 20, slope -1.00"
    )
    assert log_slope(curve[1]) == pytest.approx(-1.0)
    ratios = {name.split(", ")[0]: curve for name, curve in by_ratio(rows).items()}
    assert ratios == {
        "no-bat": {20.0: [0.5], 40.0: [0.25]},
        "standard": {20.0: [0.4], 40.0: [0.4]},  # whatever the ratio
    }
    gammas = {tuple(x.split(", ")[0::5]): curve for x, curve in by_gamma(rows).items()}
    assert gammas == {
        ("asteroid", "ratio 20"): {0.5: [0.5], 2.0: [2.0]},
        ("no-bat", "ratio 20"): {0.5: [0.5], 2.0: [0.5]},  # whatever γ
    }
    draw_figures(rows, tmp_path / "figures.svg")
    assert (tmp_path / "figures.svg").read_text().count("<svg") == 1
