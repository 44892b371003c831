"""The torture set: every case ends as a label that is right, or as a named failure.

Right means: energy and slope agree with plain PySCF (`plain.py`), which looks for lower
states from several guesses, along a random direction; doubts that must be raised are.
A case may allow a label, failures, or either where both are honest; what it gets is
checked all the same. Energies within 0.2 meV, slopes within 3 meV/Å and 0.1 %.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule as built
from ase.data import chemical_symbols

from alloop.core.doubts import Doubt, doubts_of_details
from alloop.core.frame import Frame
from alloop.core.levels import Level, make_level
from alloop.core.records import Failure as F
from alloop.core.records import Label, Unlabelled
from alloop.labels.child.labeller import LabelChild, Limits
from alloop.labels.levels import ase_level, level_from_name, pyscf_level, toy_level
from tests.labels.label_faults import faulty_level

ENERGY, SLOPE, SHARE = 2e-4, 3e-3, 1e-3  # eV, eV/Å, of the slope
LEAST = 40  # cases
QUICK = Limits(seconds=1.5, memory_mb=1e6)  # for what hangs
TIGHT = Limits(seconds=120.0, memory_mb=700.0)
LIMITS = Limits(seconds=120.0, memory_mb=2500.0)


@dataclass(frozen=True)
class Case:
    """What is asked, and what may come of it."""

    name: str
    frame: Frame
    level: Level
    may: tuple[str | F, ...]  # "label", failures
    doubts: tuple[Doubt, ...] = ()
    limits: Limits = LIMITS
    slow: bool = False
    words: str = ""  # that a failure's message must hold


def frame(text: str, charge: int = 0, spin: int = 0, **more: Any) -> Frame:
    """A frame of `O 0 0 0; H 0 0 1`."""
    rows = [atom.split() for atom in text.split(";")]
    symbols = [chemical_symbols.index(row[0]) for row in rows]
    places = np.array([[float(x) for x in row[1:]] for row in rows])
    return Frame(np.array(symbols), places, charge, spin, **more)


def ready(name: str, charge: int = 0, spin: int = 0, rattle: float = 0.03) -> Frame:
    """A molecule of ASE's G2 set, off its symmetry."""
    atoms = built(name)
    noise = np.random.default_rng(len(atoms)).normal(0, rattle, (len(atoms), 3))
    return Frame(atoms.numbers, atoms.positions + noise, charge, spin)


def pair(a: str, b: str, distance: float, charge: int = 0, spin: int = 0) -> Frame:
    """Two atoms, off the axes."""
    d = distance * np.array([0.48, 0.6, 0.64])
    return frame(f"{a} 0 0 0; {b} {d[0]} {d[1]} {d[2]}", charge, spin)


def ring(n: int, distance: float) -> Frame:
    angles = 2 * np.pi * np.arange(n) / n
    radius = distance / (2 * np.sin(np.pi / n))
    places = radius * np.stack([np.cos(angles), np.sin(angles), 0.01 * angles], axis=1)
    return Frame(np.ones(n, dtype=int), places)


def lattice(n: int, symbol: int, spacing: float) -> Frame:
    side = np.arange(float(n)) * spacing
    places = np.stack(np.meshgrid(side, side, side), axis=-1).reshape(-1, 3)
    return Frame(np.full(n**3, symbol), places)


def waters(n: int) -> Frame:
    one = built("H2O")
    places = [one.positions + np.array([4.0 * i, 0, 0]) for i in range(n)]
    return Frame(np.tile(one.numbers, n), np.concatenate(places))


def stretched_methanol(distance: float) -> Frame:
    """Methanol whose O-H group is pulled off along the C-O bond."""
    atoms = built("CH3OH")
    x = atoms.positions.copy()
    bond = x[1] - x[0]
    pulled = [1, int(np.argmin(np.linalg.norm(x[2:] - x[1], axis=1))) + 2]
    x[pulled] += bond / np.linalg.norm(bond) * (distance - np.linalg.norm(bond))
    noise = np.random.default_rng(0).normal(0, 0.02, x.shape)
    return Frame(atoms.numbers, x + noise)


