"""First frames without data: a minimum, its normal modes and thermal samples of them.

Minima are found by BFGS, for potentials whose forces are expensive.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from alloop.core.atoms import frame_masses
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Walker
from alloop.core.roles import DipolarPotential, Potential
from alloop.core.units import BOLTZMANN, FORCE_TO_ACCELERATION, Floats
from alloop.md.contacts import closest_contact
from alloop.md.integrate import maxwell_boltzmann

_LIGHT = 2.99792458e-5  # cm/fs, exact: from angular frequency to wavenumber
_STIFFNESS = 70.0  # eV/Å², of the first Hessian: a soft bond's
_STRIDE = 0.2  # Å, the farthest that an atom moves in one step
_SOFTEST = 150.0  # cm⁻¹; softer and imaginary modes are sampled as if they had this
_FARTHEST = 0.4  # Å; straight displacements of more would stretch bonds that turn
_CLOSEST = 0.65  # of the summed covalent radii, or of the minimum's closest contact


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


@dataclass(frozen=True, slots=True, eq=False)
class Derivatives:
    """Derivatives of a frame by its positions.

    hessian (3 atoms, 3 atoms): of the energy, eV/Å²; dipole (3 atoms, 3): of the dipole
    moment, e, None where the potential has none.
    """

    hessian: Floats
    dipole: Floats | None = None


def numerical_derivatives(
    frame: Frame, potential: Potential, step: float = 0.01, *, dipole: bool = True
) -> Derivatives:
    """Return central differences of the forces, and of the dipole where there is one.

    All 6 atoms displacements by `step` Å go into one prediction. dipole: whether a
    DipolarPotential is asked for its.
    """
    size = 3 * len(frame)
    moves = step * np.eye(size).reshape(size, -1, 3)
    moved = frame.positions + np.concatenate([moves, -moves])
    batch = pack_frames([frame] * (2 * size)).with_positions(moved.reshape(-1, 3))
    predictions = potential.predict(batch)
    forces = predictions.forces.reshape(2, size, size)
    rows = (forces[1] - forces[0]) / (2.0 * step)
    hessian = 0.5 * (rows + rows.T)
    dipoles = predictions.dipoles
    if dipole and isinstance(potential, DipolarPotential):
        dipoles = potential.dipoles(batch)
    if dipoles is None:
        return Derivatives(hessian)
    dipoles = dipoles.reshape(2, size, 3)
    return Derivatives(hessian, (dipoles[0] - dipoles[1]) / (2.0 * step))


def numerical_hessian(frame: Frame, potential: Potential, step: float = 0.01) -> Floats:
    """Return second derivatives (3 atoms, 3 atoms) in eV/Å² by central differences."""
    return numerical_derivatives(frame, potential, step, dipole=False).hessian


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


def relax_frame(
    frame: Frame, potential: Potential, fmax: float = 0.01, steps: int = 200
) -> Frame:
    """Return the frame relaxed as by `relax_frames`.

    Raises InputError where the potential's forces are not finite.
    """
    (relaxed,) = relax_frames([frame], potential, fmax, steps)
    if relaxed is None:
        raise InputError(
            "expected finite forces while relaxing the start, got nan or inf; "
            "check the start structure"
        )
    return relaxed


def relax_frames(
    frames: Sequence[Frame], potential: Potential, fmax: float = 0.01, steps: int = 200
) -> list[Frame | None]:
    """Return each frame with no force above `fmax` eV/Å, or its best after `steps`.

    Quasi-Newton with the BFGS update (Nocedal & Wright, Numerical Optimization, eq.
    6.19); steps along negative curvature are reversed. Each step is one call of the
    potential for all that still move. None where forces are not finite.
    """
    relaxations = [_Relaxation(frame) for frame in frames]
    moving = relaxations
    for _ in range(steps + 1):
        if not moving:
            break
        batch = pack_frames([x.proposal for x in moving])
        forces = potential.predict(batch).forces
        parts = np.split(np.asarray(forces), batch.offsets[1:-1])
        for relaxation, force in zip(moving, parts, strict=True):
            relaxation.take(force)
        moving = [x for x in moving if x.residual >= fmax]
    return [x.best for x in relaxations]


class _Relaxation:
    """A frame on its way to a minimum."""

    def __init__(self, frame: Frame) -> None:
        self.best: Frame | None = frame
        self.residual = np.inf  # the largest force at `best`; 0 where it stops
        self.proposal = frame
        self._positions = frame.positions  # of the proposal before it is rounded
        self._hessian = _STIFFNESS * np.eye(3 * len(frame))
        self._force: Floats | None = None
        self._step = np.zeros((len(frame), 3))

    def take(self, force: Floats) -> None:
        """Take in the force (atoms, 3) at the proposal, and propose the next frame."""
        if not np.isfinite(force).all():
            self.best, self.residual = None, 0.0
            return
        if self._force is not None:
            change = (self._force - force).ravel()
            self._hessian = _bfgs_update(self._hessian, self._step.ravel(), change)
        if _largest_norm(force) < self.residual:
            self.best, self.residual = self.proposal, _largest_norm(force)
        self._force = force
        self._step = _newton_step(self._hessian, force)
        self._positions = self._positions + self._step
        self.proposal = replace(self.proposal, positions=self._positions)


def _newton_step(hessian: Floats, force: Floats) -> Floats:
    """Return -|H|⁻¹ g, shortened so that no atom moves farther than `_STRIDE`."""
    curvature, modes = np.linalg.eigh(hessian)
    along = modes.T @ force.ravel()
    step = (modes @ (along / np.abs(curvature))).reshape(-1, 3)
    out: Floats = step * min(1.0, _STRIDE / max(_largest_norm(step), 1e-12))
    return out


def _bfgs_update(hessian: Floats, s: Floats, y: Floats) -> Floats:
    """Return H + y yᵀ/yᵀs - H s sᵀ H/sᵀHs; s: the step, y: the gradient's change."""
    hs = hessian @ s
    if abs(y @ s) < 1e-12 or abs(s @ hs) < 1e-12:
        return hessian
    return hessian + np.outer(y, y) / (y @ s) - np.outer(hs, hs) / (s @ hs)


def _largest_norm(vectors: Floats) -> float:
    return float(np.sqrt((vectors**2).sum(axis=1)).max())


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


def strained_frames(
    frames: Sequence[Frame], width: float, rng: np.random.Generator
) -> tuple[Frame, ...]:
    """Return the frames with strained cells, atoms at the same fractions of them.

    The strain of a frame is a symmetric matrix of normal numbers of this width, off the
    diagonal of width/√2, and no component is above three times the width. Frames that
    do not repeat in all directions stay as they are. Strains at which atoms would
    collide are halved.
    """
    normal = width * rng.standard_normal((len(frames), 3, 3)).clip(-3.0, 3.0)
    strains = 0.5 * (normal + normal.transpose(0, 2, 1))
    pairs = zip(frames, strains, strict=True)
    return tuple(_strained_frame(x, e) if all(x.pbc) else x for x, e in pairs)


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


def _strained_frame(frame: Frame, strain: Floats) -> Frame:
    """Return the frame strained, by half as much while atoms would collide."""
    closest = min(_CLOSEST, 0.9 * closest_contact(frame))
    while True:
        change = np.eye(3) + strain
        positions, cell = frame.positions @ change, frame.cell @ change
        strained = replace(frame, positions=positions, cell=cell)
        if closest_contact(strained) >= closest:
            return strained
        strain = 0.5 * strain
