"""Relaxation of one frame by BFGS, for potentials whose forces are expensive."""

from dataclasses import replace

import numpy as np

from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.roles import Potential
from alloop.core.units import Floats

_STIFFNESS = 70.0  # eV/Å², of the first Hessian: a soft bond's
_STRIDE = 0.2  # Å, the farthest that an atom moves in one step


def relax_frame(
    frame: Frame, potential: Potential, fmax: float = 0.01, steps: int = 200
) -> Frame:
    """Return the frame with no force above `fmax` eV/Å, or the best one after `steps`.

    Quasi-Newton with the BFGS update (Nocedal & Wright, Numerical Optimization, eq.
    6.19); steps along negative curvature are reversed. InputError where the potential's
    forces are not finite.
    """
    q, hessian = frame.positions, _STIFFNESS * np.eye(3 * len(frame))
    force = _forces_at(frame, q, potential)
    best = (_largest_norm(force), q)
    for _ in range(steps):
        if best[0] < fmax:
            break
        step = _newton_step(hessian, force)
        after = _forces_at(frame, q + step, potential)
        hessian = _bfgs_update(hessian, step.ravel(), (force - after).ravel())
        q, force = q + step, after
        best = min(best, (_largest_norm(force), q), key=lambda pair: pair[0])
    return replace(frame, positions=best[1])


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


def _forces_at(frame: Frame, positions: Floats, potential: Potential) -> Floats:
    forces = potential.predict(
        pack_frames([replace(frame, positions=positions)])
    ).forces
    if not np.isfinite(forces).all():
        raise InputError(
            "expected finite forces while relaxing the start, got nan or inf; "
            "check the start structure"
        )
    return forces


def _largest_norm(vectors: Floats) -> float:
    return float(np.sqrt((vectors**2).sum(axis=1)).max())
