"""A committee's disagreement by hand."""

from dataclasses import dataclass

import numpy as np
import pytest

from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.scores.committee import Committee


@dataclass(frozen=True)
class Along:
    """Pushes each atom along x by `force` times its atomic number."""

    force: float

    def predict(
        self,
        batch: Batch,
        *,
        descriptors: bool = False,  # noqa: ARG002
    ) -> Predictions:
        forces = np.zeros_like(batch.positions)
        forces[:, 0] = self.force * batch.numbers
        return Predictions(np.zeros(len(batch)), forces)


def test_surprise_is_the_largest_spread_of_an_atoms_force() -> None:
    batch = pack_frames(
        [Frame(np.array([1, 3]), np.eye(2, 3)), Frame(np.array([2]), np.zeros((1, 3)))]
    )
    committee = Committee((Along(1.0), Along(2.0)))
    first = Along(0.0).predict(batch)
    spread = np.sqrt(2.0 / 3.0)
    by_atom = committee.per_atom(batch, first.forces)
    np.testing.assert_allclose(by_atom, spread * np.array([1, 3, 2]))
    np.testing.assert_allclose(committee.score(batch, first), spread * np.array([3, 2]))


def test_members_that_agree_are_not_surprised() -> None:
    batch = pack_frames([Frame(np.array([1, 3]), np.eye(2, 3))])
    committee = Committee((Along(1.0), Along(1.0)))
    assert committee.score(batch, Along(1.0).predict(batch)) == pytest.approx(0.0)


def test_no_frames_have_no_surprise() -> None:
    none = pack_frames([])
    committee = Committee((Along(0.0), Along(1.0)))
    assert committee.score(none, Along(0.0).predict(none)).shape == (0,)


def test_one_member_is_no_committee() -> None:
    with pytest.raises(InputError, match="two potentials or more, got 1"):
        Committee(())
