"""A label made again: tighter settings, molecule turned."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from alloop.core.frame import Frame
from alloop.core.levels import Level, make_level
from alloop.core.records import Failure, Label
from alloop.core.seeds import random_stream
from alloop.labels.direct import DirectLabeller
from alloop.labels.pyscf.level import pyscf_level
from alloop.labels.recheck import recheck_label, tighter_level
from alloop.labels.result import Refused, Result
from alloop.labels.toy import toy_level
from alloop.labels.xtb import xtb_level

WATER = Frame(
    np.array([8, 1, 1]),
    np.array([[0.1, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.79, -0.45]]),
)
FIELD = make_level(f"{__name__}:in_a_field", {"field": 0.3})


def in_a_field(frame: Frame, settings: Mapping[str, Any]) -> Result:
    """A force along z on every atom: not the same for a turned molecule."""
    if settings["field"] > 1:
        raise Refused(Failure.NOT_CONVERGED, "too strong")
    forces = np.zeros((len(frame), 3))
    forces[:, 2] = settings["field"] * np.array([1.0, -0.5, -0.5])[: len(frame)]
    return Result(-float((forces * frame.positions).sum()), forces)


@dataclass(frozen=True)
class Ungated:
    """Labels without the gate, which would see that the field is not a molecule's."""

    level: Level

    def label(self, frame: Frame) -> Label:
        found = in_a_field(frame, self.level.settings)
        return Label(frame.id, self.level.id, found.energy, found.forces, 0.5)


def again(loose: Level, frame: Frame = WATER, name: str = "recheck"):
    label = DirectLabeller(loose).label(frame)
    assert isinstance(label, Label)
    return recheck_label(
        frame, label, DirectLabeller(tighter_level(loose)), random_stream(7, name)
    )


def test_an_exact_level_moves_by_no_more_than_positions_are_rounded() -> None:
    noise = again(toy_level())
    assert noise.failure is None
    assert noise.energy < 1e-6
    assert noise.force_rms <= noise.force_max < 1e-6


def test_what_depends_on_direction_moves() -> None:
    label = Ungated(FIELD).label(WATER)
    noise = recheck_label(WATER, label, Ungated(FIELD), random_stream(7, "a"))
    assert noise.force_max > 0.05
    assert noise.energy > 0.01
    assert noise.cpu_seconds == 0.5
    other = recheck_label(WATER, label, Ungated(FIELD), random_stream(7, "b"))
    assert other.force_max != noise.force_max


def test_a_frame_with_a_cell_is_not_turned() -> None:
    cell = replace(WATER, cell=10 * np.eye(3), pbc=(True, True, True))
    noise = recheck_label(
        cell, Ungated(FIELD).label(cell), Ungated(FIELD), random_stream(7, "a")
    )
    assert (noise.energy, noise.force_max) == (0.0, 0.0)


def test_turns_are_proper_and_the_same_for_the_same_name() -> None:
    @dataclass
    class Seen:
        frames: list[Frame]

        def label(self, frame: Frame) -> Label:
            self.frames.append(frame)
            return Label(frame.id, "x", 0.0, np.zeros((len(frame), 3)))

    corner = Frame(np.array([6, 1, 1, 8]), np.array([[0, 0, 0], *np.eye(3)]))
    seen = Seen([])
    for name in ("a", "a", "b"):
        recheck_label(corner, seen.label(corner), seen, random_stream(7, name))
    one, same, other = seen.frames[1::2]
    assert one.id == same.id != other.id
    arms = one.positions[1:] - one.positions[0]  # those of the corner are the axes
    np.testing.assert_allclose(arms @ arms.T, np.eye(3), atol=5e-8)
    assert np.linalg.det(arms) > 0
    assert not np.allclose(arms, np.eye(3), atol=0.01)
    means = [x.positions.mean(axis=0) for x in (corner, one)]
    np.testing.assert_allclose(*means, atol=2e-8)


def test_a_second_label_that_fails_says_why() -> None:
    strong = make_level(FIELD.kind, {"field": 2.0})
    label = Ungated(FIELD).label(WATER)
    noise = recheck_label(WATER, label, DirectLabeller(strong), random_stream(7, "a"))
    assert noise.failure is Failure.NOT_CONVERGED
    assert np.isnan(noise.force_max)


@pytest.mark.parametrize(
    ("loose", "most"),
    [
        (pyscf_level("hf", "sto-3g"), 5e-3),
        (pyscf_level("lda", "sto-3g", grid=1), 0.2),
    ],
    ids=["hf", "lda on a coarse grid"],
)
def test_real_labels_have_a_small_noise_that_a_coarse_grid_makes_large(
    loose: Level, most: float
) -> None:
    noise = again(loose)
    assert noise.failure is None
    assert noise.level == loose.id
    assert 1e-9 < noise.force_rms <= noise.force_max < most
    if loose.settings["method"] == "lda":
        assert noise.force_max > 1e-4


def test_kinds_without_known_settings_stay_as_they_are() -> None:
    assert tighter_level(toy_level()) == toy_level()
    xtb = xtb_level("gfn2-xtb")
    assert tighter_level(xtb).settings["accuracy"] == xtb.settings["accuracy"] / 10
    assert tighter_level(xtb).id != xtb.id
    hf = pyscf_level("hf", "sto-3g")
    assert tighter_level(hf).settings["conv_tol"] < hf.settings["conv_tol"]
