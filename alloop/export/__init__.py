"""Export of labels to extended XYZ files and ASE databases.

A file holds labels of one level, one configuration each. Energies are in eV, forces in
eV/Å, positions in Å.

Keys of a configuration (in a database: key-value pairs, and `data` for the rest):

    REF_energy, REF_forces   for trainers; equal to ASE's energy and forces
    level (also fidelity)    "cheap" or "expensive"
    split                    "train", "validation" or "test" (`alloop.core.seeds`)
    config_type              the level of training labels, else the split
    charge, spin             total charge (e; in a database total_charge alone), 2S
    total_charge, total_spin the same as MACE names them: total_spin is 2S + 1
    frame, level_id          "frame/<id>", "level/<id>" (an id alone may look like a
                             number, and be read as one)
    level_title              the level's name
    purpose, reason, round, generation, molecule   origin of the request
    cpu_seconds, program     its cost, and the program that made it
    rung                     SCF settings that converged; "default" if unchanged
    doubts                   "instability", "multireference", "contamination",
                             "unbound", "rival", joined by commas: signs that the method
                             does not fit the frame
    gap, t1, s2              HOMO-LUMO gap in eV, T1 diagnostic, <S²>
    noise_energy, noise_forces   change of energy (eV) and forces (eV/Å, RMS) when the
                             label was computed again, rotated and at tighter settings

Unknown keys are left out: most labels are computed only once, tables have no gap.
"""

from alloop.export.choice import USUAL, Choice, Levels, Splits, parse_doubts
from alloop.export.files import (
    Exported,
    Program,
    dataset,
    write_export,
    write_trainer_folder,
)

__all__ = [
    "USUAL",
    "Choice",
    "Exported",
    "Levels",
    "Program",
    "Splits",
    "dataset",
    "parse_doubts",
    "write_export",
    "write_trainer_folder",
]
