"""What forces cost beside energies alone, by level.

    python -m benchmarks.labels.gradient_cost [--quick] [--json FILE]

labels four molecules of up to three heavy atoms once with forces and once with
`forces: none`, and shows CPU seconds of both and their ratio, in one process and one
thread.
"""

from ase.build import molecule

from alloop.core.atoms import from_atoms
from alloop.core.levels import energy_level
from alloop.core.records import Label
from alloop.labels.direct import label_frame, level_program
from alloop.labels.levels import level_from_name
from benchmarks.common import make_parser, make_table, show, write_json

MOLECULES = ("NH3", "H2CO", "HCOOH", "CH3CH2OH")
LEVELS = (
    *("hf/cc-pvdz", "b3lyp/def2-svp", "mp2/cc-pvdz"),
    *("ccsd/cc-pvdz", "ccsd(t)/cc-pvdz"),
)


def label_seconds(name: str, level_name: str) -> tuple[float, float]:
    """Return the CPU seconds of a label with forces, and of one without."""
    frame, level = from_atoms(molecule(name)), level_from_name(level_name)
    seconds = []
    for one in (level, energy_level(level)):
        label = label_frame(one, frame)
        if not isinstance(label, Label):
            raise TypeError(f"expected a label of {name}, got {label}")
        seconds.append(label.cpu_seconds)
    return seconds[0], seconds[1]


def main() -> None:
    """Measure, and show the table."""
    arguments = make_parser(__doc__).parse_args()
    level_program(level_from_name(LEVELS[0]))  # imports
    rows = []
    for name in MOLECULES[: 2 if arguments.quick else None]:
        for level in LEVELS:
            forces, energy = label_seconds(name, level)
            rows.append(
                {
                    "molecule": name,
                    "level": level,
                    "with forces, s": forces,
                    "energy alone, s": energy,
                    "ratio": forces / energy,
                }
            )
    write_json(arguments.json, {"rows": rows})
    show(make_table("CPU time of a label", rows))


if __name__ == "__main__":
    main()
