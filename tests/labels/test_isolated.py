import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.levels import Level, make_level
from alloop.core.records import Failure, Label, Unlabelled
from alloop.core.roles import Labeller
from alloop.labels.child.labeller import IsolatedLabeller, LabelChild, Limits
from alloop.labels.child.messages import label_request
from alloop.labels.child.process import ChildEnded, ChildRemains, exit_cause
from alloop.labels.direct import DirectLabeller
from alloop.labels.levels import pyscf_level
from alloop.labels.toy import toy_level
from tests.labels.label_faults import faulty_level

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
from alloop.labels.result import Result

def look_around(frame, settings):
    heavy = [name for name in ("torch", "pyscf") if name in sys.modules]
    threads = os.environ["OMP_NUM_THREADS"]
    details = {"heavy": " ".join(heavy), "threads": threads, "cwd": os.getcwd()}
    details["files"] = len(os.listdir())
    return Result(0.0, np.zeros((len(frame), 3)), details)
"""


def test_both_ways_to_a_labeller_give_the_same_label(water: Frame) -> None:
    toy = toy_level()
    direct = DirectLabeller(toy)
    assert isinstance(direct, DirectLabeller)
    with IsolatedLabeller(toy, LONG) as isolated:
        assert isinstance(isolated, Labeller)
        a, b = direct.label(water), isolated.label(water)
    assert a.energy == b.energy
    assert a.forces.tobytes() == b.forces.tobytes()


def test_the_child_has_no_torch_and_one_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, water: Frame
) -> None:
    (tmp_path / "my_program.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)
    ours = make_level("my_program:look_around", {})
    with LabelChild(LONG) as fresh:
        assert isinstance(
            fresh.labeller(pyscf_level("ccsd(t)", "sto-3g")).label(water), Label
        )
        label = fresh.labeller(ours).label(water)
    assert label.details["heavy"] == "pyscf"
    assert label.details["threads"] == "1"
    assert label.details["cwd"] != str(Path.cwd())
    assert label.details["files"] == 0


def test_one_child_serves_several_levels(child: LabelChild, water: Frame) -> None:
    first = IsolatedLabeller(toy_level(), child=child)
    second = first.labeller(toy_level(stretch=0.02))
    assert first.label(water).level == first.level.id
    pid = child.pid
    assert second.label(water).level == second.level.id
    assert child.pid == pid


def test_what_a_library_prints_does_not_reach_the_answer(
    child: LabelChild, water: Frame
) -> None:
    noisy = child.labeller(faulty_level("noise")).label(water)
    quiet = child.labeller(toy_level()).label(water)
    assert noisy.energy == quiet.energy


def test_a_crash_names_its_signal_and_the_next_label_is_fine(water: Frame) -> None:
    with LabelChild(LONG) as fragile:
        outcome = fragile.labeller(faulty_level("segv")).label(water)
        assert isinstance(outcome, Unlabelled)
        assert outcome.failure is Failure.CRASHED
        assert "SIGSEGV" in outcome.message
        assert "faults.py" in outcome.message  # where it happened
        assert isinstance(fragile.labeller(toy_level()).label(water), Label)


def test_a_bug_in_a_program_is_a_crash_with_its_traceback(water: Frame) -> None:
    with LabelChild(LONG) as fragile:
        outcome = fragile.labeller(faulty_level("bug")).label(water)
    assert isinstance(outcome, Unlabelled)
    assert outcome.failure is Failure.CRASHED
    assert "AssertionError: a bug in a program" in outcome.message


def test_a_child_that_dies_between_two_labels_is_replaced(water: Frame) -> None:
    with LabelChild(LONG) as fragile:
        fragile.labeller(toy_level()).label(water)
        first = fragile.pid
        os.kill(first, signal.SIGKILL)
        assert ended(first)
        assert isinstance(fragile.labeller(toy_level()).label(water), Label)
        assert fragile.pid != first


@pytest.mark.parametrize("slow_level", [faulty_level("hang"), toy_level(burn=60.0)])
def test_a_label_that_takes_too_long_is_killed(water: Frame, slow_level: Level) -> None:
    with LabelChild(Limits(seconds=0.3)) as slow:
        slow.labeller(toy_level()).label(water)
        pid = slow.pid
        outcome = slow.labeller(slow_level).label(water)
        assert isinstance(outcome, Unlabelled)
        assert outcome.failure is Failure.TIMEOUT
        assert outcome.cpu_seconds < 10.0
        assert not running(pid)
        assert isinstance(slow.labeller(toy_level()).label(water), Label)


def test_a_memory_hog_is_killed(water: Frame) -> None:
    with LabelChild(Limits(seconds=60.0, memory_mb=300.0)) as hungry:
        outcome = hungry.labeller(faulty_level("hog")).label(water)
        assert isinstance(outcome, Unlabelled)
        assert outcome.failure is Failure.MEMORY
        assert "300 MB" in outcome.message
        assert isinstance(hungry.labeller(toy_level()).label(water), Label)


def test_an_interrupted_question_leaves_no_answer_to_the_next(water: Frame) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    usual = signal.signal(signal.SIGALRM, interrupt)
    try:
        with LabelChild(LONG) as shared:
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
    with LabelChild(LONG) as fresh:
        label = fresh.labeller(pyscf_level("hf", "sto-3g")).label(hydrogen)
    assert isinstance(label, Label)


def test_a_child_is_replaced_after_so_many_labels(water: Frame) -> None:
    with LabelChild(Limits(seconds=60.0, labels=2)) as shortlived:
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
        with LabelChild(LONG) as beside:
            beside.labeller(toy_level()).label(water)
            assert len(list(tmp_path.iterdir())) == 2
        assert set(tmp_path.iterdir()) == orphan
        parent.kill()
    assert ended(pid)
    with LabelChild(LONG) as later:
        later.labeller(toy_level()).label(water)
        assert not orphan & set(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


def test_a_child_survives_the_thread_that_first_asked(water: Frame) -> None:
    with LabelChild(LONG) as shared:
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


def test_frames_larger_than_a_pipe_arrive(child: LabelChild) -> None:
    side = np.arange(12.0) * 2.0
    grid = np.stack(np.meshgrid(side, side, side), axis=-1).reshape(-1, 3)
    many = Frame(np.full(len(grid), 1), grid)  # 1728 atoms, 55 kB of numbers and places
    beside = grid + np.array([60.0, 0.0, 0.0])
    twice = Frame(np.full(2 * len(grid), 1), np.concatenate([grid, beside]))
    for frame in (many, twice):
        gate = make_level(
            "pyscf", {**pyscf_level("hf", "x").settings, "program": "none 0"}
        )
        outcome = child.labeller(gate).label(frame)
        assert isinstance(outcome, Unlabelled)
        assert outcome.failure is Failure.UNSUPPORTED


def test_an_unknown_kind_is_unsupported_in_the_child(
    child: LabelChild, water: Frame
) -> None:
    strange = child.labeller(make_level("gaussian", {}))
    outcome = strange.label(water)
    assert isinstance(outcome, Unlabelled)
    assert outcome.failure is Failure.UNSUPPORTED
    assert "or the path" in outcome.message
    assert len(strange.problems(["H"])) == 1


def test_an_unknown_kind_is_an_input_error_in_this_process(water: Frame) -> None:
    with pytest.raises(InputError, match="or the path"):
        DirectLabeller(make_level("gaussian", {})).label(water)


DAEMON = """
import multiprocessing
import numpy as np
from alloop.core.frame import Frame
from alloop.labels.child.labeller import LabelChild, Limits
from alloop.labels.toy import toy_level
frame = Frame(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 0.8]]))
shared = LabelChild(Limits())

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
from alloop.labels.child.labeller import LabelChild, Limits
from alloop.labels.toy import toy_level
from tests.labels.label_faults import faulty_level
frame = Frame(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 0.8]]))
child = LabelChild(Limits())
child.labeller(toy_level()).label(frame)
print(child.pid, flush=True)
if sys.argv[1] == "busy":
    child.labeller(faulty_level("hang")).label(frame)
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
def test_where_there_is_no_death_signal_the_supervisor_looks_for_its_parent() -> None:
    watcher = (
        "import os, time; from alloop.labels.child.supervisor import follow_worker;"
        "follow_worker(os.getppid(), 0.05, by_signal=False);"
        "print(os.getpid(), flush=True);"
        "time.sleep(600)"
    )
    script = (
        "import subprocess, sys;"
        f"subprocess.Popen([sys.executable, '-c', {watcher!r}]).wait(600)"
    )
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-c", script]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, text=True)
    with parent:
        pid = int(parent.stdout.readline())
        assert running(pid)
        parent.kill()
    assert ended(pid)