def stretched_water(distance: float) -> Frame:
    return frame(f"O 0 0 0; H 0.02 0.757 0.587; H 0 {-distance} 0.1")


WATER, METHANE = ready("H2O"), ready("CH4")
OK = ("label",)
HF, HF6 = level_from_name("hf/sto-3g"), level_from_name("hf/6-31g")
PBE = pyscf_level("pbe", "6-31g", grid=2)
B3LYP = pyscf_level("b3lyp", "6-31g", grid=2)
MP2, CC, CCT = (
    level_from_name("mp2/6-31g"),
    level_from_name("ccsd/6-31g"),
    level_from_name("ccsd(t)/6-31g"),
)
# Which way a hard case ends may hang on a processor's last bits: any honest refusal
# will do, and a label that the reference confirms.
HARD = ("label", F.NOT_CONVERGED, F.UNSTABLE, F.GATE)
HARD_CC = (*HARD, F.CC_NOT_CONVERGED)
BROKEN = (Doubt.INSTABILITY,)

CASES = [
    # atoms on top of each other, and places that are none
    *(
        Case(f"H2 at {d:g} Å", pair("H", "H", d), HF, (F.GEOMETRY,))
        for d in (1e-9, 1e-4, 0.01, 0.3)
    ),
    Case("H inside O", frame("O 0 0 0; H 0 0.3 0.1; H 0 1 0"), PBE, (F.GEOMETRY,)),
    Case("H2 compressed to 0.4 Å", pair("H", "H", 0.4), HF6, OK),
    Case("N2 compressed to 0.75 Å", pair("N", "N", 0.75), HF6, (F.GATE,), words="eV/Å"),
    Case("a NaN", frame("O 0 0 0; H 0 nan 1; H 0 1 0"), HF, (F.GEOMETRY,)),
    Case("an infinity", frame("O 0 0 0; H 0 inf 1; H 0 1 0"), HF, (F.GEOMETRY,)),
    Case("no atoms", Frame(np.zeros(0, int), np.zeros((0, 3))), HF, (F.GEOMETRY,)),
    Case("places of 1e9 Å", frame("H 1e9 0 0; H 0 0 0"), HF, (F.GEOMETRY,)),
    Case("far from the origin", frame("H 9e4 0 0; H 9e4 0.1 .8"), HF6, OK),
    Case(
        "contact through a wall",
        frame("H 0 0 0; H 0 0 4.9", cell=5 * np.eye(3), pbc=(True,) * 3),
        level_from_name("gfn1-xtb"),
        (F.GEOMETRY,),
    ),
    Case(
        "periodic without a cell",
        frame("H 0 0 0; H 0 0 0.8", pbc=(True,) * 3),
        level_from_name("gfn1-xtb"),
        (F.GEOMETRY,),
    ),
    Case(
        "a cell for a molecular level",
        frame("H 0 0 0; H 0 0 0.8", cell=9 * np.eye(3), pbc=(True,) * 3),
        HF,
        (F.UNSUPPORTED,),
    ),
    # what is no element, no charge, no spin
    Case("atomic number 0", Frame([0, 1], np.eye(3)[:2]), HF, (F.UNSUPPORTED,)),
    Case("atomic number 119", Frame([119, 1], np.eye(3)[:2]), HF, (F.UNSUPPORTED,)),
    Case("atomic number -1", Frame([-1, 1], np.eye(3)[:2]), HF, (F.UNSUPPORTED,)),
    Case("water with one unpaired", ready("H2O", 0, 1), HF, (F.ELECTRONS,)),
    Case("water cation, all paired", ready("H2O", 1, 0), PBE, (F.ELECTRONS,)),
    Case("H2 with four unpaired", pair("H", "H", 0.8, 0, 4), HF, (F.ELECTRONS,)),
    Case("a proton", frame("H 0 0 0", 1), HF, (F.ELECTRONS,)),
    Case("charge beyond all electrons", ready("H2O", 11), HF, (F.ELECTRONS,)),
    Case("more beta than alpha", ready("OH", 0, -1), HF, (F.ELECTRONS,)),
    Case(
        "xTB, wrong parity",
        ready("H2O", 0, 1),
        level_from_name("gfn2-xtb"),
        (F.ELECTRONS,),
    ),
    # few electrons, many electrons, unpaired electrons
    Case("H", frame("H 0 0 0", 0, 1), HF6, OK),
    Case("He", frame("He 0 0 0"), CCT, OK),
    Case("H2+", pair("H", "H", 1.06, 1, 1), CC, OK),
    Case("He2+", pair("He", "He", 1.08, 1, 1), MP2, OK),
    Case(
        "H3O+", frame("O 0 0 .1; H .94 0 -.2; H -.5 .8 -.2; H -.4 -.8 -.2", 1), HF6, OK
    ),
    Case("OH", pair("O", "H", 1.05, 0, 1), HF6, OK),
    Case("OH, MP2", pair("O", "H", 1.05, 0, 1), MP2, OK, slow=True),
    Case("CH3", ready("CH3", 0, 1), HF6, OK),
    Case(
        "CH3, CCSD(T)",
        ready("CH3", 0, 1),
        level_from_name("ccsd(t)/sto-3g"),
        OK,
        slow=True,
    ),
    Case("NO, B3LYP", pair("N", "O", 1.2, 0, 1), B3LYP, HARD, slow=True),
    Case("NO2, PBE", ready("NO2", 0, 1), PBE, HARD, slow=True),
    Case("CN", pair("C", "N", 1.2, 0, 1), HF6, HARD, (Doubt.CONTAMINATION,)),
    Case("OH-", pair("O", "H", 0.99, -1), level_from_name("hf/aug-cc-pvdz"), OK),
    Case("water anion", ready("H2O", -1, 1), HF6, OK, (Doubt.UNBOUND,)),
    Case("F-", frame("F 0 0 0", -1), level_from_name("mp2/aug-cc-pvdz"), OK),
    Case("H-", frame("H 0 0 0", -1), level_from_name("ccsd/aug-cc-pvdz"), OK),
    Case("CN-", pair("C", "N", 1.2, -1), B3LYP, OK, slow=True),
    Case("O2 2-", pair("O", "O", 1.5, -2), HF6, OK),
    Case("N3-", frame("N 0 0 0; N .1 0 1.2; N 0 .1 2.4", -1), HF6, HARD, slow=True),
    Case("N 3-", frame("N 0 0 0", -3), HF6, HARD),
    Case("O2 triplet", pair("O", "O", 1.25, 0, 2), HF6, OK, (Doubt.RIVAL,)),
    Case("O2 triplet, PBE", pair("O", "O", 1.25, 0, 2), PBE, OK, slow=True),
    Case("O2 singlet", pair("O", "O", 1.25), HF6, HARD, BROKEN),
    Case("O2 singlet, PBE", pair("O", "O", 1.25), PBE, HARD, BROKEN, slow=True),
    Case("CH2 triplet", ready("CH2_s3B1d", 0, 2), HF6, OK),
    Case("CH2 singlet", ready("CH2_s1A1d"), HF6, HARD, slow=True),
    Case("water triplet", ready("H2O", 0, 2), HF6, HARD, slow=True),
    Case("N quartet", frame("N 0 0 0", 0, 3), PBE, OK),
    Case("N doublet", frame("N 0 0 0", 0, 1), HF6, HARD),
    Case(
        "Cr septet",
        frame("Cr 0 0 0", 0, 6),
        level_from_name("hf/3-21g"),
        HARD,
        slow=True,
    ),
    # bonds stretched and broken
    Case("H2 at 2.5 Å", pair("H", "H", 2.5), HF6, HARD, BROKEN),
    Case("H2 at 6 Å", pair("H", "H", 6.0), B3LYP, HARD, BROKEN),
    Case("H2 at 2.5 Å, CCSD", pair("H", "H", 2.5), CC, HARD_CC, BROKEN),
    Case("H2 triplet at 2.5 Å", pair("H", "H", 2.5, 0, 2), HF6, OK),
    Case("N2 at 2.2 Å", pair("N", "N", 2.2), HF6, HARD, BROKEN),
    Case("N2 at 2.2 Å, CCSD(T)", pair("N", "N", 2.2), CCT, HARD_CC, BROKEN, slow=True),
    Case("N2 at 1.8 Å, MP2", pair("N", "N", 1.8), MP2, HARD, BROKEN, slow=True),
    Case("F2 at 2.5 Å", pair("F", "F", 2.5), HF6, HARD, BROKEN),
    Case("F2 at 2.5 Å, PBE", pair("F", "F", 2.5), PBE, HARD, BROKEN, slow=True),
    Case("F2 at its bond length", pair("F", "F", 1.42), HF6, HARD, slow=True),
    Case("CO at 2.5 Å", pair("C", "O", 2.5), HF6, HARD, BROKEN),
    Case("C2", pair("C", "C", 1.25), HF6, HARD, slow=True),
    Case("Be2", pair("Be", "Be", 2.5), HF6, HARD, slow=True),
    Case("LiF at 6 Å", pair("Li", "F", 6.0), HF6, HARD, slow=True),
    Case("water, O-H at 2.5 Å", stretched_water(2.5), HF6, HARD, BROKEN),
    Case("water, O-H at 2.2 Å, PBE", stretched_water(2.2), PBE, HARD, slow=True),
    Case(
        "water, O-H at 2.0 Å, CCSD",
        stretched_water(2.0),
        CC,
        HARD_CC,
        BROKEN,
        slow=True,
    ),
    Case("methanol, C-O at 3 Å", stretched_methanol(3.0), HF, HARD, BROKEN, slow=True),
    Case(
        "ethylene at a right angle",
        frame(
            "C 0 0 0; C 0 0 1.34; H 0 .92 -.57; H 0 -.92 -.56; H .9 0 1.9; H -.9 0 2"
        ),
        HF6,
        HARD,
        BROKEN,
        slow=True,
    ),
    Case("H4 square", ring(4, 1.3), HF6, HARD, BROKEN),
    Case("O3", ready("O3"), HF6, HARD, BROKEN),
    # shapes and sizes
    Case("CO2, linear", frame("O 0 0 -1.2; C 0 0 0; O 0 0 1.16"), HF6, OK),
    Case("acetylene", ready("C2H2"), B3LYP, OK, slow=True),
    Case(
        "two H2 60 Å apart", frame("H 0 0 0; H 0 .1 .8; H 60 0 0; H 60 .8 0"), HF6, OK
    ),
    Case("He and He 2000 Å apart", frame("He 0 0 0; He 2000 0 0"), MP2, OK),
    Case("H8 ring", ring(8, 1.0), level_from_name("hf/aug-cc-pvdz"), HARD, slow=True),
    Case(
        "methane, D4", METHANE, pyscf_level("b3lyp-d4", "6-31g", grid=1), OK, slow=True
    ),
    Case("water, r2SCAN", WATER, pyscf_level("r2scan", "6-31g", grid=2), OK, slow=True),
    Case("water, grid 0", WATER, pyscf_level("b3lyp", "6-31g", grid=0), (*OK, F.GATE)),
    Case(
        "water, grid 0 without response",
        WATER,
        pyscf_level("pbe", "6-31g", grid=0, grid_response=False),
        (F.GATE,),
    ),
    Case(
        "water, DF",
        WATER,
        pyscf_level("pbe", "def2-svp", density_fit=True, grid=1),
        OK,
        slow=True,
    ),
    Case(
        "water, frozen core", WATER, pyscf_level("ccsd", "6-31g", frozen_core=True), OK
    ),
    Case("water, xTB", WATER, level_from_name("gfn2-xtb"), OK),
    Case("H2O+, xTB", ready("H2O", 1, 1), level_from_name("gfn1-xtb"), OK),
    Case("N2 at 2.5 Å, xTB", pair("N", "N", 2.5), level_from_name("gfn2-xtb"), HARD),
    Case(
        "60 waters, CCSD(T)",
        waters(60),
        level_from_name("ccsd(t)/cc-pvdz"),
        (F.MEMORY,),
    ),
    Case("200 waters, MP2", waters(200), level_from_name("mp2/cc-pvdz"), (F.MEMORY,)),
    Case("3375 atoms", lattice(15, 1, 1.5), toy_level(), OK, slow=True),
    # heavy elements, missing functions
    Case("HI", pair("H", "I", 1.65), level_from_name("hf/def2-svp"), OK),
    Case("AuH", pair("Au", "H", 1.6), level_from_name("pbe/def2-svp"), OK, slow=True),
    Case("CuH", pair("Cu", "H", 1.5), level_from_name("hf/3-21g"), HARD),
    Case(
        "I in cc-pVDZ",
        pair("H", "I", 1.65),
        level_from_name("hf/cc-pvdz"),
        (F.UNSUPPORTED,),
    ),
    Case(
        "U in def2-SVP",
        frame("U 0 0 0"),
        level_from_name("hf/def2-svp"),
        (F.UNSUPPORTED,),
    ),
    Case("I, LANL2DZ", pair("H", "I", 1.65), level_from_name("hf/lanl2dz"), OK),
    Case(
        "fermium, xTB", frame("Fm 0 0 0"), level_from_name("gfn2-xtb"), (F.UNSUPPORTED,)
    ),
    Case("unknown basis", WATER, level_from_name("hf/cc-pvqq"), (F.UNSUPPORTED,)),
    Case("unknown functional", WATER, level_from_name("b4lyp/6-31g"), (F.UNSUPPORTED,)),
    Case(
        "density-fitted CCSD",
        WATER,
        pyscf_level("ccsd", "cc-pvdz", density_fit=True),
        (F.UNSUPPORTED,),
    ),
    Case(
        "EMT of methane",
        METHANE,
        ase_level("ase.calculators.emt.EMT"),
        ("label", F.CRASHED),
    ),
    # iterations cut short
    Case("one SCF cycle", WATER, pyscf_level("hf", "6-31g", max_cycle=1), HARD),
    Case(
        "three SCF cycles, no ladder",
        WATER,
        pyscf_level("hf", "6-31g", max_cycle=3, ladder=["default"]),
        (F.NOT_CONVERGED,),
    ),
    Case(
        "one SCF cycle, MP2",
        WATER,
        pyscf_level("mp2", "6-31g", max_cycle=1, ladder=["default", "damping"]),
        (F.NOT_CONVERGED,),
    ),
    Case(
        "two CC cycles",
        WATER,
        pyscf_level("ccsd(t)", "6-31g", cc_max_cycle=2),
        (F.CC_NOT_CONVERGED,),
    ),
    Case("loose SCF", WATER, pyscf_level("hf", "6-31g", conv_tol=1e-2), (*OK, F.GATE)),
    # gradients that are wrong
    *(
        Case(f"forces: {fault}", WATER, faulty_level(fault), (F.GATE,))
        for fault in ("push", "drop", "scale", "flip", "swap", "nan")
    ),
    Case("forces: shape", WATER, faulty_level("shape"), (F.CRASHED,), words="(2, 3)"),
    # processes that end badly, or live badly
    *(
        Case(f"child: {fault}", WATER, faulty_level(fault), (F.CRASHED,), words=words)
        for fault, words in {
            "segv": "SIGSEGV",
            "abort": "SIGABRT",
            "exit": "exit code 3",
            "killed": "SIGKILL",
            "bug": "AssertionError",
            "garbage": "garbage",
            "mute": "pipe",
        }.items()
    ),
    *(
        Case(f"child: {fault}", WATER, faulty_level(fault), (F.TIMEOUT,), limits=QUICK)
        for fault in ("hang", "stopped")
    ),
    *(
        Case(f"child: {fault}", WATER, faulty_level(fault), (F.MEMORY,), limits=TIGHT)
        for fault in ("hog", "brood", "exhausted", "strict")
    ),
    Case(
        "child: full disk",
        WATER,
        faulty_level("full disk"),
        (F.DISK,),
        words="No space",
    ),
    Case("child: noise", WATER, faulty_level("noise"), OK),
    Case("child: daemon", WATER, faulty_level("daemon"), OK),
]
VERDICTS: dict[str, str] = {}
_children: dict[Limits, LabelChild] = {}


