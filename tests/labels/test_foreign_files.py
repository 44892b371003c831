"""Files that lie about where a command is started: no label depends on them."""

import subprocess
import sys
from pathlib import Path

import ase.io
from ase import Atoms

from alloop.labels.levels import level_from_name, pyscf_level

# Valid basis sets in PySCF's formats, each far from the one of its name.
_BASIS = """
BASIS "ao basis" PRINT
O    S
      5.0  1.0
O    P
      2.0  1.0
H    S
      3.0  1.0
END
"""
_PSEUDO = """
#PSEUDOPOTENTIAL
O GTH-PBE-q6 GTH-PBE
    2    4
     0.30000000    2   -12.00000000     2.00000000
    1
     0.20000000    1    18.00000000
#PSEUDOPOTENTIAL
H GTH-PBE-q1 GTH-PBE
    1
     0.30000000    2    -3.00000000     0.60000000
    0
END
"""
_NAMES = (
    *("sto-3g", "def2-svp", "cc-pvdz", "6-31g", "minao", "ano", "weigend", "STO-3G"),
    *("def2-svp-jkfit", "cc-pvdz-jkfit", "def2-universal-jkfit", "sapgrasplarge"),
    *("of the basis", "def2-svp-ri", "gth-szv", "sto3g", "lanl2dz"),
)
_LEVELS = {
    "hf/sto-3g": level_from_name("hf/sto-3g"),
    "fitted": pyscf_level("hf", "def2-svp", density_fit=True),
    "fitted, 6-31g": pyscf_level("hf", "6-31g", density_fit=True),
    "fitted, named": pyscf_level("hf", "sto-3g", density_fit=True, aux_basis="weigend"),
    "atomic guess": pyscf_level("hf", "sto-3g", init_guess="atom"),
    "potential guess": pyscf_level("hf", "sto-3g", init_guess="sap"),
    "dispersion": level_from_name("pbe-d3bj/sto-3g"),
}
_PROGRAM = """
import sys
from ase import io
from alloop.core.atoms import from_atoms
from alloop.core.levels import Level
from alloop.core.records import Label
from alloop.labels.child.labeller import LabelChild, Limits
from alloop.labels.direct import DirectLabeller, import_function

frame = from_atoms(io.read(sys.argv[1]))
isolated = sys.argv[2] == "isolated"
with LabelChild(Limits(seconds=100.0)) as child:
    for line in sys.stdin:
        level = Level("pyscf", line.strip())
        labeller = child.labeller(level) if isolated else DirectLabeller(level)
        label = labeller.label(frame)
        text = label.forces.tobytes().hex() if isinstance(label, Label) else label
        print(getattr(label, "energy", None), text)
basis = import_function("alloop.labels.pyscf.elements:basis_sets")
print(basis.load_ecp("lanl2dz", "Fe"), basis.load_pseudo("gth-pbe", "H"))
"""


def _answers(folder: Path, kind: str, water: Path) -> list[str]:
    texts = "\n".join(level.text for level in _LEVELS.values())
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(water), kind],
        input=texts,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_files_with_the_names_of_basis_sets_change_no_label(tmp_path: Path) -> None:
    water = tmp_path / "water.xyz"
    places = [[0.0, 0.0, 0.01], [0.0, 0.757, 0.587], [0.03, -0.757, 0.6]]
    ase.io.write(water, Atoms("OHH", places))
    clean, crafted = tmp_path / "clean", tmp_path / "crafted"
    clean.mkdir()
    crafted.mkdir()
    for name in _NAMES:
        (crafted / name).write_text(_BASIS)
    (crafted / "gth-pbe").write_text(_PSEUDO)
    told = crafted / "told"
    (crafted / ".pyscf_conf.py").write_text(f"open({str(told)!r}, 'w')")
    expected = _answers(clean, "isolated", water)
    assert len(expected) == len(_LEVELS) + 1
    assert not any(line.startswith("None") for line in expected)
    for kind in ("isolated", "direct"):
        assert _answers(crafted, kind, water) == expected, kind
    assert not told.exists()
    assert list(clean.iterdir()) == []
