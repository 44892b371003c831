"""Infrared spectra of a molecule from MD on a model that has learned dipoles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.signal import find_peaks

from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.roles import DipolarPotential, Potential
from alloop.core.seeds import random_stream
from alloop.core.units import Floats
from alloop.md.dynamics import DynamicsSettings, run_dynamics
from alloop.md.frame_collector import ScoredFrames
from alloop.md.integrate import VelocityVerlet, maxwell_boltzmann
from alloop.md.spectra import InfraredSpectrum, infrared_spectrum

_SETTLING = 1000.0  # fs with a thermostat
_HIGHEST = 4500.0  # cm⁻¹ in a picture


@dataclass(frozen=True, slots=True)
class InfraredSettings:
    """MD for a spectrum: temperature K, times fs, width of the resolution cm⁻¹."""

    temperature: float = 300.0
    walkers: int = 32
    length: float = 10_000.0
    timestep: float = 0.5
    stride: int = 4
    width: float = 10.0
    seed: int = 0


def spectrum_of_dynamics(
    frame: Frame,
    potential: Potential,
    settings: InfraredSettings,
    observe: Callable[[float], None] | None = None,
) -> InfraredSpectrum:
    """Return the spectrum of a molecule by MD at constant energy after a thermostat.

    frame: near a minimum. observe is called with the share that is done. Raises
    InputError for a potential without dipoles, for a cell, and where a walker leaves
    what guard rails allow.
    """
    if not isinstance(potential, DipolarPotential):
        raise InputError(
            "expected a model that has learned dipoles, got one without; train it with "
            "`training: {dipoles: true}`"
        )
    if any(frame.pbc):
        raise InputError("expected a molecule for a spectrum, got a cell")
    rngs = [
        random_stream(settings.seed, f"infrared/{index}")
        for index in range(settings.walkers)
    ]
    walkers = [
        Walker(i, 0, frame, maxwell_boltzmann(frame, settings.temperature, rng))
        for i, rng in enumerate(rngs)
    ]
    hot = DynamicsSettings(
        temperature=settings.temperature,
        timestep=settings.timestep,
        stride=settings.stride,
    )
    settled = run_dynamics(
        walkers, potential, hot, round(_SETTLING / settings.timestep), rngs
    )
    steps = round(settings.length / settings.timestep)
    moments: list[Floats | None] = []

    def keep(scored: ScoredFrames) -> None:
        moments.append(potential.dipoles(scored.batch))
        if observe is not None:
            observe(scored.step / steps)

    calm = replace(hot, integrator=VelocityVerlet())
    moved = run_dynamics(
        settled.walkers, potential, calm, steps, rngs, observe=keep
    ).walkers
    _refuse_stopped(moved)
    spacing = settings.stride * settings.timestep
    return infrared_spectrum(
        np.array(moments), spacing, settings.temperature, settings.width
    )


def _refuse_stopped(walkers: Sequence[Walker]) -> None:
    stopped = [walker.stopped for walker in walkers if walker.stopped]
    if stopped:
        raise InputError(
            f"expected MD that stays near the minimum, {len(stopped)} of "
            f"{len(walkers)} walkers stopped ({stopped[0]}); lower the temperature, or "
            "train the model where they went"
        )


def band_positions(spectrum: InfraredSpectrum, share: float = 0.02) -> Floats:
    """Return the wavenumbers (bands,) of the peaks above a share of the highest one."""
    highest = spectrum.absorption.max()
    peaks, _ = find_peaks(spectrum.absorption, prominence=share * highest)
    out: Floats = spectrum.wavenumbers[peaks]
    return out


def draw_spectrum(spectrum: InfraredSpectrum, out: Path, kind: str) -> None:
    """Draw a spectrum up to 4500 cm⁻¹; kind: svg, png or pdf."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(spectrum.wavenumbers, spectrum.absorption, linewidth=1.0)
    axes.set(xlabel="wavenumber, cm⁻¹", ylabel="km/mol per cm⁻¹")
    axes.set_xlim(0.0, min(_HIGHEST, spectrum.wavenumbers[-1]))
    axes.set_ylim(bottom=0.0)
    figure.savefig(out, format=kind)
