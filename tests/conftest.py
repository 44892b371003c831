"""A campaign that ends in a second: toy levels, a least-squares potential."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from coverage import Coverage
from hypothesis import settings
from markupsafe import Markup

from alloop.loop import events as e
from alloop.loop.reducer import next_state
from alloop.loop.state import LoopState
from alloop.report.sections import (
    descriptor_map,
    error_sections,
    generation_sections,
    run_sections,
    shift_report,
    side_by_side,
    surprise_sections,
)

DRAWN = (descriptor_map, error_sections, generation_sections, run_sections)
DRAWN += (shift_report, side_by_side, surprise_sections)

# Before torch is imported: threads of several test processes wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TOY = """
name: toy
seed: 7
start: [{molecule: H2O}]
levels:
  cheap: {kind: toy, stiffness: 0.9, stretch: 0.02}
  expensive: {kind: toy}
validation: {frames: 6, temperature: 400, each: 2, spacing: 5, examination: 0}
seeds: {cheap: 16, expensive: 6, temperature: 400}
explore: {walkers: 4, batch: 2, steps: 40, piece: 20, stride: 5, temperature: 400,
  shapes: null}
potential: {kind: pairwise}
training: {kind: asteroid, bias: plain, every: 4}
budget: {cheap: 36, expensive: 14}
cluster: {kind: inline}
limits: {isolate: false}
store: toy.zarr
"""

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

# Arguments of a Dask cluster that nobody else can enter, on ports that are free.
LOCAL = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}


def write_toy(folder: Path, **changes: object) -> Path:
    """Write the toy campaign, with top-level keys replaced, and return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = {**yaml.safe_load(TOY), **changes}
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def skip_without(package: str) -> None:
    """Skip a test whose package is not installed; nothing is imported."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def wait_for(
    condition: Callable[[], object], seconds: float = 60.0, pause: float = 0.02
) -> None:
    """Wait until the condition is true; fail if it is not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(pause)


def replay(turns: Iterable[e.Turn], state: LoopState | None = None) -> LoopState:
    """Return the state that a journal's turns lead to."""
    start = LoopState() if state is None else state
    return reduce(
        lambda s, turn: next_state(s, turn.event, turn.commands), turns, start
    )


@pytest.fixture(scope="session", autouse=True)
def _private_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is left in the home of whoever runs the tests."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session", autouse=True)
def _coverage_here() -> None:
    """Coverage leaves alone what tests start: it would take a third longer."""
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


@pytest.fixture(scope="module")
def uncovered() -> Iterator[None]:
    """Coverage rests: these tests repeat one campaign many times, at half the pace."""
    running = Coverage.current()
    if running is not None:
        running.stop()
    yield
    if running is not None:
        running.start()


@pytest.fixture
def figures() -> None:
    """Figures are drawn in the reports of this test."""


@pytest.fixture(autouse=True)
def _blank_figures(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leave the figures of reports blank: they take longer than a toy campaign."""
    if "figures" not in request.fixturenames:
        for module in DRAWN:
            monkeypatch.setattr(module, "draw_svg", lambda *_, **__: Markup("<svg/>"))


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """The toy campaign's file."""
    return write_toy(tmp_path)
