"""Repeated labels with tighter settings and a rotated molecule, to measure noise."""

from dataclasses import replace

import numpy as np

from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Label, Noise, Unlabelled
from alloop.core.roles import Labeller
from alloop.core.units import Floats
from alloop.labels.programs import program_of


def tighter_level(loose: Level) -> Level:
    """Return the level with its numerical settings tightened.

    Kinds without settings that alloop can tighten (ASE calculators, tables) are
    returned as they are; for them a recheck measures the effect of the rotation alone.
    """
    return program_of(loose).tighter(loose)


def recheck_label(
    frame: Frame, label: Label, again: Labeller, rng: np.random.Generator
) -> Noise:
    """Compare a label with a second one by `again` of the randomly rotated frame.

    Forces are rotated back before they are compared. Frames with a cell are not
    rotated, since a method may prefer directions of the cell, such as its k-points.
    """
    rotation = np.eye(3) if any(frame.pbc) else _random_rotation(rng)
    record = again.label(_rotated_frame(frame, rotation))
    if isinstance(record, Unlabelled):
        why, cost = record.failure, record.cpu_seconds
        return Noise(frame.id, label.level, cpu_seconds=cost, failure=why)
    off = record.forces @ rotation - label.forces  # (atoms, 3)
    return Noise(
        frame=frame.id,
        level=label.level,
        energy=abs(record.energy - label.energy),
        force_rms=float(np.sqrt((off**2).mean())),  # NaN without forces
        force_max=float(np.abs(off).max()),
        cpu_seconds=record.cpu_seconds,
    )


def _random_rotation(rng: np.random.Generator) -> Floats:
    """Return a uniform proper rotation, from a quaternion of four normal numbers."""
    from scipy.spatial.transform import Rotation  # 0.2 s, which labels do without

    matrix: Floats = Rotation.from_quat(rng.standard_normal(4)).as_matrix()
    return matrix


def _rotated_frame(frame: Frame, rotation: Floats) -> Frame:
    centre = frame.positions.mean(axis=0)
    positions = (frame.positions - centre) @ rotation.T + centre
    return replace(frame, positions=positions)
