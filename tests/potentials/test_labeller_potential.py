"""Labellers as potentials."""

from dataclasses import dataclass

import numpy as np
import pytest
from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Failure, Label, Unlabelled
from alloop.potentials.analytic import Morse
from alloop.potentials.labeller_potential import LabelFailed, LabellerPotential
from alloop.testing import check_potential

FRAMES = [from_atoms(molecule(name)) for name in ("H2O", "CH4", "NH3")]


@dataclass(frozen=True)
class MorseLabeller:
    """Morse energies as labels; refuses frames with more atoms than `largest`."""

    largest: int = 100

    def label(self, frame: Frame) -> Label | Unlabelled:
        if len(frame) > self.largest:
            return Unlabelled(frame.id, "morse", Failure.UNSUPPORTED)
        said = Morse().predict(pack_frames([frame]))
        return Label(frame.id, "morse", float(said.energies[0]), said.forces)


def test_it_predicts_the_labels_of_a_batch_in_order() -> None:
    said = LabellerPotential(MorseLabeller()).predict(pack_frames(FRAMES))
    expected = Morse().predict(pack_frames(FRAMES))
    np.testing.assert_array_equal(said.energies, expected.energies)
    np.testing.assert_array_equal(said.forces, expected.forces)


def test_it_keeps_the_laws_of_what_it_labels_with() -> None:
    oracle = LabellerPotential(MorseLabeller())
    check_potential(oracle, FRAMES, tolerance=1e-5, descriptors=False)


def test_a_frame_without_a_label_is_raised_with_its_reason() -> None:
    with pytest.raises(LabelFailed, match="UNSUPPORTED: this level cannot") as raised:
        LabellerPotential(MorseLabeller(largest=4)).predict(pack_frames(FRAMES))
    assert raised.value.unlabelled.frame == FRAMES[1].id


def test_it_has_no_descriptors() -> None:
    with pytest.raises(InputError, match="score with a learned potential"):
        LabellerPotential(MorseLabeller()).predict(
            pack_frames(FRAMES), descriptors=True
        )


def test_no_frames_give_no_predictions() -> None:
    said = LabellerPotential(MorseLabeller()).predict(pack_frames([]))
    assert said.energies.shape == (0,)
    assert said.forces.shape == (0, 3)
