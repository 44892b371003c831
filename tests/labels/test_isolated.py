import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.levels import level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.core.roles import Labeller
from alloop.labels.direct import DirectLabeller
from alloop.labels.isolated import Child, IsolatedLabeller, Limits
from alloop.labels.levels import pyscf_level
from alloop.labels.open import labeller
from alloop.labels.toy import toy_level

LONG = Limits(seconds=120.0)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def running(pid: int) -> bool:
    """Whether the process exists and is more than a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def ended(pid: int, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not running(pid)


# A user's own kind of label: it tells what its process is like.
PROGRAM = """
import os, sys
import numpy as np
from alloop.labels.outcome import Result

def look_around(frame, settings):
    heavy = [name for name in ("torch", "pyscf") if name in sys.modules]
    threads = os.environ["OMP_NUM_THREADS"]
    details = {"heavy": " ".join(heavy), "threads": threads, "cwd": os.getcwd()}
    return Result(0.0, np.zeros((len(frame), 3)), details)
"""


def test_both_ways_to_a_labeller_give_the_same_label(water: Frame) -> None:
    toy = toy_level()
    direct = labeller(toy, isolate=False)
    assert isinstance(direct, DirectLabeller)
    with labeller(toy, LONG) as isolated:
        assert isinstance(isolated, Labeller)
        a, b = direct.label(water), isolated.label(water)
    assert a.energy == b.energy
    assert a.forces.tobytes() == b.forces.tobytes()


def test_the_child_has_no_torch_and_one_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, water: Frame
) -> None:
    (tmp_path / "my_program.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)
    ours = level("my_program:look_around", {})
    with Child(LONG) as fresh:
        assert isinstance(
            fresh.labeller(pyscf_level("ccsd(t)", "sto-3g")).label(water), Label
        )
        label = fresh.labeller(ours).label(water)
    assert label.details["heavy"] == "pyscf"
    assert label.details["threads"] == "1"
    assert label.details["cwd"] == str(Path.cwd())


def test_one_child_serves_several_levels(child: Child, water: Frame) -> None:
    first = IsolatedLabeller(toy_level(), child=child)
    second = first.labeller(toy_level(stretch=0.02))
    assert first.label(water).level == first.level.id
    pid = child.pid
    assert second.label(water).level == second.level.id
    assert child.pid == pid


def test_what_a_library_prints_does_not_reach_the_answer(
    child: Child, water: Frame
) -> None:
    noisy = child.labeller(toy_level(fault="noise")).label(water)
    quiet = child.labeller(toy_level()).label(water)
    assert noisy.energy == quiet.energy


def test_a_crash_names_its_signal_and_the_next_label_is_fine(water: Frame) -> None:
    with Child(LONG) as fragile:
        outcome = fragile.labeller(toy_level(fault="segv")).label(water)
        assert isinstance(outcome, Unlabelled)
        assert outcome.failure is Failure.CRASHED
        assert "SIGSEGV" in outcome.message
        assert "toy.py" in outcome.message  # where it happened
        assert isinstance(fragile.labeller(toy_level()).label(water), Label)


def test_a_bug_in_a_program_is_a_crash_with_its_traceback(water: Frame) -> None:
    with Child(LONG) as fragile:
        outcome = fragile.labeller(toy_level(fault="bug")).label(water)
    assert isinstance(outcome, Unlabelled)
    assert outcome.failure is Failure.CRASHED
    assert "AssertionError: a bug in a program" in outcome.message


def test_a_child_that_dies_between_two_labels_is_replaced(water: Frame) -> None:
    with Child(LONG) as fragile:
        fragile.labeller(toy_level()).label(water)
        first = fragile.pid
        os.kill(first, signal.SIGKILL)
        assert ended(first)
        assert isinstance(fragile.labeller(toy_level()).label(water), Label)
        assert fragile.pid != first


@pytest.mark.parametrize("trouble", [{"fault": "hang"}, {"burn": 60.0}])
def test_a_label_that_takes_too_long_is_killed(water: Frame, trouble: dict) -> None:
    with Child(Limits(seconds=0.3)) as slow:
        slow.labeller(toy_level()).label(water)
        pid = slow.pid
        outcome = slow.labeller(toy_level(**trouble)).label(water)
        assert isinstance(outcome, Unlabelled)
        assert outcome.failure is Failure.TIMEOUT
        assert outcome.cpu_seconds < 10.0
        assert not running(pid)
        assert isinstance(slow.labeller(toy_level()).label(water), Label)


def test_a_memory_hog_is_killed(water: Frame) -> None:
    with Child(Limits(seconds=60.0, memory_mb=300.0)) as hungry:
        outcome = hungry.labeller(toy_level(fault="hog")).label(water)
        assert isinstance(outcome, Unlabelled)
        assert outcome.failure is Failure.MEMORY
        assert "300 MB" in outcome.message
        assert isinstance(hungry.labeller(toy_level()).label(water), Label)


def test_an_interrupted_question_leaves_no_answer_to_the_next(water: Frame) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    usual = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Child(LONG) as shared:
            expected = shared.labeller(toy_level()).label(water).energy
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                shared.labeller(toy_level(burn=1.0, offset=1.0)).label(water)
            assert shared.labeller(toy_level()).label(water).energy == expected
    finally:
        signal.signal(signal.SIGALRM, usual)


def test_a_user_s_pyscf_configuration_does_not_change_labels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hydrogen: Frame
) -> None:
    (tmp_path / ".pyscf_conf.py").write_text("raise SystemExit('a user was here')")
    monkeypatch.setenv("HOME", str(tmp_path))
    with Child(LONG) as fresh:
        label = fresh.labeller(pyscf_level("hf", "sto-3g")).label(hydrogen)
    assert isinstance(label, Label)


def test_a_child_is_replaced_after_so_many_labels(water: Frame) -> None:
    with Child(Limits(seconds=60.0, labels=2)) as shortlived:
        pids = []
        for _ in range(4):
            shortlived.labeller(toy_level()).label(water)
            pids.append(shortlived.pid)
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert all(ended(pid) for pid in pids)


def test_closing_ends_the_child_and_removes_its_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, water: Frame
) -> None:
    monkeypatch.setenv("PYSCF_TMPDIR", str(tmp_path))
    isolated = IsolatedLabeller(toy_level(), LONG)
    isolated.label(water)
    pid = isolated.child.pid
    assert list(tmp_path.iterdir())
    isolated.close()
    assert ended(pid)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_parent_is_swept_up_and_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, water: Frame
) -> None:
    monkeypatch.setenv("PYSCF_TMPDIR", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, "idle"], stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        orphan = set(tmp_path.iterdir())
        with Child(LONG) as beside:
            beside.labeller(toy_level()).label(water)
            assert len(list(tmp_path.iterdir())) == 2
        assert set(tmp_path.iterdir()) == orphan
        parent.kill()
    assert ended(pid)
    with Child(LONG) as later:
        later.labeller(toy_level()).label(water)
        assert not orphan & set(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


def test_a_child_survives_the_thread_that_first_asked(water: Frame) -> None:
    with Child(LONG) as shared:
        answers: list[object] = []

        def ask() -> None:
            answers.append(shared.labeller(toy_level()).label(water))

        pids = []
        for _ in range(2):
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
            pids.append(shared.pid)
    assert pids[0] == pids[1] is not None
    assert all(isinstance(answer, Label) for answer in answers)


def test_frames_larger_than_a_pipe_arrive(child: Child) -> None:
    side = np.arange(12.0) * 2.0
    grid = np.stack(np.meshgrid(side, side, side), axis=-1).reshape(-1, 3)
    many = Frame(np.full(len(grid), 1), grid)  # 1728 atoms, 55 kB of numbers and places
    beside = grid + np.array([60.0, 0.0, 0.0])
    twice = Frame(np.full(2 * len(grid), 1), np.concatenate([grid, beside]))
    for frame in (many, twice):
        gate = level("pyscf", {**pyscf_level("hf", "x").settings, "program": "none 0"})
        outcome = child.labeller(gate).label(frame)
        assert isinstance(outcome, Unlabelled)
        assert outcome.failure is Failure.UNSUPPORTED


def test_an_unknown_kind_is_unsupported_in_the_child(
    child: Child, water: Frame
) -> None:
    strange = child.labeller(level("gaussian", {}))
    outcome = strange.label(water)
    assert isinstance(outcome, Unlabelled)
    assert outcome.failure is Failure.UNSUPPORTED
    assert "or the path" in outcome.message
    assert len(strange.problems(["H"])) == 1


def test_an_unknown_kind_is_an_input_error_in_this_process(water: Frame) -> None:
    with pytest.raises(InputError, match="or the path"):
        DirectLabeller(level("gaussian", {})).label(water)


DAEMON = """
import multiprocessing
import numpy as np
from alloop.core.frame import Frame
from alloop.labels.isolated import Child, Limits
from alloop.labels.toy import toy_level
frame = Frame(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 0.8]]))
shared = Child(Limits())

