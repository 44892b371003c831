"""References: least squares over compositions, a constant where they are alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import LabelSet
from alloop.training.label_changes import (
    fit_references,
    level_references,
    reference_energies,
    without_references,
)

WATER, METHANOL, FORMALDEHYDE, METHANE = (
    [8, 1, 1],
    [6, 8, 1, 1, 1, 1],
    [6, 8, 1, 1],
    [6, 1, 1, 1, 1],
)


def labelled(molecules: list[list[int]], energies: list[float]) -> LabelSet:
    frames = [
        Frame(np.array(z), np.arange(3.0 * len(z)).reshape(-1, 3)) for z in molecules
    ]
    batch = pack_frames(frames)
    return LabelSet(batch, np.array(energies), np.zeros_like(batch.positions))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-2000.0, 0.0), min_size=3, max_size=3))
def test_atoms_that_add_up_are_found_again(atoms: list[float]) -> None:
    energy = dict(zip([1, 6, 8], atoms, strict=True))
    molecules = [WATER, METHANOL, FORMALDEHYDE, METHANE]
    labels = labelled(molecules, [sum(energy[z] for z in m) for m in molecules])
    found = fit_references(labels)
    assert list(found) == [1, 6, 8]
    np.testing.assert_allclose([found[z] for z in found], atoms, rtol=0, atol=1e-8)


def test_one_molecule_gives_one_constant_and_the_least_norm() -> None:
    labels = labelled([WATER, WATER], [-2039.0, -2041.0])
    found = fit_references(labels)
    np.testing.assert_allclose(found[1], 2.0 * found[8])  # along (2 H, 1 O)
    np.testing.assert_allclose(
        without_references(labels, found).energies, [1.0, -1.0], atol=1e-9
    )


def test_two_isomers_share_their_mean() -> None:
    dimethyl_ether = ethanol = [6, 6, 8, 1, 1, 1, 1, 1, 1]
    labels = labelled([ethanol, dimethyl_ether, WATER], [-10.0, -8.0, -3.0])
    rest = without_references(labels, fit_references(labels)).energies
    np.testing.assert_allclose(rest, [-1.0, 1.0, 0.0], atol=1e-9)


def test_given_references_are_taken_as_they_are() -> None:
    labels = labelled([WATER], [-100.0])
    given_ones = level_references(labels, {1: -13.6, 8: -70.0, 6: -1000.0})
    assert reference_energies(labels.batch, given_ones)[0] == pytest.approx(-97.2)
    assert without_references(labels, given_ones).energies[0] == pytest.approx(-2.8)


def test_an_element_without_a_given_reference_is_named() -> None:
    with pytest.raises(InputError, match="none for C, O"):
        level_references(labelled([METHANOL], [0.0]), {1: -13.6})


def test_no_labels_have_no_references() -> None:
    assert fit_references(labelled([], [])) == {}
