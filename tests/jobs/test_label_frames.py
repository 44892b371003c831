"""Many frames at one level: nothing twice, nothing lost, whatever happens."""

from pathlib import Path

import numpy as np
import psutil
import pytest

from alloop.core.errors import StoreError
from alloop.core.frame import Frame
from alloop.core.records import Failure, Label, Unlabelled
from alloop.jobs.label_frames import LabelProgress, label_frames
from alloop.labels.child.labeller import Limits
from alloop.labels.direct import DirectLabeller
from alloop.labels.toy import toy_level
from alloop.store.cache import LabelCache
from tests.labels.label_faults import faulty_level


def shaken(frame: Frame, count: int) -> list[Frame]:
    rng = np.random.default_rng(3)
    moved = (
        frame.positions + rng.normal(0, 0.03, (len(frame), 3)) for _ in range(count)
    )
    return [Frame(frame.numbers, positions) for positions in moved]


def children() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def test_labels_come_in_order_and_equal_frames_are_labelled_once(water: Frame) -> None:
    level, frames = toy_level(), shaken(water, 4)
    asked = [*frames, frames[1], frames[1]]
    seen: list[LabelProgress] = []
    records = label_frames(asked, level, workers=2, observe=seen.append)
    for frame, record in zip(asked, records, strict=True):
        alone = DirectLabeller(level).label(frame)
        assert isinstance(record, Label)
        assert isinstance(alone, Label)
        assert (record.frame, record.energy) == (frame.id, alone.energy)
        np.testing.assert_array_equal(record.forces, alone.forces)
    assert (seen[-1].frames, seen[-1].made, seen[-1].left) == (4, 4, 0.0)
    assert seen[-1].cpu_seconds == pytest.approx(
        sum(r.cpu_seconds for r in records[:4])
    )


def test_what_the_cache_knows_is_not_made_again(water: Frame, tmp_path: Path) -> None:
    level, frames = toy_level(), shaken(water, 4)
    first = label_frames(frames[:3], level, workers=1, cache=tmp_path)
    seen: list[LabelProgress] = []
    second = label_frames(
        frames, level, workers=1, cache=LabelCache(tmp_path), observe=seen.append
    )
    assert (seen[-1].known, seen[-1].made) == (3, 1)
    for one, two in zip(first, second[:3], strict=True):
        assert one.cpu_seconds == two.cpu_seconds  # the very same labels


def test_failures_have_their_places_and_only_lasting_ones_are_remembered(
    water: Frame, tmp_path: Path
) -> None:
    far = Frame(water.numbers, water.positions * 3.0)
    picky, hanging = toy_level(fail_above=2.0), faulty_level("hang")
    records = label_frames([water, far], picky, workers=1, cache=tmp_path)
    assert isinstance(records[0], Label)
    assert isinstance(records[1], Unlabelled)
    assert records[1].failure is Failure.NOT_CONVERGED
    limits = Limits(seconds=0.2)
    late = label_frames([water], hanging, workers=1, limits=limits, cache=tmp_path)
    assert isinstance(late[0], Unlabelled)
    assert late[0].failure is Failure.TIMEOUT
    cache = LabelCache(tmp_path)
    assert cache.get(picky.id, far.id) is not None
    assert cache.get(hanging.id, water.id) is None


def test_a_dying_child_costs_its_frame_only(water: Frame) -> None:
    records = label_frames(shaken(water, 2), faulty_level("segv"), workers=1)
    reasons = [record.failure for record in records if isinstance(record, Unlabelled)]
    assert reasons == [Failure.CRASHED] * 2


def test_whoever_stops_looking_ends_the_children(water: Frame, tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def observe(progress: LabelProgress) -> None:
        if progress.seconds > 1.0:
            raise Enough

    before, hanging = children(), faulty_level("hang")
    with pytest.raises(Enough):
        label_frames(
            *(shaken(water, 4), hanging), workers=2, cache=tmp_path, observe=observe
        )
    assert children() <= before
    for frame in shaken(water, 4):  # what we killed is no answer
        assert LabelCache(tmp_path).get(hanging.id, frame.id) is None


def test_a_cache_that_cannot_be_written_ends_the_run(
    water: Frame, tmp_path: Path
) -> None:
    before, blocked = children(), tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.raises(StoreError):
        label_frames(shaken(water, 3), toy_level(), workers=2, cache=blocked / "labels")
    assert children() <= before


def test_no_frames_are_no_labels() -> None:
    assert label_frames([], toy_level()) == []