def work():
    shared.labeller(toy_level()).label(frame)
    print(shared.pid, flush=True)
    shared.close()

work()
shared.labeller(toy_level()).label(frame)
mine = shared.pid
daemon = multiprocessing.get_context("fork").Process(target=work, daemon=True)
daemon.start()
daemon.join()
shared.labeller(toy_level()).label(frame)
assert shared.pid == mine
print(mine)
"""


def test_a_forked_daemon_starts_a_child_of_its_own() -> None:
    # Workers of Dask are daemons, which multiprocessing forbids to have children.
    done = subprocess.run(
        [sys.executable, "-c", DAEMON],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    pids = done.stdout.split()
    assert len(set(pids)) == 3
    assert all(ended(int(pid)) for pid in pids)


PARENT = """
import sys, time
import numpy as np
from alloop.core.frame import Frame
from alloop.labels.isolated import Child, Limits
from alloop.labels.toy import toy_level
frame = Frame(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 0.8]]))
child = Child(Limits())
child.labeller(toy_level()).label(frame)
print(child.pid, flush=True)
if sys.argv[1] == "busy":
    child.labeller(toy_level(fault="hang")).label(frame)
if sys.argv[1] == "idle":
    time.sleep(600)
"""


@linux_only
@pytest.mark.parametrize("state", ["busy", "idle"])
def test_no_child_outlives_a_killed_parent(state: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, state], stdout=subprocess.PIPE, text=True
    )
    with parent:
        pid = int(parent.stdout.readline())
        assert running(pid)
        parent.kill()
    assert ended(pid)


@linux_only
def test_no_child_outlives_a_parent_that_forgot_to_close_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARENT, "leave"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert ended(int(done.stdout))


@linux_only
def test_where_there_is_no_death_signal_the_child_watches_its_parent() -> None:
    watcher = (
        "import os; from alloop.labels.child import watch; p = os.getppid();"
        "print(os.getpid(), flush=True); watch(p, 0.05)"
    )
    script = (
        "import subprocess, sys;"
        f"subprocess.Popen([sys.executable, '-c', {watcher!r}]).wait(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    )
    with parent:
        pid = int(parent.stdout.readline())
        assert running(pid)
        parent.kill()
    assert ended(pid)
