"""Single commands are killed, or the disk fails, at each of their changes of a folder.

The processes, the kills and the errors of system calls are real.
"""

import errno
import os
import sys
import tarfile
from collections.abc import Iterator

import pytest

from benchmarks.durability.command_trials import (
    CASES,
    KILL,
    PRELUDE,
    CommandCase,
    FaultServer,
    Scene,
    build_library,
    build_template,
    command_trials,
)
from tests.store.test_golden import GOLDEN

pytestmark = [
    pytest.mark.usefixtures("uncovered"),
    pytest.mark.skipif(sys.platform != "linux", reason="system calls of Linux"),
]
# Calls that ended badly once: between the two files of an export, in the first piece of
# MD and while a database is written, before the list of what a repair lost.
SAMPLE = {
    "export e-cheap.xyz": (KILL, (5, 8)),
    "md w.traj": (KILL, (7,)),
    "md w.db": (errno.EIO, (60,)),
    "doctor f.zarr": (KILL, (-8, -1)),
    "init new.yaml": (KILL, (1, 5)),
    "fork f.zarr": (errno.EIO, (50,)),
    "exclude old.zarr": (errno.EROFS, (3,)),
}
ERRORS = {x: getattr(errno, x) for x in ("EIO", "ENOSPC", "EROFS", "EACCES")}


def name(case: CommandCase) -> str:
    return f"{case.arguments[0]} {case.outputs[0]}"


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("commands")
    library = build_library(folder)
    if library is None:
        pytest.skip("there is no C compiler")
    with tarfile.open(GOLDEN / "format3.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    template = folder / "template"
    chosen = {item.name for item in request.session.items}
    whole = any("at_each" in each for each in chosen)
    build_template(template, folder / "format3.zarr", network=whole)
    server = FaultServer(library, PRELUDE)
    yield Scene(template, folder, server)
    server.close()


@pytest.mark.parametrize("case", [x for x in CASES if name(x) in SAMPLE], ids=name)
def test_a_command_that_was_hit_once_is_repeated_with_the_same_result(
    scene: Scene, case: CommandCase
) -> None:
    error, numbers = SAMPLE[name(case)]
    found = list(command_trials(scene, case, error, numbers=numbers))
    assert [(x.place, x.problem) for x in found if x.problem] == []
    assert len(found) == len(numbers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "lasting"),
    [(KILL, False), *((code, True) for code in ERRORS.values()), (errno.EIO, False)],
    ids=["killed", *(f"{x} from then on" for x in ERRORS), "EIO once"],
)
@pytest.mark.parametrize("case", CASES, ids=name)
def test_a_command_that_is_hit_at_each_change_is_repeated_with_the_same_result(
    scene: Scene, case: CommandCase, error: int, lasting: bool
) -> None:
    """ALLOOP_FAULT_STEP: only each so manyth change."""
    step = int(os.environ.get("ALLOOP_FAULT_STEP", "1"))
    numbers = range(0, 10_000, step)
    found = list(command_trials(scene, case, error, lasting=lasting, numbers=numbers))
    assert [(x.place, x.problem) for x in found if x.problem] == []
    assert len(found) >= (1 if step > 1 else 4)
