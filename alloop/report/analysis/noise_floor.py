"""The noise of the labels beside the error of the model. Pure functions.

A label's noise is its change when it is made again at tighter settings, with the frame
turned at random.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from alloop.core.frame import FrameId
from alloop.core.records import Noise
from alloop.history.reader import History
from alloop.report.analysis.summary_facts import generation_facts, level_title
from alloop.report.text.formatting import milli_text, plural, tiny_text

FEW = 10  # rechecked labels below which the noise is only an order of magnitude
_CLOSE = 3.0  # times the noise: smaller model errors are limited by it


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """The noise of the labels of one fidelity.

    n: labels that were made again; lost: those that could not be. Energies in eV
    (absolute differences), forces in eV/Å: rms over all components, max the largest.
    error: the last generation's test force RMSE, energy_error its energy MAE; None
    where it was not tested.
    """

    fidelity: str
    title: str
    n: int
    lost: int
    energy_median: float
    energy_max: float
    force_rms: float
    force_max: float
    error: float | None
    energy_error: float | None

    @property
    def sentence(self) -> str:
        """The meaning of the noise for the model's error, in words."""
        if not self.n:
            return (
                f"None of {plural(self.lost, f'{self.fidelity} label')} could be made "
                "again: their noise is not known."
            )
        return f"{self._meaning}{self._doubt}"

    @property
    def _meaning(self) -> str:
        who = f"{self.fidelity} labels"
        if self.error is None:
            noise = f"{tiny_text(self.force_rms)} meV/Å in forces (RMS)"
            return f"The {who}' own noise is {noise}; the model was not tested."
        if self.error < _CLOSE * self.force_rms:
            return (
                f"The model's error in forces is within {_CLOSE:g} times of the noise "
                f"of its {who} ({milli_text(self.error)} against "
                f"{milli_text(self.force_rms)} "
                "meV/Å): better labels before more labels."
            )
        part = _share_text(self.error, self.force_rms)
        return f"The {who}' own noise is {part} of the model's error in forces."

    @property
    def _doubt(self) -> str:
        few = plural(self.n, "label")
        rough = f" Only {few} rechecked: take the order of magnitude." * (self.n < FEW)
        again = f" {plural(self.lost, 'label')} could not be made again."
        return rough + again * (self.lost > 0)


def _share_text(error: float, noise: float) -> str:
    if error >= 1000 * noise:
        return "less than a thousandth"
    times = float(f"{error / noise:.2g}")
    return f"1/{times:.0f}"


def noise_floors(history: History) -> tuple[NoiseFloor, ...]:
    """Return the noise of each fidelity with rechecked labels, cheap first."""
    last = generation_facts(history)[-1:]
    errors = last[0].force_rmse if last else None, last[0].energy_mae if last else None
    out = []
    for fidelity, level in sorted(history.state.levels.items()):
        found = [x.noise for x in history.rechecked() if x.noise.level == level]
        if found:
            out.append(
                _noise_floor(fidelity, level_title(history, fidelity), found, errors)
            )
    return tuple(out)


def _noise_floor(
    fidelity: str,
    name: str,
    found: Sequence[Noise],
    errors: tuple[float | None, float | None],
) -> NoiseFloor:
    good = [noise for noise in found if noise.failure is None]
    energies = [noise.energy for noise in good] or [float("nan")]
    squares = [noise.force_rms**2 for noise in good] or [float("nan")]
    return NoiseFloor(
        fidelity=fidelity,
        title=name,
        n=len(good),
        lost=len(found) - len(good),
        energy_median=median(energies),
        energy_max=max(energies),
        force_rms=float(np.sqrt(np.mean(squares))),
        force_max=max((noise.force_max for noise in good), default=float("nan")),
        error=errors[0],
        energy_error=errors[1],
    )


def noise_by_label(history: History) -> dict[tuple[str, FrameId], Noise]:
    """Return the result of making labels again, by level id and frame."""
    found = (x.noise for x in history.rechecked())
    return {(noise.level, noise.frame): noise for noise in found}