@pytest.fixture(scope="module", autouse=True)
def _ended() -> Iterator[None]:
    yield
    for child in _children.values():
        child.close()
    _children.clear()
    if _referee.cache_info().currsize:
        _referee().communicate()
        _referee.cache_clear()


def checked(asked: Level) -> Level:
    """The level, all of whose forces are compared with energies."""
    settings = {
        **asked.settings,
        "gate": {**asked.settings.get("gate", {}), "slope": 1.0},
    }
    return make_level(asked.kind, settings)


def outcome_of(case: Case) -> Label | Unlabelled:
    child = _children.setdefault(case.limits, LabelChild(case.limits))
    return child.labeller(checked(case.level)).label(case.frame)


def reference(case: Case, direction: np.ndarray) -> tuple[float, float]:
    """Energy (eV) and slope (eV/Å), asked of a process that knows plain PySCF."""
    question = {
        "kind": case.level.kind,
        "settings": case.level.settings,
        "numbers": case.frame.numbers.tolist(),
        "positions": case.frame.positions.tolist(),
        "charge": case.frame.charge,
        "spin": case.frame.spin,
        "direction": direction.tolist(),
    }
    process = _referee()
    process.stdin.write(json.dumps(question) + "\n")
    process.stdin.flush()
    said = json.loads(process.stdout.readline())
    assert isinstance(said, list), said
    return said[0], said[1]


