"""The command line: what each verb says, and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import psutil
import pytest

import alloop
from alloop.cli import main
from alloop.cli.exits import DAMAGED, MISTAKE, exit_codes_text
from alloop.config import load_campaign
from alloop.core.records import Label
from alloop.planning.measurements import work_prices
from alloop.store.cache import LabelCache
from alloop.training.state_folder import TrainingProgress, write_progress
from alloop.workers.spool import training_folder
from tests.conftest import write_toy

COMMAND = (sys.executable, "-m", "alloop")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a toy campaign that has ended."""
    path = write_toy(tmp_path_factory.mktemp("done"))
    assert main(["run", str(path), "--quiet"]) == 0
    return path


def copied(done: Path, folder: Path, **changes: object) -> Path:
    """A copy of the finished campaign, with other values in its file."""
    import shutil

    shutil.copytree(done.with_name("toy.zarr"), folder / "toy.zarr")
    return write_toy(folder, **changes)


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command that must succeed prints."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def refused(
    capsys: pytest.CaptureFixture[str], *arguments: object, code: int = MISTAKE
) -> str:
    """What a command that must fail says on standard error."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return captured.err


# --- through a real process ----------------------------------------------------------


def call(*arguments: object, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_help_is_there_without_numpy(tmp_path: Path) -> None:
    code = (
        "import sys; from alloop.cli import main; code = main(['--help']);"
        "sys.exit(code or ('numpy' in sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "doctor" in ended.stdout


def test_checking_and_looking_load_no_torch(done: Path) -> None:
    code = (
        "import sys; from alloop.cli import main\n"
        "for verb in ('check', 'status', 'log'):\n"
        "    assert main([verb, sys.argv[1]]) == 0\n"
        "sys.exit('torch' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(done)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_mistakes_end_with_2_on_standard_error_and_create_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "bad.yaml").write_text("nam: x\nbudget: {expensive: -1}\n")
    for verb in ("check", "run"):
        ended = call(verb, "bad.yaml", folder=tmp_path)
        assert ended.returncode == 2
        assert ended.stdout == ""
        assert "bad.yaml has 5 mistakes:" in ended.stderr
        assert "nam: no such key; did you mean `name`?" in ended.stderr
        assert "Traceback" not in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_ctrl_c_ends_a_run_at_once_and_the_same_command_goes_on(tmp_path: Path) -> None:
    slow = {"kind": "toy", "burn": 0.2}
    levels = {"cheap": {**slow, "stiffness": 0.9}, "expensive": slow}
    limits, cluster = {"isolate": True}, {"kind": "local", "workers": 1}
    write_toy(tmp_path, levels=levels, limits=limits, cluster=cluster)
    process = subprocess.Popen(
        [*COMMAND, "run", "toy.yaml"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert "opened" in process.stdout.readline()
    time.sleep(1.0)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=20)
    assert process.returncode == 3
    assert out.splitlines()[-1] == "stopped; continue with: alloop run toy.yaml"
    assert err == ""
    _, alive = psutil.wait_procs(family, timeout=5)
    assert [x for x in alive if x.status() != psutil.STATUS_ZOMBIE] == []
    assert len(family) >= 2
    ended = call("status", "toy.yaml", "--json", folder=tmp_path)
    told = json.loads(ended.stdout)
    assert told["finished"] is None
    assert told["open"]
    assert told["training"] == []
    training = training_folder(tmp_path / "toy.zarr.spool", "round1/train")
    write_progress(training, TrainingProgress("fine-tuning", 20, 100, 0.01))
    shown = call("status", "toy.yaml", folder=tmp_path).stdout
    assert "fine-tuning 20 of 100, loss 0.01" in shown


# --- in this process -----------------------------------------------------------------


@pytest.mark.usefixtures("figures")
def test_a_run_with_controls_ends_with_table_report_and_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_toy(tmp_path)
    out = said(capsys, "run", path, "--controls")
    assert "generation 3" in out
    assert "standard training" in out
    assert "random selection" in out
    assert "the budget of expensive labels is spent" in out
    assert (tmp_path / "toy.html").read_text().startswith("<!doctype html>")
    log = (tmp_path / "toy.log").read_text().splitlines()
    told = said(capsys, "log", path).splitlines()
    assert len(log) == len(told)
    controls = tmp_path / "toy.controls"
    assert sorted(x.name for x in controls.glob("*.log")) == [
        "random.log",
        "standard.log",
    ]
    assert "campaign opened" in log[0]


def test_a_finished_campaign_goes_on_when_its_budget_is_raised(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied(done, tmp_path, budget={"cheap": 40, "expensive": 18})
    said(capsys, "run", path, "--quiet")
    told = json.loads(said(capsys, "status", path, "--json"))
    assert told["labels"]["expensive"]["used"] == 18
    assert "changed" in said(capsys, "log", path)


def test_resume_needs_nothing_but_the_store(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied(done, tmp_path).unlink()
    out = said(capsys, "resume", tmp_path / "toy.zarr", "--quiet")
    assert "the budget of expensive labels is spent" in out


def test_a_store_with_another_seed_start_or_level_is_refused(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = [{"molecule": "CO"}]
    cheap = {"kind": "toy", "stiffness": 0.9, "stretch": 0.02}
    levels = {"cheap": cheap, "expensive": {"kind": "toy", "offset": 1.0}}
    path = copied(done, tmp_path, seed=8, start=start, levels=levels)
    for verb in ("run", "check"):
        err = refused(capsys, verb, path)
        for word in ("seed is 7, not 8", "expensive level", "starts from H2O"):
            assert word in err


def test_status_is_for_people_and_for_scripts(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads(said(capsys, "status", done.with_name("toy.zarr"), "--json"))
    assert told["labels"]["cheap"]["budget"] == 36
    assert told["generation"] == 3
    text = said(capsys, "status", done)
    assert "finished: the budget of expensive labels is spent" in text
    assert f"{told['labels']['cheap']['used']} of 36 cheap labels" in text


def test_why_tells_a_frames_story_by_the_beginning_of_its_id(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = alloop.Campaign.from_yaml(done).history()
    frame = history.trained()[-1].evaluation.frames[0]
    assert "validation set" in said(capsys, "why", done, frame[:12])
    assert "fits no frame" in refused(capsys, "why", done, "xyz")


def test_log_shows_the_last_lines(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = said(capsys, "log", done).splitlines()
    assert said(capsys, "log", done, "--last", "2").splitlines() == everything[-2:]


@pytest.mark.usefixtures("figures")
def test_the_report_goes_where_it_is_asked_to(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "report", done, "--out", tmp_path / "r.html")
    assert "<svg" in (tmp_path / "r.html").read_text()
    refused(capsys, "report", done, "--out", tmp_path / "no" / "r.html")


def test_labels_and_models_are_exported(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "export", done, tmp_path / "x.extxyz", "--level", "cheap")
    both = tmp_path / "both.xyz"
    out = said(capsys, "export", done, both, "--level", "both", "--split", "all")
    assert "both-cheap.xyz" in out
    assert "both-expensive.xyz" in out
    frames = ase.io.read(tmp_path / "x.extxyz", index=":")
    assert {atoms.info["config_type"] for atoms in frames} == {"cheap"}
    said(capsys, "export", done, "--model", tmp_path / "m.alloop", "--at", "1")
    atoms = frames[0].copy()
    atoms.calc = alloop.load(tmp_path / "m.alloop").calculator()
    assert atoms.get_forces() == pytest.approx(frames[0].arrays["REF_forces"], abs=3)
    err = refused(capsys, "export", done)
    assert "either OUT or --model FILE" in err
    assert "there are: 1, 2, 3" in refused(
        capsys, "export", done, "--model", tmp_path / "n.model", "--at", "9"
    )


def test_an_exported_model_begins_another_campaign(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "export", done, "--model", tmp_path / "m.alloop")
    budget, seeds = {"cheap": 12, "expensive": 4}, {"cheap": 8, "expensive": 4}
    path = write_toy(
        tmp_path,
        potential={"kind": "file", "path": "m.alloop"},
        budget=budget,
        seeds=seeds,
    )
    setup = load_campaign(path)
    assert setup.model == (tmp_path / "m.alloop").read_bytes()
    said(capsys, "run", path, "--quiet")
    (tmp_path / "m.alloop").unlink()
    said(capsys, "resume", tmp_path / "toy.zarr", "--quiet")


def test_a_store_lends_its_labels_and_its_test_set(done: Path, tmp_path: Path) -> None:
    store = str(done.with_name("toy.zarr"))
    path = write_toy(tmp_path, start=[{"store": store}], validation={"store": store})
    setup = load_campaign(path)
    counts = {(item.fidelity, item.test): 0 for item in setup.given}
    for item in setup.given:
        counts[item.fidelity, item.test] += 1
    assert counts == {
        ("cheap", False): 36,
        ("expensive", False): 14,
        ("expensive", True): 6,
    }


def test_a_frame_is_excluded_by_hand(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied(done, tmp_path)
    state = alloop.Campaign.from_yaml(path).history().state
    frame = state.labels.trained_on("expensive")[0]
    out = said(capsys, "exclude", path, frame[:10], "--reason", "odd")
    assert frame in out
    after = alloop.Campaign.from_yaml(path).history().state
    assert frame not in after.labels.trained_on("expensive")
    assert "excluded" in said(capsys, "why", path, frame)
    assert "expected a reason" in refused(capsys, "exclude", path, frame)


def test_an_exclusion_by_hand_is_undone(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied(done, tmp_path)
    before = alloop.Campaign.from_yaml(path).history().state
    frame = before.labels.trained_on("expensive")[0]
    refused(capsys, "exclude", path, frame, "--undo")
    said(capsys, "exclude", path, frame, "--reason", "odd", "--level", "expensive")
    err = refused(capsys, "exclude", path, frame, "--undo", "--level", "cheap")
    assert "is excluded at expensive" in err
    assert frame in said(capsys, "exclude", path, frame[:10], "--undo")
    after = alloop.Campaign.from_yaml(path).history().state
    assert after.labels.excluded == frozenset()
    assert after.labels.trained_on("expensive") == before.labels.trained_on("expensive")
    assert "was undone by hand" in said(capsys, "why", path, frame)
    assert "no longer excluded" in said(capsys, "log", path, "--last", "1")


def test_check_shows_what_will_happen(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(capsys, "check", toy)
    for word in ("H2O", "toy 0.9/0.02", "36 cheap, 14 expensive", "(new)", "is ok"):
        assert word in out
    assert [path.name for path in toy.parent.iterdir()] == ["toy.yaml"]


def test_plan_prices_labels_in_a_child(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(capsys, "plan", toy)
    assert "of CPU (" in out
    assert "at least" in out
    assert "on 1 core" in out
    assert "prices: from 2 labels made now" in out
    assert re.search(r"training: 3 generations, .* of CPU \(.* made now", out)
    assert re.search(r"MD: 2 rounds of 4 walkers .* of CPU \(.* made now", out)
    assert "MB for toy" in out
    controls = re.search(
        r"controls \(`alloop run --controls`\), not included above: (.*) of CPU for "
        r"labels, .* takes (\d+) expensive ones; (.*) for training and MD, at most",
        out,
    )
    assert controls is not None
    assert int(controls[2]) > 14  # those that the cheap labels cost
    bare = said(capsys, "plan", toy, "--no-measure")
    assert "training: 3 generations, not priced; it is measured once" in bare
    assert [path.name for path in toy.parent.iterdir()] == ["toy.yaml"]


def test_a_network_is_priced_from_a_few_steps(tmp_path: Path) -> None:
    network = {"kind": "painn", "channels": 8, "layers": 1}
    setup = load_campaign(write_toy(tmp_path, potential=network))
    training, md = work_prices(setup, True, lambda _text: None)
    assert training.each is not None, training.source
    assert training.each > 0.0
    assert md.each is not None
    assert md.each > 0.0
    unknown, _ = work_prices(setup, False, lambda _text: None)
    assert unknown.each is None


def test_planning_a_campaign_that_has_begun_costs_no_label(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(capsys, "plan", done)
    assert "labels of the store; range" in out
    assert "made now" not in out
    assert said(capsys, "plan", done, "--no-measure") == out
    assert "training: 3 generations, " in out
    assert "MD: 2 rounds of 4 walkers at 400 K over 40 steps, " in out
    assert "done already, and included above: 36 of 36 cheap and 14 of 14" in out


def test_plan_takes_prices_from_a_label_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_toy(tmp_path, cache="cache")
    setup = load_campaign(path)
    (start,) = setup.start
    for level in setup.levels.values():
        price = Label(start.id, level.id, 0.0, np.zeros((3, 3)), 100.0)
        LabelCache(tmp_path / "cache").put(price)
    out = said(capsys, "plan", path)
    assert "prices: from 2 labels of the label cache" in out
    assert " 100 " in out


def test_plan_says_which_level_gives_no_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    emt = {"kind": "ase", "calculator": "ase.calculators.emt.EMT"}
    path = write_toy(
        tmp_path,
        start=[{"molecule": "SiH4"}],
        levels={"cheap": {"kind": "toy"}, "expensive": emt},
    )
    out = said(capsys, "plan", path)
    assert "not priced" in out
    assert "EMT gives no label of H4Si" in out


def test_plan_counts_labels_that_are_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = {
        "cheap": {"kind": "toy", "stiffness": 0.9, "recheck": 0.0},
        "expensive": {"kind": "toy", "recheck": 0.25},
    }
    path = write_toy(tmp_path, levels=levels)
    out = said(capsys, "plan", path, "--no-measure")
    (line,) = [line for line in out.splitlines() if "made again" in line]
    assert line.split()[4] == "5"  # a quarter of 14 and 6


@pytest.mark.slow
def test_plan_extrapolates_what_would_take_long_to_measure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    triples = {"kind": "pyscf", "method": "ccsd(t)", "basis": "6-31g"}
    path = write_toy(
        tmp_path,
        start=[{"molecule": "C6H6"}],
        levels={"cheap": {"kind": "toy"}, "expensive": triples},
    )
    out = said(capsys, "plan", path)
    assert "CCSD(T)/6-31G of C6H6: not measured, extrapolated from H2O" in out
    assert "above `limits: label_memory`" in out


@pytest.mark.parametrize("example", ["water", "methanol", "toy"])
def test_init_writes_a_campaign_that_is_right(
    example: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    said(capsys, "init", "mine", "--example", example)
    assert load_campaign("mine.yaml").name == "mine"
    before = (tmp_path / "mine.yaml").read_text()
    assert "mine.yaml exists already" in refused(capsys, "init", "mine")
    assert (tmp_path / "mine.yaml").read_text() == before
    assert "expected a name of letters" in refused(capsys, "init", "my water")


def test_init_writes_a_campaign_for_a_structure_of_the_users_own(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    ase.io.write("my water.xyz", ase.build.molecule("H2O"))
    structure = ("--from", "my water.xyz", "--cheap", "b3lyp/def2-svp")
    state = ("--charge", "1", "--multiplicity", "2")
    levels = ("--expensive", "ccsd(t)/cc-pvdz")
    out = said(capsys, "init", "ion", *structure, *levels, *state)
    assert out == "wrote ion.yaml; next: alloop check ion.yaml\n"
    setup = load_campaign("ion.yaml")
    titles = [level.title for level in setup.levels.values()]
    assert titles == ["B3LYP/def2-SVP", "CCSD(T)/cc-pVDZ"]
    (ion,) = setup.start
    assert (ion.charge, ion.spin) == (1, 1)
    assert np.allclose(ion.positions, ase.io.read("my water.xyz").positions)

    wrong = refused(capsys, "init", "bad", *structure, "--charge", "1")
    assert "9 electrons need an odd spin" in wrong
    assert "did you mean 'b3lyp'" in refused(
        capsys, "init", "bad", *structure[:2], "--cheap", "b3lpy/def2-svp"
    )
    assert "expected --from FILE" in refused(capsys, "init", "bad", "--spin", "1")
    assert "no.xyz is not there" in refused(capsys, "init", "bad", "--from", "no.xyz")
    assert not Path("bad.yaml").exists()


def test_doctor_looks_at_machine_and_store(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(capsys, "doctor")
    assert "PySCF label in a child process works" in out
    for package in ("tblite", "dask-jobqueue", "chgnet", "dscribe", "torchani"):
        assert package in out
    assert "ruff" not in out
    path = copied(done, tmp_path)
    assert "is undamaged" in said(capsys, "doctor", path)
    record = max((tmp_path / "toy.zarr/journal").rglob("*"), key=_size)
    record.write_bytes(record.read_bytes()[:-4] + b"xxxx")
    assert "record" in refused(capsys, "doctor", path, code=DAMAGED)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "version").strip() == f"alloop {alloop.__version__}"


def test_what_is_not_there_is_told_with_the_nearest_name(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("run", "check", "status", "resume"):
        err = refused(capsys, verb, toy.with_name("tou.yaml"))
        assert f"did you mean `{toy}`?" in err
    assert "has no store yet" in refused(capsys, "status", toy)
    assert "is not an alloop store" in refused(capsys, "status", toy.parent)


def test_a_store_of_a_newer_format_is_refused(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied(done, tmp_path)
    node = tmp_path / "toy.zarr/zarr.json"
    tree = json.loads(node.read_text())
    tree["attributes"]["alloop_format"] += 1
    node.write_text(json.dumps(tree))
    for verb in ("run", "status", "doctor"):
        assert "upgrade alloop" in refused(capsys, verb, path)


def test_a_second_driver_is_refused_in_one_sentence(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from alloop.history.reader import CODEC
    from alloop.store.archive import Archive

    path = copied(done, tmp_path)
    with Archive.open(tmp_path / "toy.zarr", CODEC, mode="w"):
        err = refused(capsys, "run", path, "--quiet")
    assert len(err.strip().splitlines()) == 1
    assert "is in use by process" in err


def test_an_unknown_command_is_told_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "status" in refused(capsys, "statsu")


def test_the_exit_codes_stand_in_help_and_on_the_pages(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = exit_codes_text()
    help_text = " ".join(said(capsys, "--help").split())
    assert text.replace("`", "") in help_text.replace("`", "")
    for name in ("README.md", "docs/guide/resuming.md"):
        page = Path(alloop.__file__).parents[1] / name
        assert text.rstrip(".") in " ".join(page.read_text().split())