def grandchildren(pid: int) -> list[int]:
    return [p.pid for p in psutil.Process(pid).children(recursive=True)]


def test_a_daemon_of_a_program_ends_with_the_child(water: Frame) -> None:
    with LabelChild(LONG) as fertile:
        fertile.labeller(faulty_level("daemon")).label(water)
        family = grandchildren(fertile.pid)
        assert len(family) == 2  # the child, and the daemon in a session of its own
    assert all(ended(pid) for pid in family)


BEARER = """
import sys, time
import numpy as np
from alloop.core.frame import Frame
from alloop.labels.child.labeller import LabelChild, Limits
from tests.labels.label_faults import faulty_level
frame = Frame(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 0.8]]))
child = LabelChild(Limits())
child.labeller(faulty_level("daemon")).label(frame)
print(child.pid, flush=True)
child.labeller(faulty_level("hang")).label(frame)
"""


@linux_only
def test_a_daemon_of_a_program_does_not_outlive_a_killed_worker() -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", BEARER], stdout=subprocess.PIPE, text=True
    )
    with worker:
        pid = int(worker.stdout.readline())
        family = [pid, *grandchildren(pid)]
        assert len(family) == 3
        worker.kill()
    assert all(ended(pid) for pid in family)


@linux_only
def test_a_supervisor_that_is_killed_takes_the_child_along(water: Frame) -> None:
    with LabelChild(LONG) as shared:
        shared.labeller(toy_level()).label(water)
        (child,) = grandchildren(shared.pid)
        os.kill(shared.pid, signal.SIGKILL)
        assert ended(child)
        assert isinstance(shared.labeller(toy_level()).label(water), Label)