@cache
def _referee() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name("plain.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def silent_error(case: Case, outcome: Label | Unlabelled) -> str | None:
    """What is wrong with the outcome although nobody said so, or None."""
    if isinstance(outcome, Unlabelled):
        got = f"{outcome.failure.name}: {outcome.message}"
        right = outcome.failure in case.may and case.words in outcome.message
        return None if right else f"expected {case.may} {case.words!r}, got {got}"
    if "label" not in case.may:
        return f"expected {case.may}, got a label of {outcome.energy:.6f} eV"
    if missing := set(case.doubts) - doubts_of_details(outcome.details):
        return f"the label should raise {missing}, it has {dict(outcome.details)}"
    return wrong_numbers(case, outcome)


def wrong_numbers(case: Case, label: Label) -> str | None:
    if not np.isfinite(label.energy) or label.forces.shape != (len(case.frame), 3):
        return f"no label at all: {label}"
    if case.level.kind not in ("pyscf", "xtb"):
        return None  # the slope test has compared its forces with its energies
    random = np.random.default_rng(7).normal(size=label.forces.shape)
    direction = random / np.linalg.norm(random)
    energy, slope = reference(case, direction)
    told = -float((label.forces * direction).sum())
    if abs(label.energy - energy) > ENERGY:
        return f"energy {label.energy - energy:+.6f} eV from plain PySCF's lowest"
    if abs(told - slope) > SLOPE + SHARE * abs(slope):
        return f"slope {told:.5f} eV/Å, energies say {slope:.5f}"
    return None


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow else [])
        for case in CASES
    ],
)
def test_it_ends_as_a_right_label_or_a_named_failure(case: Case) -> None:
    outcome = outcome_of(case)
    error = silent_error(case, outcome)
    VERDICTS[case.name] = error or ""
    assert error is None


def test_there_are_many_cases_and_no_silent_error_among_them() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= LEAST
    assert [name for name, error in VERDICTS.items() if error] == []
