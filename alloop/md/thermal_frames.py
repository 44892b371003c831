"""First frames without data: thermal samples of the normal modes of a minimum."""

from dataclasses import replace

import numpy as np

from alloop.core.atoms import frame_masses
from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.units import BOLTZMANN, FORCE_TO_ACCELERATION, Floats
from alloop.md.contacts import closest_contact
from alloop.md.integrate import maxwell_boltzmann
from alloop.md.normal_modes import (
    NormalModes,
    angular_frequency,
    normal_modes,
    numerical_hessian,
)
from alloop.md.relax import relax_frame

__all__ = [
    "NormalModes",
    "harmonic_frames",
    "normal_modes",
    "numerical_hessian",
    "rattled_frames",
    "relax_frame",
    "thermal_walkers",
]

_SOFTEST = 150.0  # cm⁻¹; softer and imaginary modes are sampled as if they had this
_FARTHEST = 0.4  # Å; straight displacements of more would stretch bonds that turn
_CLOSEST = 0.65  # of the summed covalent radii, or of the minimum's closest contact


def harmonic_frames(
    frame: Frame,
    modes: NormalModes,
    temperature: float,
    count: int,
    rng: np.random.Generator,
    cap: float = _FARTHEST,
) -> tuple[Frame, ...]:
    """Return frames around a minimum, each mode with k_B T/2 of mean potential energy.

    Classical: Q ~ N(0, k_B T/ω²). Displacements are shortened where an atom would move
    by more than `cap` Å or where atoms would collide.
    """
    spread = _mode_amplitudes(modes, temperature)  # (modes,) Å √amu
    weights = np.sqrt(frame_masses(frame.numbers))[:, None]
    drawn = spread * rng.standard_normal((count, len(spread)))
    moves = np.einsum("cm,max->cax", drawn, modes.vectors) / weights
    return tuple(_displaced_frame(frame, _capped_move(move, cap)) for move in moves)


def rattled_frames(
    frame: Frame, sigma: float, count: int, rng: np.random.Generator
) -> tuple[Frame, ...]:
    """Return frames displaced by N(0, sigma) Å a coordinate; atoms never collide."""
    moves = sigma * rng.standard_normal((count, len(frame), 3))
    return tuple(_displaced_frame(frame, move) for move in moves)


def thermal_walkers(  # noqa: PLR0913 - a harmonic sample and the walkers' numbers
    frame: Frame,
    modes: NormalModes,
    temperature: float,
    count: int,
    rng: np.random.Generator,
    *,
    molecule: int = 0,
    first_index: int = 0,
) -> tuple[Walker, ...]:
    """Return walkers in thermal equilibrium at `temperature` K.

    Positions are drawn from the modes, taken as harmonic, velocities from the
    Maxwell-Boltzmann distribution.
    """
    frames = harmonic_frames(frame, modes, temperature, count, rng)
    return tuple(
        Walker(
            index=first_index + number,
            molecule=molecule,
            frame=start,
            velocities=maxwell_boltzmann(start, temperature, rng),
        )
        for number, start in enumerate(frames)
    )


def _mode_amplitudes(modes: NormalModes, temperature: float) -> Floats:
    """Return √(k_B T)/ω of each mode (modes,) in Å √amu, with a lower limit on ω."""
    squares = np.maximum(modes.squares, angular_frequency(_SOFTEST) ** 2)  # 1/fs²
    out: Floats = np.sqrt(BOLTZMANN * temperature * FORCE_TO_ACCELERATION / squares)
    return out


def _capped_move(move: Floats, cap: float) -> Floats:
    longest = float(np.sqrt((move**2).sum(axis=1)).max())
    return move * min(1.0, cap / max(longest, 1e-12))


def _displaced_frame(frame: Frame, move: Floats) -> Frame:
    """Return the frame displaced by `move`, halved while atoms would collide."""
    closest = min(_CLOSEST, 0.9 * closest_contact(frame))
    moved = replace(frame, positions=frame.positions + move)
    while closest_contact(moved) < closest:
        move = 0.5 * move
        moved = replace(frame, positions=frame.positions + move)
    return moved