# Dies at its second label in one process, or at each.
FRAGILE = """
import os
import numpy as np
from alloop.labels.result import Result

made = []

def label(frame, settings):
    made.append(frame)
    if len(made) > settings["good"]:
        os.abort()
    return Result(0.0, np.zeros((len(frame), 3)))
"""


def test_a_crash_of_a_worn_child_is_believed_only_from_a_fresh_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, water: Frame
) -> None:
    (tmp_path / "fragile.py").write_text(FRAGILE)
    monkeypatch.syspath_prepend(tmp_path)
    with LabelChild(LONG) as shared:
        wears = shared.labeller(
            make_level("fragile:label", {"good": 1, "gate": {"slope": 0.0}})
        )
        assert isinstance(wears.label(water), Label)
        first = shared.pid
        assert isinstance(wears.label(water), Label)
        assert shared.pid != first
        always = shared.labeller(
            make_level("fragile:label", {"good": 0, "gate": {"slope": 0.0}})
        )
        outcome = always.label(water)
    assert isinstance(outcome, Unlabelled)
    assert outcome.failure is Failure.CRASHED
    assert "SIGABRT" in outcome.message


def test_a_child_that_cannot_start_is_a_crash_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, water: Frame
) -> None:
    broken = tmp_path / "python"
    for text, words in (("", "could not be started"), ("#!/bin/sh\nexit 7\n", "7")):
        broken.write_text(text)
        broken.chmod(0o755 if text else 0o644)
        with monkeypatch.context() as patched, LabelChild(LONG) as unborn:
            patched.setattr(sys, "executable", str(broken))
            outcome = unborn.labeller(toy_level()).label(water)
        assert isinstance(outcome, Unlabelled)
        assert outcome.failure is Failure.CRASHED
        assert words in outcome.message


def test_a_scratch_folder_that_is_not_there_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, water: Frame
) -> None:
    monkeypatch.setenv("PYSCF_TMPDIR", str(tmp_path / "nowhere"))
    with LabelChild(LONG) as unborn:
        outcome = unborn.labeller(toy_level()).label(water)
    assert isinstance(outcome, Unlabelled)
    assert "nowhere" in outcome.message


@linux_only
@pytest.mark.parametrize("room", [100_000, 300_000, 900_000])
def test_coupled_cluster_on_a_full_disk_gives_no_label(room: int, water: Frame) -> None:
    # HDF5 reports some failed writes to nobody: PySCF then reads zeros.
    with LabelChild(LONG) as cramped:
        cramped.labeller(pyscf_level("hf", "sto-3g")).label(water)
        (child,) = grandchildren(cramped.pid)
        resource.prlimit(child, resource.RLIMIT_FSIZE, (room, room))
        outcome = cramped.labeller(pyscf_level("ccsd(t)", "cc-pvdz")).label(water)
    assert isinstance(outcome, Unlabelled), outcome
    assert outcome.failure is Failure.DISK


@pytest.mark.parametrize(
    ("remains", "failure", "words"),
    [
        (ChildRemains(128 + 11), Failure.CRASHED, "SIGSEGV"),
        (ChildRemains(3, ["Error: no"]), Failure.CRASHED, "exit code 3 | Error: no"),
        (ChildRemains(128 + 9, [], 100.0, 8000.0), Failure.CRASHED, "from outside"),
        (ChildRemains(128 + 9, [], 7500.0, 8000.0), Failure.MEMORY, "near the limit"),
        (
            ChildRemains(128 + 9, [], 100.0, 8000.0, oom=1),
            Failure.MEMORY,
            "by the kernel",
        ),
        (
            ChildRemains(1, ["OSError: No space left on device"]),
            Failure.DISK,
            "No space",
        ),
    ],
)
def test_what_is_left_of_a_child_tells_why_it_died(
    remains: ChildRemains, failure: Failure, words: str
) -> None:
    found, message = exit_cause(remains)
    assert found is failure
    assert words in message


@linux_only
def test_the_kernel_s_own_kill_for_memory_is_told_from_others(water: Frame) -> None:
    group = Path("/sys/fs/cgroup/memory/alloop-test")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("300000000")
    except OSError:
        pytest.skip("needs the right to make a memory cgroup (v1)")
    try:
        with LabelChild(LONG) as capped:
            capped.labeller(toy_level()).label(water)
            (child,) = grandchildren(capped.pid)
            (group / "cgroup.procs").write_text(str(child))
            message = capped._held[os.getpid()].exchange  # of this child, no other
            with pytest.raises(ChildEnded) as caught:
                message(label_request(faulty_level("hog"), water))
    finally:
        group.rmdir()
    assert caught.value.failure is Failure.MEMORY
    assert "by the kernel" in caught.value.message
