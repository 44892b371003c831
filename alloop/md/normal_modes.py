"""Normal modes: small vibrations around a minimum."""

from dataclasses import dataclass

import numpy as np

from alloop.core.atoms import frame_masses
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.roles import Potential
from alloop.core.units import FORCE_TO_ACCELERATION, Floats

_LIGHT = 2.99792458e-5  # cm/fs, exact: from angular frequency to wavenumber


@dataclass(frozen=True, slots=True, eq=False)
class NormalModes:
    """Normal modes of a frame, translations and rotations left out.

    squares (modes,): ω² in 1/fs², negative along an imaginary mode, ascending; vectors
    (modes, atoms, 3): orthonormal in √mass-weighted coordinates.
    """

    squares: Floats
    vectors: Floats

    @property
    def wavenumbers(self) -> Floats:
        """ω/(2π c) in cm⁻¹ (modes,); imaginary ones are given as negative numbers."""
        signed = np.sign(self.squares) * np.sqrt(np.abs(self.squares))
        out: Floats = signed / angular_frequency(1.0)
        return out


def angular_frequency(wavenumber: float) -> float:
    """Return the angular frequency 2π c ν̃ in 1/fs of a wavenumber in cm⁻¹."""
    return 2.0 * np.pi * _LIGHT * wavenumber


def numerical_hessian(frame: Frame, potential: Potential, step: float = 0.01) -> Floats:
    """Return second derivatives (3 atoms, 3 atoms) in eV/Å² by central differences.

    All 6 atoms displacements by `step` Å go into one prediction.
    """
    size = 3 * len(frame)
    moves = step * np.eye(size).reshape(size, -1, 3)
    moved = frame.positions + np.concatenate([moves, -moves])
    batch = pack_frames([frame] * (2 * size)).with_positions(moved.reshape(-1, 3))
    forces = potential.predict(batch).forces.reshape(2, size, size)
    rows = (forces[1] - forces[0]) / (2.0 * step)
    out: Floats = 0.5 * (rows + rows.T)
    return out


def normal_modes(frame: Frame, hessian: Floats) -> NormalModes:
    """Diagonalise the mass-weighted Hessian without translations and rotations.

    A linear molecule has five of these and an atom three, found by rank: an atom has no
    modes. A periodic frame has no rotations. Wilson, Decius & Cross, Molecular
    Vibrations, chapter 2.
    """
    root = np.repeat(np.sqrt(frame_masses(frame.numbers)), 3)
    weighted = FORCE_TO_ACCELERATION * hessian / np.outer(root, root)  # 1/fs²
    inner = _vibrational_basis(frame)  # (3 atoms, modes)
    squares, mixing = np.linalg.eigh(inner.T @ weighted @ inner)
    vectors = (inner @ mixing).T.reshape(len(squares), len(frame), 3)
    return NormalModes(squares, vectors)


def _vibrational_basis(frame: Frame) -> Floats:
    """Return an orthonormal basis (3 atoms, modes) of the vibrations."""
    m = frame_masses(frame.numbers)[:, None]
    r = frame.positions - (m * frame.positions).sum(axis=0) / m.sum()
    axes = np.eye(3)
    rigid = [np.broadcast_to(axis, r.shape) for axis in axes]
    if not any(frame.pbc):
        rigid += [np.cross(axis, r) for axis in axes]
    columns = np.stack([(np.sqrt(m) * x).ravel() for x in rigid], axis=1)
    left, singular, _ = np.linalg.svd(columns, full_matrices=True)
    rank = int((singular > 1e-6 * singular[0]).sum())
    out: Floats = left[:, rank:]
    return out
