"""Labelled frames that a user brings: reading, conversion, unit checks, duplicates.

For example:

    intake = read_labels("water.npz", energy_unit="kcal/mol")
    print(intake.warnings)
    duplicate_frames(test.frames, intake.frames)
"""

from alloop.files.labelled_frames import FileUnits, LabelledFrames
from alloop.intake.duplicates import duplicate_frames
from alloop.intake.labelled_files import read_labels
from alloop.intake.unit_checks import unit_warnings

__all__ = [
    "FileUnits",
    "LabelledFrames",
    "duplicate_frames",
    "read_labels",
    "unit_warnings",
]
