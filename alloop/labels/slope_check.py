"""A test of forces against the change of the energy along a small step.

A scaled gradient, a wrong sign, or two atoms' forces swapped may leave net force and
torque at zero. So the program labels a second frame, a small step h along a unit vector
d away, and the energies at both ends are compared with the mean of the forces there,

    slope error = (E1 - E0)/h + d . (F0 + F1)/2,

which for true gradients is h²/12 times the third derivative along d. This trapezoidal
rule needs one more label, where a central difference needs two. d is the normalised sum
of the forces' direction (where a wrong scale or sign shows most) and a random one (an
error perpendicular to the forces shows only there). The share `slope` of a level's
frames is tested; the choice of frames and the random direction depend only on level and
frame.

Of a user's function nobody knows the units, so that each process tests its first labels
until one has passed, unless the level's gate names a share. That test is coarse: it
finds a wrong unit or sign and lets the noise of a program pass.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Failure
from alloop.core.units import Floats
from alloop.labels.programs import level_tolerances
from alloop.labels.result import LabelFunction, Refused, Result

STEP = 2e-3  # Å, the norm over all coordinates
# Errors of forces that are exact for their energy, up to 100 eV/Å; measured in the
# torture set.
_ABSOLUTE, _RELATIVE = 2e-3, 1e-3  # eV/Å, and a share of the slope itself
_COARSE = 0.2  # share of the slope, allowed in a trial; a wrong unit is off by 0.47
_TELLING = 0.5  # eV/Å, a slope above which a trial tells units apart
_TRIALS = 5  # labels at most that are tried in a process
_trials: dict[str, int] = {}  # left in this process, by the level's id


def confirm_slope(
    run: LabelFunction, level: Level, frame: Frame, result: Result
) -> Result:
    """Return the result, tested if the frame is selected; raise Refused if it fails.

    A tested result has `slope_error` (eV/Å) among its details.
    """
    share, seed = level_tolerances(level).slope, _slope_seed(level, frame)
    if not level.has_forces:
        return result
    if len(frame) == 1:
        return result  # moving a single atom only changes grid noise
    # The seed is uniform below 2^64: a share of all frames lies below this.
    if seed >= share * 2.0**64:
        return _tried(run, level, frame, result) if _on_trial(level) else result
    ahead = _displaced_frame(frame, result, seed)
    error, slope = _slope_error(
        frame, result, ahead, _displaced_result(run, level, ahead, result)
    )
    details = {**result.details, "slope_error": error}
    limit = _allowed_error(level, slope)
    if not error <= limit:
        text = (
            f"energy and forces disagree by {error:.2g} eV/Å along a line, "
            f"at most {limit:.2g} is allowed"
        )
        raise Refused(Failure.GATE, text, details)
    return replace(result, details=details)


def _on_trial(level: Level) -> bool:
    unknown = ":" in level.kind and "slope" not in level.settings.get("gate", {})
    return unknown and _trials.get(level.id, _TRIALS) > 0


def _tried(run: LabelFunction, level: Level, frame: Frame, result: Result) -> Result:
    """Return the result; raise Refused if its energy and forces differ in unit."""
    ahead = _displaced_frame(frame, result, _slope_seed(level, frame))
    left = _trials.get(level.id, _TRIALS) - 1
    try:
        there = run(ahead, level.settings)
    except Refused:  # a function may know some frames only
        _trials[level.id] = left
        return result
    error, slope = _slope_error(frame, result, ahead, there)
    h = float(np.linalg.norm(ahead.positions - frame.positions))
    rise = abs(there.energy - result.energy) / h
    largest = max(slope, rise)
    if not error <= _allowed_error(level, slope) + _COARSE * largest:
        raise Refused(
            Failure.GATE,
            f"along a line, the energy changes by {rise:.3g} and the work of the "
            f"forces is {slope:.3g}, both per Å: energies must be in eV and forces in "
            "eV/Å, the negative gradient",
            result.details,
        )
    _trials[level.id] = left if largest < _TELLING else 0
    return result


def _slope_seed(level: Level, frame: Frame) -> int:
    digest = hashlib.sha256(f"slope/{level.id}/{frame.id}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def _displaced_frame(frame: Frame, result: Result, seed: int) -> Frame:
    random = np.random.default_rng(seed).normal(size=frame.positions.shape)
    direction = random / np.linalg.norm(random)
    size = float(np.linalg.norm(result.forces))  # eV/Å
    if size > 0:
        direction = direction + result.forces / size
    step = STEP * direction / np.linalg.norm(direction)
    return replace(frame, positions=frame.positions + step)


def _displaced_result(
    run: LabelFunction, level: Level, ahead: Frame, result: Result
) -> Result:
    settings: Mapping[str, Any] = level.settings
    try:
        return run(ahead, settings)
    except Refused as refused:
        text = f"no label {STEP:g} Å away to test the forces with: {refused.message}"
        raise Refused(refused.failure, text, result.details) from refused


def _slope_error(
    frame: Frame, result: Result, ahead: Frame, there: Result
) -> tuple[float, float]:
    """Return the slope error and the magnitude of the slope, both in eV/Å."""
    # The step that was made, not the one that was asked for: positions are rounded.
    step: Floats = ahead.positions - frame.positions
    h = float(np.linalg.norm(step))
    slope = float((step * (result.forces + there.forces)).sum()) / (2 * h)
    # Energies fall along forces: for true gradients the two terms cancel.
    return abs((there.energy - result.energy) / h + slope), abs(slope)


def _allowed_error(level: Level, slope: float) -> float:
    """Return the largest slope error (eV/Å) allowed for a slope.

    That is the rounding error of the step plus the net force allowed at the level.
    """
    return _ABSOLUTE + level_tolerances(level).net_force + _RELATIVE * slope
