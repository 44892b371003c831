"""The labels' own noise, beside the model's error, in honest words."""

from dataclasses import replace

import pytest

from alloop.core.records import Failure, Noise
from alloop.history.reader import JournalEntry
from alloop.loop import events as e
from alloop.report.analysis.label_quality import FEW, NoiseFloor, noise_floors
from alloop.report.text.summary import detail_lines


def _with(history, remade, *noises):
    """The history with these noises at its end."""
    late = history.entries[-1].time
    entries = [
        JournalEntry(
            len(history.entries) + i, late, e.Turn(e.Rechecked(_name(noise), noise))
        )
        for i, noise in enumerate(noises)
    ]
    return remade([*history.entries, *entries])


def _name(noise):
    return f"recheck/{noise.level}/{noise.frame}"


def _noises(history, n, rms, fidelity="expensive"):
    level = history.opened.levels[fidelity]
    frames = history.state.labels.trained_on(fidelity)[:n]
    return [Noise(x, level, rms / 10, rms, 2 * rms, 1.0) for x in frames]


def test_the_floor_of_a_level_is_that_of_its_rechecked_labels(finished, remade):
    level = finished.opened.levels["expensive"]
    found = [
        Noise("a" * 32, level, 1e-3, 3e-3, 8e-3),
        Noise("b" * 32, level, 5e-3, 4e-3, 9e-3),
        Noise("c" * 32, level, 2e-3, 0.0, 1e-3),
        Noise("d" * 32, level, failure=Failure.TIMEOUT),
    ]
    (floor,) = noise_floors(_with(finished, remade, *found))
    assert (floor.fidelity, floor.title) == ("expensive", "CCSD(T)/cc-pVDZ")
    assert (floor.n, floor.lost) == (3, 1)
    assert (floor.energy_median, floor.energy_max) == (2e-3, 5e-3)
    assert floor.force_rms == pytest.approx((25e-6 / 3) ** 0.5)
    assert floor.force_max == 9e-3
    assert floor.error == finished.trained()[-1].evaluation.force_rmse
    assert "1 label could not be made again." in floor.sentence


def test_a_campaign_without_rechecks_has_no_floor(finished):
    assert noise_floors(finished) == ()


@pytest.mark.parametrize(
    ("rms", "words"),
    [
        (15.64e-3 / 40, "The expensive labels' own noise is 1/40 of the model's error"),
        (1e-9, "labels' own noise is less than a thousandth of the model's error"),
        (8e-3, "within 3 times of the noise of its expensive labels (15.6 against 8 "),
        (0.1, "improve the labels before adding more"),
    ],
)
def test_the_noise_is_judged_by_the_models_error(finished, remade, rms, words):
    history = _with(finished, remade, *_noises(finished, FEW, rms))
    (floor,) = noise_floors(history)
    assert words in floor.sentence
    assert "Only" not in floor.sentence
    assert floor.sentence in detail_lines(history)


def test_few_rechecks_are_called_few(finished, remade):
    (floor,) = noise_floors(_with(finished, remade, *_noises(finished, 2, 1e-4)))
    assert floor.sentence.endswith(
        "Only 2 labels rechecked: this is an order of magnitude."
    )


def test_a_model_that_was_not_tested_cannot_be_compared(finished, remade):
    young = remade(list(finished.entries[:40]))
    noises = _noises(finished, 3, 2e-3)
    (floor,) = noise_floors(_with(young, remade, *noises))
    assert "own noise is 2 meV/Å in forces (RMS); the model was not" in floor.sentence


def test_labels_that_could_not_be_made_again_have_no_known_noise(finished, remade):
    lost = [
        replace(x, failure=Failure.NOT_CONVERGED) for x in _noises(finished, 2, 1e-4)
    ]
    (floor,) = noise_floors(_with(finished, remade, *lost))
    assert floor.sentence == (
        "None of 2 expensive labels could be made again: their noise is not known."
    )


def test_without_noise_the_sentence_still_stands():
    floor = NoiseFloor("cheap", "toy", FEW, 0, 0.0, 0.0, 0.0, 0.0, 0.01, 0.01)
    assert "less than a thousandth" in floor.sentence
