"""SOAP descriptors in the place of a model's."""

import numpy as np
import pytest
from ase.build import molecule
from scipy.spatial.transform import Rotation

from alloop.core.atoms import from_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.roles import Potential
from alloop.generation import restore_scorer, scorer_name
from alloop.scores.leverage import LeverageScorer
from alloop.scores.qresidual import UNSEEN, QResidualScorer
from alloop.scores.soap import SoapDescriptors, SoapScorer, SoapSurprise

pytest.importorskip("dscribe", reason="dscribe is not installed: alloop[soap]")

RNG = np.random.default_rng(0)


def shaken(count: int, sigma: float) -> list[Frame]:
    found = []
    for _ in range(count):
        atoms = molecule("CH3OH")
        atoms.positions += sigma * RNG.standard_normal(atoms.positions.shape)
        found.append(from_atoms(atoms))
    return found


def nothing(batch: Batch) -> Predictions:
    return Predictions(np.zeros(len(batch)), np.zeros_like(batch.positions))


class NoPotential:
    def predict(
        self,
        batch: Batch,  # noqa: ARG002
        *,
        descriptors: bool = False,  # noqa: ARG002
    ) -> Predictions:
        raise AssertionError("SOAP asks no potential")


def fitted(scorer: LeverageScorer | QResidualScorer) -> SoapSurprise:
    def retrain(number: int, share: float = 1.0) -> Potential:
        raise AssertionError("SOAP trains nothing")

    return SoapScorer(scorer).fit(
        NoPotential(),
        pack_frames(shaken(40, 0.03)),
        pack_frames(shaken(20, 0.03)),
        retrain,
    )


def test_descriptors_do_not_change_with_orientation_and_place() -> None:
    frame = shaken(1, 0.1)[0]
    turn = Rotation.random(random_state=1).as_matrix()
    moved = Frame(frame.numbers, frame.positions @ turn.T + 3.0)
    soap = SoapDescriptors((1, 6, 8))
    one, other = (soap.describe(pack_frames([x])) for x in (frame, moved))
    np.testing.assert_allclose(one, other, atol=1e-6 * np.abs(one).max())


@pytest.mark.parametrize(
    "scorer", [LeverageScorer(), QResidualScorer(components=5)], ids=["leverage", "q"]
)
def test_distorted_frames_surprise_more_and_a_stored_scorer_says_the_same(
    scorer: LeverageScorer | QResidualScorer,
) -> None:
    own = fitted(scorer)
    usual, odd = pack_frames(shaken(10, 0.03)), pack_frames(shaken(10, 0.15))
    calm, wild = (own.score(batch, nothing(batch)) for batch in (usual, odd))
    assert wild.min() > calm.max()
    again = restore_scorer(scorer_name(own), own.arrays(), _no_model, None)
    np.testing.assert_array_equal(again.score(odd, nothing(odd)), wild)


def test_an_unseen_element_surprises_most() -> None:
    batch = pack_frames([*shaken(1, 0.03), from_atoms(molecule("NH3"))])
    surprise = fitted(LeverageScorer()).score(batch, nothing(batch))
    assert surprise[0] < 100 < surprise[1] == UNSEEN


def _no_model(data: bytes) -> Potential:
    raise AssertionError("SOAP restores no potential")
