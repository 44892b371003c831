"""Free energies along collective variables, from hills, from weights and from windows.

All in eV, 0 at their minimum. From the hills of well-tempered metadynamics
F = -γ/(γ - 1) V (Barducci, Bussi & Parrinello, Phys. Rev. Lett. 100, 020603 (2008)),
which fluctuates by about the height of the last hills; from values that MD visited
under a bias that stands, exactly but for the statistics; from windows by MBAR (Shirts &
Chodera, J. Chem. Phys. 129, 124105 (2008)), `pip install 'alloop[free-energy]'`.
"""

import warnings
from collections.abc import Sequence

import numpy as np

from alloop.core.errors import InputError
from alloop.core.units import BOLTZMANN, Floats, Integers
from alloop.md.biases import Hills
from alloop.md.collective_variables import nearest_difference


def hills_free_energy(
    hills: Hills,
    points: Floats,
    factor: float,
    *,
    periods: Sequence[float],
    molecule: int = 0,
) -> Floats:
    """Return F (points,) in eV at points (points, variables), from hills of numpy.

    factor: the bias factor with which the hills were made, by walkers at one
    temperature. periods: of the variables, 0 without.
    """
    everywhere = np.broadcast_to(np.asarray(periods, dtype=float), points.shape)
    molecules = np.full(len(points), molecule)
    bias, _ = hills.evaluate(points, molecules, everywhere)
    free: Floats = -factor / (factor - 1.0) * bias
    return free - float(free.min())


def weighted_free_energy(
    values: Floats, logarithms: Floats, edges: Floats, temperature: float
) -> Floats:
    """Return F (bins,) in eV between edges (bins + 1,), inf where nothing fell.

    values (frames,): of a variable; logarithms (frames,): of the frames' weights, such
    as the bias over k_B T under which each was visited. temperature in K.
    """
    weights = np.exp(logarithms - logarithms.max())
    sums, _ = np.histogram(values, edges, weights=weights)
    with np.errstate(divide="ignore"):
        free: Floats = -BOLTZMANN * temperature * np.log(sums / np.diff(edges))
    return free - float(free.min())


def perturbation(differences: Floats, logarithms: Floats, temperature: float) -> float:
    """Return the free energy of another surface less that of the sampled one, eV.

    differences (frames,): energies on the other surface less those on the sampled one,
    eV; logarithms (frames,): of the frames' weights, 0 of a plain sample; temperature
    in K. -kT ln of the mean of exp(-difference/kT) (Zwanzig, J. Chem. Phys. 22, 1420,
    1954): as certain as frames are that count on both surfaces.
    """
    thermal = BOLTZMANN * temperature
    mean = np.logaddexp.reduce(logarithms - differences / thermal)
    return float(-thermal * (mean - np.logaddexp.reduce(logarithms)))


def window_free_energy(  # noqa: PLR0913 - a sample, its windows and the bins
    values: Floats,
    windows: Integers,
    centres: Floats,
    stiffness: Floats,
    edges: Floats,
    *,
    temperature: float,
    period: float = 0.0,
) -> Floats:
    """Return F (bins,) in eV of harmonic windows in one variable, by MBAR.

    values and windows (frames,): the variable, and the index of the window in which MD
    visited it; frames should be as good as independent, or F is as uncertain as fewer.
    centres and stiffness (windows,), as in `HarmonicWindows`; edges (bins + 1,);
    temperature in K. InputError where pymbar is missing.
    """
    order = np.argsort(windows, kind="stable")  # pymbar wants window after window
    values, counts = values[order], np.bincount(windows, minlength=len(centres))
    off = nearest_difference(values - centres[:, None], np.array(period))
    reduced = 0.5 * stiffness[:, None] * off**2 / (BOLTZMANN * temperature)
    offsets = _window_offsets(reduced, counts)
    populated = counts > 0
    terms = (offsets + np.log(np.maximum(counts, 1)))[:, None] - reduced
    mixture = np.logaddexp.reduce(terms[populated], axis=0)
    return weighted_free_energy(values, -mixture, edges, temperature)


def _window_offsets(reduced: Floats, counts: Integers) -> Floats:
    """Return the reduced free energies of the windows (windows,) of MBAR."""
    try:
        from pymbar import MBAR
    except ImportError:
        raise InputError(
            "expected pymbar for free energies of windows, which is not installed; pip "
            "install 'alloop[free-energy]'"
        ) from None
    with warnings.catch_warnings():
        # pymbar 4.0 hands scipy options that its solver lacks, which scipy tells.
        warnings.filterwarnings("ignore", message="Unknown solver options")
        offsets: Floats = MBAR(reduced, counts).f_k
    return offsets
