"""The bias of generations against labels, in the report."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from alloop.history.examination import labels_of_test
from alloop.history.reader import History
from alloop.report.analysis.explorations import read_explorations
from alloop.report.sections.generation_sections import (
    GenerationBias,
    generation_biases,
    residual_figure,
    residual_section,
)


def test_a_shift_of_energies_and_a_factor_of_forces_are_found(
    finished: History, remade: Callable[..., History]
) -> None:
    seq, trained = finished.generations[0]
    labels = labels_of_test(finished, trained)
    assert labels is not None
    assert trained.evaluation is not None
    biased = replace(
        trained.evaluation,
        energies=labels.energies - 0.02 * labels.batch.sizes,
        forces=0.9 * labels.forces,
    )
    entries = list(finished.entries)
    turn = replace(entries[seq].turn, event=replace(trained, evaluation=biased))
    entries[seq] = replace(entries[seq], turn=turn)
    found, *_ = generation_biases(remade(entries))
    assert found.frames == len(labels)
    assert found.energy == pytest.approx(-0.02)
    assert found.energy_spread == pytest.approx(0.0, abs=1e-9)
    assert found.force_scale == pytest.approx(0.9)


def test_the_section_shows_each_generation(finished: History) -> None:
    section = residual_section(finished, read_explorations(finished))
    assert "Protocol of fine-tuning: periodic" in section.body
    found = generation_biases(finished)
    assert len(found) == len(finished.generations)
    assert all(np.isfinite([x.energy, x.force_scale]).all() for x in found)
    assert f"{1e3 * found[-1].energy:.0f}"[:2] in section.body


@pytest.mark.usefixtures("figures")
def test_the_figure_is_drawn() -> None:
    found = [GenerationBias(n, 5, -0.01 / n, 0.002, 1.0 - 0.1 / n) for n in (1, 2, 3)]
    assert "<svg" in residual_figure(found)
