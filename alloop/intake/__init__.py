"""Labelled frames that a user brings: reading, conversion, unit checks, duplicates.

For example:

    intake = read_labels("water.npz", energy_unit="kcal/mol")
    print(intake.warnings)
    duplicate_frames(test.frames, intake.frames)
"""

from alloop.files.labelled_frames import FileUnits, LabelledFrames
from alloop.intake.label_checks import duplicate_frames, unit_warnings
from alloop.intake.labelled_files import read_labels

__all__ = [
    "FileUnits",
    "LabelledFrames",
    "duplicate_frames",
    "read_labels",
    "unit_warnings",
]
