"""`alloop train`: labels in, a model out, whatever the labels came in."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.units import kcal, mol

import alloop
from alloop.cli import main
from alloop.config.sections.training import Asteroid
from alloop.config.train_sections import PRESETS
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.records import Label
from alloop.core.seeds import held_out
from alloop.jobs.train_job import TrainJob, prepare_training
from alloop.labels.direct import DirectLabeller
from alloop.labels.toy import toy_level

WATER = np.array([[0.0, 0.0, 0.0], [0.0, 0.757, 0.587], [0.0, -0.757, 0.587]])
MACE = Path(__file__).parents[1] / "models" / "universal" / "mace_density.alloop"
LEVELS = {"cheap": toy_level(), "expensive": toy_level(stretch=0.02, offset=1.0)}
UNITS = ("--energy-unit", "eV", "--length-unit", "angstrom")
PAIRS = ("--potential", "pairwise", "--quiet")
PAINN = "{kind: painn, channels: 8, layers: 1, cutoff: 3.0}"
STEPS = "{kind: asteroid, bias: plain, teacher: 5, pretrain: 15, finetune: 10}"


def labelled(count: int, seed: int, level: str = "expensive") -> list[Atoms]:
    """Frames of water with labels."""
    made = []
    for noise in np.random.default_rng(seed).normal(0.0, 0.05, (count, 3, 3)):
        atoms = Atoms("OHH", WATER + noise)
        label = DirectLabeller(LEVELS[level]).label(from_atoms(atoms))
        assert isinstance(label, Label)
        atoms.info["REF_energy"] = label.energy
        atoms.arrays["REF_forces"] = label.forces
        made.append(atoms)
    return made


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with labels of two levels (the same frames) and a test."""
    monkeypatch.chdir(tmp_path)
    ase.io.write("exp.xyz", labelled(40, 1))
    ase.io.write("cheap.xyz", labelled(40, 1, "cheap"))
    ase.io.write("test.xyz", labelled(10, 2))
    return tmp_path


def train(*arguments: str) -> int:
    return main(["train", "--out", "m.alloop", "--force", *arguments])


def story() -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = json.loads(
        Path("m.alloop.json").read_text()
    )
    return found


def deviations(frames: Sequence[Atoms], file: str) -> tuple[float, float]:
    """Mean absolute errors of energies and forces of the model in a file."""
    said = alloop.load(file).predict(
        pack_frames([from_atoms(atoms) for atoms in frames])
    )
    energies = np.array([atoms.info["REF_energy"] for atoms in frames])
    forces = np.concatenate([atoms.arrays["REF_forces"] for atoms in frames])
    both = np.abs(said.energies - energies), np.abs(said.forces - forces)
    return float(both[0].mean()), float(both[1].mean())


