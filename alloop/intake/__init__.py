"""Labelled frames that a user brings: read, converted, doubted, compared.

intake = read_labels("water.npz", energy_unit="kcal/mol")
print(intake.warnings)
duplicates(test.frames, intake.frames)
"""

from alloop.files.facts import Intake, Units
from alloop.intake.doubts import unit_warnings
from alloop.intake.read import read_labels
from alloop.intake.twins import duplicates

__all__ = ["Intake", "Units", "duplicates", "read_labels", "unit_warnings"]
