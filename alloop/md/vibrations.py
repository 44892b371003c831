"""Vibrations of molecules: normal modes, infrared intensities, ideal-gas functions."""

import warnings
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from ase import units
from ase.thermochemistry import IdealGasThermo

from alloop.core.atoms import frame_masses, to_atoms
from alloop.core.frame import Frame
from alloop.core.roles import Potential
from alloop.core.units import Floats, Integers
from alloop.md.thermal_frames import NormalModes, normal_modes, numerical_derivatives

Geometry: TypeAlias = Literal["monatomic", "linear", "nonlinear"]

STEP = 0.005  # Å, of the differences of forces
_THIN = 0.01  # Å, root mean square distance from an axis of what counts as linear
_SAME = 0.1  # Å, within which a rotated molecule lies on itself
_WAVENUMBER = float(units.invcm)  # eV
_BAR = 1e5  # Pa
# (e²/amu) to km/mol, from N_A / (12 ε₀ c²) (∂μ/∂Q)²; 1 (D/Å)²/amu is 42.256 km/mol.
INTENSITY = (
    units._Nav / (12.0 * units._eps0 * units._c**2) * units._e**2 / units._amu / 1e3
)


@dataclass(frozen=True, slots=True, eq=False)
class Vibrations:
    """Harmonic vibrations of a frame.

    modes: translations and rotations left out; intensities (modes,) in km/mol, None
    without dipoles.
    """

    frame: Frame
    modes: NormalModes
    intensities: Floats | None

    @property
    def geometry(self) -> Geometry:
        """The kind of rotor: with no, two or three rotations."""
        if len(self.frame) == 1:
            return "monatomic"
        rotations = 3 * len(self.frame) - 3 - len(self.modes.squares)
        return "linear" if rotations == 2 else "nonlinear"

    @property
    def imaginary(self) -> int:
        """The number of imaginary modes."""
        return int((self.modes.squares < 0.0).sum())


@dataclass(frozen=True, slots=True)
class GasFunctions:
    """Rigid rotor and harmonic oscillator of an ideal gas: K, bar, eV and eV/K.

    zero_point: energy of the real modes; enthalpy and gibbs: with the potential energy.
    Imaginary modes are left out.
    """

    temperature: float
    pressure: float
    symmetry_number: int
    zero_point: float
    enthalpy: float
    entropy: float
    gibbs: float


def harmonic_vibrations(frame: Frame, potential: Potential) -> Vibrations:
    """Return the vibrations of a frame, which should be a stationary point.

    All displaced frames are one batch. A molecule that is linear but for what an
    optimiser leaves is made linear, else a rotation would count as a vibration.
    """
    frame = _straightened(frame)
    derivatives = numerical_derivatives(frame, potential, STEP)
    modes = normal_modes(frame, derivatives.hessian)
    intensities = None
    if derivatives.dipole is not None:
        roots = np.sqrt(frame_masses(frame.numbers))[:, None]
        flat = (modes.vectors / roots).reshape(len(modes.squares), -1)
        intensities = INTENSITY * ((flat @ derivatives.dipole) ** 2).sum(axis=1)
    return Vibrations(frame, modes, intensities)


def gas_functions(
    vibrations: Vibrations,
    energy: float,
    temperature: float,
    pressure: float,
    symmetry_number: int | None = None,
) -> GasFunctions:
    """Return the functions of state of an ideal gas, by ASE's IdealGasThermo.

    energy: of the frame, eV; temperature in K, pressure in bar; symmetry_number: by
    default that of the geometry.
    """
    frame = vibrations.frame
    number = symmetry_number or rotation_count(frame)
    real = vibrations.modes.wavenumbers[vibrations.modes.squares > 0.0] * _WAVENUMBER
    imaginary = [1e-3j] * vibrations.imaginary  # what ASE counts, and leaves out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of imaginary modes, which callers tell
        gas = IdealGasThermo(
            vib_energies=[*imaginary, *map(float, real)],
            geometry=vibrations.geometry,
            potentialenergy=energy,
            atoms=to_atoms(frame),
            symmetrynumber=number,
            spin=frame.spin / 2.0,
            ignore_imag_modes=True,
        )
    state = {"temperature": temperature, "pressure": pressure * _BAR, "verbose": False}
    enthalpy = float(gas.get_enthalpy(temperature, verbose=False))
    return GasFunctions(
        temperature=temperature,
        pressure=pressure,
        symmetry_number=number,
        zero_point=float(0.5 * real.sum()),
        enthalpy=enthalpy,
        entropy=float(gas.get_entropy(**state)),
        gibbs=float(gas.get_gibbs_energy(**state)),
    )


def rotation_count(frame: Frame) -> int:
    """Return the number of proper rotations that leave a molecule as it is.

    Each sends two atoms, not on one line with the centre, to two others at the same
    distances, which defines it. Atoms count as in place within 0.1 Å.
    """
    positions, numbers = _centred(frame), frame.numbers
    if len(frame) == 1:
        return 1
    if np.linalg.svd(positions, compute_uv=False)[1] < _limit(frame):
        return 2 if _falls_on_itself(-positions, positions, numbers) else 1
    first, second = _spanning_pair(positions)
    source = _axes(positions[first], positions[second])
    count = 0
    for a in np.flatnonzero(numbers == numbers[first]):
        for b in np.flatnonzero(numbers == numbers[second]):
            pair = positions[[a, b]]
            if a == b or not _congruent(pair, positions[[first, second]]):
                continue
            rotation = _axes(*pair) @ source.T
            count += _falls_on_itself(positions @ rotation.T, positions, numbers)
    return count


def _centred(frame: Frame) -> Floats:
    masses = frame_masses(frame.numbers)
    out: Floats = frame.positions - masses @ frame.positions / masses.sum()
    return out


def _limit(frame: Frame) -> float:
    return _THIN * float(np.sqrt(len(frame)))


def _straightened(frame: Frame) -> Frame:
    """Return the frame on its axis if it is linear within what optimisers leave."""
    if len(frame) < 3 or any(frame.pbc):
        return frame
    positions = _centred(frame)
    _, singular, axes = np.linalg.svd(positions)
    if singular[1] > _limit(frame):
        return frame
    along = np.outer(positions @ axes[0], axes[0])
    return replace(frame, positions=along + frame.positions - positions)


def _spanning_pair(positions: Floats) -> tuple[int, int]:
    """Return two atoms that span the largest area with the centre."""
    areas = np.linalg.norm(np.cross(positions[:, None], positions[None]), axis=2)
    first, second = np.unravel_index(int(np.argmax(areas)), areas.shape)
    return int(first), int(second)


def _congruent(pair: Floats, other: Floats) -> bool:
    """Return True if two pairs have the same distances from the centre and another."""
    ours, theirs = (
        np.linalg.norm([x[0], x[1], x[0] - x[1]], axis=1) for x in (pair, other)
    )
    return bool(np.abs(ours - theirs).max() < _SAME)


def _axes(first: Floats, second: Floats) -> Floats:
    """Return the right-handed axes (3, 3), in columns, that two vectors define."""
    one = first / np.linalg.norm(first)
    three = np.cross(first, second)
    three = three / np.linalg.norm(three)
    out: Floats = np.stack([one, np.cross(three, one), three], axis=1)
    return out


def _falls_on_itself(moved: Floats, positions: Floats, numbers: Integers) -> bool:
    """Return True if each moved atom lies on one of its element."""
    distances = np.linalg.norm(moved[:, None] - positions[None], axis=2)
    distances[numbers[:, None] != numbers[None]] = np.inf
    return bool((distances.min(axis=1) < _SAME).all())