def test_a_network_is_trained_in_a_process_of_its_own(here: Path) -> None:
    words = ("--expensive", "exp.xyz", "--cheap", "cheap.xyz", "--test", "test.xyz")
    choice = ("--potential", PAINN, "--training", STEPS, "--validation", "0.5")
    line = [sys.executable, "-m", "alloop", "train", *words, *choice, *UNITS]
    done = subprocess.run(
        [*line, "--out", "m.alloop"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "test, expensive" in done.stdout
    assert "surprise threshold" in done.stdout
    model = alloop.load("m.alloop")
    assert model.threshold is not None
    found = story()
    assert deviations(labelled(10, 2), "m.alloop") == pytest.approx(
        (found["errors"]["test"]["energy_mae"], found["errors"]["test"]["force_mae"])
    )
    assert found["history"]["stages"] == ["teacher", "pretraining", "fine-tuning"]
    assert len(found["history"]["bias"]) == found["labels"]["cheap"]


def test_frames_that_are_held_back_are_learned_from_at_no_level(here: Path) -> None:
    both = ("--expensive", "exp.xyz", "--cheap", "cheap.xyz", *UNITS, *PAIRS)
    assert train(*both, "--validation", "0.2", "--test-share", "0.2") == 0
    labels = story()["labels"]
    assert labels["validation"] > 0
    assert labels["test"] > 0
    assert sum(labels[x] for x in ("expensive", "validation", "test")) == 40
    assert labels["cheap"] == labels["expensive"]  # the same frames were drawn


def test_stages_on_cheap_labels_are_refused_where_none_are_left(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [from_atoms(atoms) for atoms in labelled(40, 1)]
    aside = held_out([frame.id for frame in frames], 0.3)
    cheap = [
        atoms
        for atoms, frame in zip(labelled(40, 1, "cheap"), frames, strict=True)
        if frame.id in aside
    ]
    ase.io.write("few.xyz", cheap)
    words = ("--expensive", "exp.xyz", "--cheap", "few.xyz", *UNITS, *PAIRS)
    assert train(*words, "--validation", "0.3") == 2
    said = capsys.readouterr().err
    assert "expected cheap labels" in said
    assert said.count("\n") == 1
    assert train(*words, "--validation", "0.3", "--training", "standard") == 0


def test_validation_frames_that_are_learned_from_are_told(here: Path) -> None:
    frames = labelled(40, 1)
    turned = [atoms.copy() for atoms in frames]
    for atoms, old in zip(turned, frames, strict=True):
        atoms.rotate(40.0, "z", rotate_cell=False)
        atoms.info |= old.info
        atoms.set_array("REF_forces", np.zeros((len(atoms), 3)))
    ase.io.write("twice.xyz", [*frames, *turned])
    units = {"energy_unit": "eV", "length_unit": "angstrom"}
    start = [{"labels": "twice.xyz", "level": "expensive", **units}]
    job = prepare_training(
        {"start": start, "potential": {"kind": "pairwise"}}, "m.alloop", 0.3
    )
    told = " ".join(job.material.warnings)
    assert "validation frames are learned from too" in told


def test_units_are_converted_and_known_files_need_none(here: Path) -> None:
    frames = labelled(40, 1)
    arrays = {
        "R": np.array([atoms.positions for atoms in frames]),
        "E": np.array([atoms.info["REF_energy"] for atoms in frames]) * mol / kcal,
        "F": np.array([atoms.arrays["REF_forces"] for atoms in frames]) * mol / kcal,
    }
    np.savez("exp.npz", z=np.array([8, 1, 1]), **arrays)
    units = ("--energy-unit", "kcal/mol", "--length-unit", "angstrom")
    assert train("--expensive", "exp.npz", *units, *PAIRS) == 0
    converted = deviations(labelled(10, 2), "m.alloop")
    assert train("--expensive", "exp.xyz", *UNITS, *PAIRS) == 0
    assert deviations(labelled(10, 2), "m.alloop") == pytest.approx(converted, rel=1e-4)
    ours = ["label", "exp.xyz", "--level", "{kind: toy}", "--out", "ours.xyz"]
    assert main([*ours, "--quiet", "--workers", "1"]) == 0
    assert train("--expensive", "ours.xyz", *PAIRS) == 0


def test_a_yaml_file_and_a_store_say_what_to_train_on(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = here / "inside"
    folder.mkdir()
    labels = "labels: ../exp.xyz, level: expensive"
    (folder / "t.yaml").write_text(
        f"start: [{{{labels}, energy_unit: eV, length_unit: angstrom}}]\n"
        "validation: {file: ../test.xyz, energy_unit: eV, length_unit: angstrom}\n"
        "potential: {kind: pairwise, radial: 6}\n"
    )
    assert train("inside/t.yaml", "--quiet") == 0
    six = deviations(labelled(10, 2), "m.alloop")
    assert train("inside/t.yaml", "--potential", "{radial: 12}", "--quiet") == 0
    assert deviations(labelled(10, 2), "m.alloop")[1] < six[1]
    (folder / "t.yaml").write_text((folder / "t.yaml").read_text() + "trainig: {}\n")
    assert train("inside/t.yaml", "--quiet") == 2
    assert "did you mean `training`" in capsys.readouterr().err


def test_a_campaign_s_store_is_trained_on_with_its_test_set(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "toy.yaml").write_text(
        "name: toy\nseed: 3\nstart: [{molecule: H2O}]\n"
        "levels: {cheap: {kind: toy}, expensive: {kind: toy, stretch: 0.02}}\n"
        "potential: {kind: pairwise}\nseeds: {cheap: 12, expensive: 6}\n"
        "validation: {frames: 6, each: 2}\nbudget: {cheap: 12, expensive: 6}\n"
        "cluster: {kind: inline}\nlimits: {isolate: false}\nstore: toy.zarr\n"
    )
    assert main(["run", "toy.yaml", "--quiet"]) == 0
    capsys.readouterr()
    assert train("toy.zarr", *PAIRS) == 0
    labels = story()["labels"]
    assert (labels["cheap"] > 0, labels["test"]) == (True, 6)
    assert labels["expensive"] + labels["validation"] == 6


def scan(shift: float) -> list[Atoms]:
    """A stretch of water as other programs write scans: energies, and no forces."""
    made = []
    for stretch in np.linspace(0.95, 1.1, 7):
        atoms = Atoms("OHH", stretch * WATER)
        label = DirectLabeller(LEVELS["expensive"]).label(from_atoms(atoms))
        assert isinstance(label, Label)
        atoms.info["REF_energy"] = label.energy + shift
        made.append(atoms)
    return made


def test_a_scan_with_energies_alone_is_judged(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ase.io.write("scan.xyz", scan(shift=0.25))
    words = ("--expensive", "exp.xyz", "--test", "scan.xyz", *UNITS, *PAIRS)
    assert train(*words) == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if "test, expensive" in line)
    assert row.split()[-2:] == ["–", "–"]
    assert "energies alone" in said
    found = story()["errors"]["test"]
    assert (found["force_mae"], found["force_rmse"]) == (None, None)
    batch = pack_frames([from_atoms(atoms) for atoms in scan(0.0)])
    off = alloop.load("m.alloop").predict(batch).energies - [
        atoms.info["REF_energy"] for atoms in scan(shift=0.25)
    ]
    assert found["energy_mae"] == pytest.approx(np.abs(off).mean())
    assert found["energy_spread"] == pytest.approx(np.abs(off - off.mean()).mean())
    assert found["energy_spread"] < 0.1 * found["energy_mae"]  # the shift is off it
    assert train("--expensive", "scan.xyz", *UNITS, *PAIRS) == 2
    assert "expected `REF_forces` or `forces`" in capsys.readouterr().err


def test_the_frames_that_are_held_out_are_told(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--expensive", "exp.xyz", "--cheap", "cheap.xyz", *UNITS)
    assert train(*words, *PAIRS[:2], "--validation", "0.3") == 0
    labels = story()["labels"]
    assert labels["validation"] != 12  # 0.3 of 40: each frame is drawn by its own id
    said = capsys.readouterr().out
    assert f"{labels['validation']} of 40 expensive frames are held out" in said
    assert f"trains on {labels['expensive']} expensive and {labels['cheap']} cheap" in (
        said
    )


def test_a_preset_sets_what_the_training_leaves_open(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    units = {"energy_unit": "eV", "length_unit": "angstrom"}
    files = {"exp.xyz": "expensive", "cheap.xyz": "cheap"}
    start = [{"labels": file, "level": x, **units} for file, x in files.items()]
    network = {"kind": "painn", "channels": 8, "layers": 1}

    def plan(preset: str | None = None, **training: object) -> TrainJob:
        sections = {"start": start, "potential": network}
        both = {**sections, "training": training} if training else sections
        return prepare_training(both, "m.alloop", preset=preset)

    small = plan()
    assert small.preset == "quick"
    assert isinstance(small.plan.training, Asteroid)
    assert small.plan.training == plan("quick").plan.training
    ours, best = small.plan.training, PRESETS["best"]
    assert (ours.teacher, ours.pretrain, ours.finetune) == (300, 2700, 1000)
    whole = plan("best", kind="asteroid", lr=1e-3).plan.training
    assert isinstance(whole, Asteroid)
    assert (whole.total, whole.batch, whole.lr) == (best.steps, best.batch, 1e-3)
    passes = whole.finetune * whole.batch / len(small.material.expensive)
    assert 295 < passes <= 300  # of fine-tuning: more do harm
    assert plan(kind="asteroid", lr=1e-3).preset is None
    assert plan(kind="standard").preset == "quick"
    longer = plan("standard", kind="standard", steps=50)
    assert longer.length == f"50 steps in batches of {PRESETS['standard'].batch}"
    with pytest.raises(InputError, match="presets are for new networks"):
        plan("best", kind="two-heads")
    wrong = ("--expensive", "exp.xyz", *UNITS, "--preset", "slow")
    assert train(*wrong) == 2
    assert "one of quick, standard, best, got `slow`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--expensive", "exp.xyz"), "units of exp.xyz"),
        (("--expensive", "exp.xyz", "--energy-unit", "eV"), "give --length-unit"),
        (("--expensive", "none.xyz", *UNITS), "none.xyz is not there"),
        (("--cheap", "cheap.xyz", *UNITS), "expected expensive labels"),
        ((), "expected labels"),
        (("--expensive", "exp.xyz", "--test", "exp.xyz", *UNITS), "are trained on too"),
        (("--expensive", "exp.xyz", *UNITS, "--potential", "pain"), "`painn`"),
        (("--expensive", "exp.xyz", *UNITS, "--training", "{step: 3}"), "training"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    sentence: str,
) -> None:
    assert train(*words, "--quiet") == 2
    assert sentence in capsys.readouterr().err
    assert not (here / "m.alloop").exists()


def test_python_trains_as_the_command_does(here: Path) -> None:
    units = {"energy_unit": "eV", "length_unit": "angstrom"}
    sections = {
        "start": [{"labels": "exp.xyz", "level": "expensive", **units}],
        "potential": {"kind": "pairwise"},
    }
    taught = alloop.train(sections, "python.alloop")
    assert train("--expensive", "exp.xyz", *UNITS, *PAIRS) == 0
    assert Path("python.alloop").read_bytes() == Path("m.alloop").read_bytes()
    assert taught.errors["validation"].frames == story()["labels"]["validation"]


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_alike(here: Path) -> None:
    steps = {"kind": "asteroid", "bias": "plain", "pretrain": 700, "finetune": 20}
    steps["teacher"] = 20
    units = {"energy_unit": "eV", "length_unit": "angstrom"}
    sections = {
        "start": [
            {"labels": "exp.xyz", "level": "expensive", **units},
            {"labels": "cheap.xyz", "level": "cheap", **units},
        ],
        "potential": {"kind": "painn", "channels": 8, "layers": 1, "cutoff": 3.0},
        "training": steps,
    }
    Path("t.yaml").write_text(json.dumps(sections))  # which is YAML too
    line = [sys.executable, "-m", "alloop", "train", "t.yaml", "--out", "m.alloop"]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    kept = here / "m.alloop.training"
    for _ in range(1200):
        if process.poll() is not None or any(kept.glob("[!.]*.safetensors")):
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert any(kept.glob("[!.]*.safetensors"))
    assert not (here / "m.alloop").exists()
    seen = []
    alloop.train(sections, "m.alloop", observe=lambda *said: seen.append(said[0]))
    assert set(seen) == {"pretraining", "fine-tuning"}  # the teacher was there
    assert not kept.exists()
    alloop.train(sections, "whole.alloop")
    assert Path("whole.alloop").read_bytes() == Path("m.alloop").read_bytes()


def test_a_stopped_training_says_how_to_go_on(here: Path) -> None:
    words = ["--expensive", "exp.xyz", *UNITS, "--potential", PAINN]
    many = "{kind: standard, steps: 90000, compile: false}"  # no chance to end before
    steps = ["--training", many]
    line = [sys.executable, "-m", "alloop", "train", *words, *steps, "--out", "m.model"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "are held out for validation" in process.stdout.readline()
    first = islice(process.stdout, 5)  # a sign of life, after a few seconds
    assert any("painn, standard: " in line for line in first)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[0]
    assert process.returncode == 3, said
    assert "continue with: alloop train --expensive exp.xyz" in said
    assert not (here / "m.model").exists()


@pytest.mark.slow
def test_a_universal_potential_is_compared_with_itself_as_it_came(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("chgnet")
    steps = "{kind: standard, steps: 120, lr: 0.003}"
    words = ("--expensive", "exp.xyz", "--test", "test.xyz", *UNITS, "--quiet")
    assert train(*words, "--potential", "chgnet", "--training", steps) == 0
    assert "chgnet before training" in capsys.readouterr().out
    found = story()
    before, after = found["errors_before"]["test"], found["errors"]["test"]
    assert after["force_mae"] < 0.6 * before["force_mae"]


def test_a_universal_potential_s_errors_are_told_before_the_first_step(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = "{kind: standard, steps: 2}"
    own = f"{{kind: mace, path: {MACE}, head: xtb}}"
    words = ("--expensive", "exp.xyz", *UNITS, "--potential", own, "--training", steps)
    assert train(*words) == 0
    said = capsys.readouterr().out
    lines = [line.strip() for line in said.splitlines()]
    rows = ("as it comes", "references fitted", "start of training")
    first = [n for n, line in enumerate(lines) for row in rows if line.startswith(row)]
    assert len(first) == 3
    assert "mace, before the first step" in said
    assert first[-1] < min(n for n, x in enumerate(lines) if x.startswith("validation"))
    assert story()["history"]["before/name"] == list(rows)
    assert "elsewhere after training, in meV/Å: close contacts " in " ".join(lines)
