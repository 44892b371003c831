"""Sections of the report on methods: levels, checks, settings, papers, the store."""

from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from typing import Any

from markupsafe import Markup

from alloop.core.atoms import hill_formula
from alloop.core.levels import make_level
from alloop.history.label_entries import label_entries
from alloop.history.reader import History
from alloop.labels.composite import SUM, sum_parts
from alloop.labels.programs import level_tolerances
from alloop.loop import events as e
from alloop.models.settings import NETWORKS, is_pretrained
from alloop.models.universal.converted import licence_text
from alloop.report.analysis.campaign_facts import (
    config_number,
    config_value,
    level_title,
    temperature_text,
)
from alloop.report.analysis.examination import beyond_md, last_examination
from alloop.report.analysis.label_facts import noise_floors
from alloop.report.sections.markup import (
    Section,
    bullet_list,
    code_block,
    folded_block,
    heading,
    join_pieces,
    paragraph,
    table_html,
)
from alloop.report.text.event_log import event_text
from alloop.report.text.formatting import and_list, plural

_KREIMAN = (
    "test-time training and connectivity: Kreiman and Krishnapriyan, Digital Discovery "
    "2026, 5, 415"
)
_PAINN = "PaiNN: Schütt, Unke and Gastegger, ICML 2021"
_PYG = "PyTorch Geometric: Fey and Lenssen, ICLR workshop 2019"
_D3 = "D3: Grimme, Antony, Ehrlich and Krieg, J. Chem. Phys. 132, 154104 (2010)"
_DUNNING = "correlation-consistent basis sets: Dunning, J. Chem. Phys. 90, 1007 (1989)"
_LIBXC = "Libxc: Lehtola, Steigemann, Oliveira and Marques, SoftwareX 7, 1 (2018)"
_WAVES = ("hf", "mp2", "ccsd", "ccsd(t)")
_LOOP = {
    "asteroid": "ASTEROID: Bukharin et al., ICML 2023",
    "q-residual": "Q-residual: Wong and Yang, arXiv 2603.10159 (2026)",
    "connectivity": _KREIMAN,
    "clusters": "LCMD: Holzmüller et al., J. Mach. Learn. Res. 24, 164 (2023)",
    "soap": "SOAP: Bartók, Kondor and Csányi, Phys. Rev. B 87, 184115 (2013)",
    "muon": "Muon: Jordan et al., 2024",
}
_POTENTIALS = {
    "painn": (_PAINN,),
    "tensor-painn": (_PAINN,),
    "egnn": ("EGNN: Satorras, Hoogeboom and Welling, ICML 2021",),
    "tensornet": ("TensorNet: Simeon and De Fabritiis, NeurIPS 2023",),
    "gemnet": ("GemNet: Gasteiger, Becker and Günnemann, NeurIPS 2021",),
    "schnet": ("SchNet: Schütt et al., NeurIPS 2017", _PYG),
    "visnet": ("ViSNet: Wang et al., Nat. Commun. 15, 313 (2024)", _PYG),
    "chgnet": ("CHGNet: Deng et al., Nat. Mach. Intell. 5, 1031 (2023)",),
    "so3lr": ("SO3LR: Kabylda et al., ChemRxiv 10.26434/chemrxiv-2024-bdfr0 (2024)",),
    "mace": ("MACE: Batatia et al., NeurIPS 2022",),
    "sevennet": ("SevenNet: Park et al., JCTC 20, 4857 (2024)",),
    "ani": ("ANI-1x: Smith et al., J. Chem. Phys. 148, 241733 (2018)",),
}
_PROGRAMS = {
    "pyscf": "PySCF: Sun et al., J. Chem. Phys. 153, 024109 (2020)",
    "ase": "ASE: Larsen et al., J. Phys.: Condens. Matter 29, 273002 (2017)",
}
_METHODS = {
    "gfn1-xtb": "GFN1-xTB: Grimme, Bannwarth and Shushkov, JCTC 13, 1989 (2017)",
    "gfn2-xtb": "GFN2-xTB: Bannwarth, Ehlert and Grimme, JCTC 15, 1652 (2019)",
    "mp2": "MP2: Møller and Plesset, Phys. Rev. 46, 618 (1934)",
    "ccsd": "CCSD: Purvis and Bartlett, J. Chem. Phys. 76, 1910 (1982)",
    "ccsd(t)": "CCSD(T): Raghavachari et al., Chem. Phys. Lett. 157, 479 (1989)",
    "pbe": "PBE: Perdew, Burke and Ernzerhof, Phys. Rev. Lett. 77, 3865 (1996)",
    "pbe0": "PBE0: Adamo and Barone, J. Chem. Phys. 110, 6158 (1999)",
    "b3lyp": "B3LYP: Stephens et al., J. Phys. Chem. 98, 11623 (1994)",
}
_BASES = {
    "sto-3g": "STO-3G: Hehre, Stewart and Pople, J. Chem. Phys. 51, 2657 (1969)",
    "def2-": "def2 basis sets: Weigend and Ahlrichs, PCCP 7, 3297 (2005)",
    "cc-pv": _DUNNING,
    "aug-cc-pv": _DUNNING,
}
_DISPERSIONS = {
    "d3zero": (_D3,),
    "d3bj": (_D3, "Becke-Johnson damping: Grimme et al., JCC 32, 1456 (2011)"),
    "d4": ("D4: Caldeweyher et al., J. Chem. Phys. 150, 154122 (2019)",),
}


def citations(history: History) -> list[str]:
    """Return the papers of what the campaign used, each once, as `method: paper`."""
    return list(dict.fromkeys(chain(_loop_papers(history), _level_papers(history))))


def _loop_papers(history: History) -> Iterator[str]:
    """Yield the papers of the training, potential, scores, limits and MD."""
    potential, flag = _config_word(history, "potential", "kind"), ("flag", "selection")
    words = [
        _config_word(history, "training", "kind"),
        _optimiser(history, potential),
        _config_word(history, "flag", "kind"),
        _config_word(history, *flag) or _config_word(history, *flag, "kind"),
        _config_word(history, "flag", "descriptors"),
    ]
    for kind in (potential, _config_word(history, "potential", "network", "kind")):
        yield from _POTENTIALS.get(kind, ())
    yield from (_LOOP[word] for word in words if word in _LOOP)
    if config_value(history, "refine") is not None:
        yield _KREIMAN
    if _config_word(history, "explore", "protocol") not in ("", "periodic"):
        yield _LOOP["q-residual"]
    if history.state.generations.errors:
        yield (
            "calibration of thresholds and limits: Lei et al., J. Am. Stat. Assoc. "
            "113, 1094 (2018)"
        )
    yield "Langevin MD: Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34"
    if config_value(history, "explore", "pressure") is not None:
        yield "constant pressure: Bernetti and Bussi, J. Chem. Phys. 153, 114107 (2020)"
        if _config_word(history, "explore", "barostat", "cell") != "isotropic":
            yield "shapes of cells: Del Tatto et al., Appl. Sci. 12, 1139 (2022)"


def _optimiser(history: History, potential: str) -> str:
    """Return the optimiser of the weight matrices, "" where there are none."""
    default = "adamw" if is_pretrained(potential) else "muon"
    network = potential in NETWORKS
    return _config_word(history, "training", "optimiser") or (
        default if network else ""
    )


def _level_papers(history: History) -> Iterator[str]:
    """Yield the papers of the levels' programs, methods, basis sets and corrections."""
    for kind, settings in _plain_levels(history):
        method, basis = (
            str(settings.get(key) or "").lower() for key in ("method", "basis")
        )
        if kind in _PROGRAMS:
            yield _PROGRAMS[kind]
        if kind == "universal":
            yield from _POTENTIALS.get(str(settings.get("potential")), ())
        if kind == "pyscf" and method and method not in _WAVES:
            yield _LIBXC
        if method in _METHODS:
            yield _METHODS[method]
        yield from (_BASES[name] for name in _BASES if basis.startswith(name))
        yield from _DISPERSIONS.get(str(settings.get("dispersion")), ())


def _plain_levels(history: History) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield kind and settings of the levels, those of the parts of composite ones."""
    for level in history.attrs.get("levels", {}).values():
        settings = level.get("settings", {})
        if level.get("kind") == SUM:
            yield from ((x.kind, x.settings) for _, x in sum_parts(settings))
        else:
            yield str(level.get("kind")), settings


def _config_word(history: History, *path: str) -> str:
    """Return a word of the configuration in force, "" where there is none."""
    value = config_value(history, *path)
    return value if isinstance(value, str) else ""


_LIBRARIES = ("numpy", "torch", "torch-geometric", "pyscf", "ase", "matplotlib")

_TRIAGE = {
    "bias": "the bias against that label",
    "surprise": "surprise again",
    "both": "surprise, with the part of the bias that geometry does not explain,",
}


def _triage_text(history: History) -> str:
    return _TRIAGE.get(config_value(history, "flag", "triage") or "both", "its bias")


def methods_section(history: History) -> Section:
    """Return the section on levels, validation, seed, versions and configuration."""
    opened = history.opened
    molecules = and_list(sorted({hill_formula(frame) for frame in opened.start}))
    body = (
        paragraph(
            f"Molecules: {molecules}. Seed {opened.seed}. Surprise decides which "
            f"frames get a cheap label; {_triage_text(history)} decides which get an "
            "expensive one; and a share of random control frames gets both, whatever "
            "their surprise. Units are eV, Å, fs and K."
        )
        + join_pieces(paragraph(text) for text in _fork_origin(history))
        + paragraph(about_test_sets(history))
        + level_table(history)
        + bullet_list(label_checks(history))
        + paragraph(_version_text(history))
        + join_pieces(paragraph(text) for text in _licences(history))
        + heading("To cite")
        + bullet_list([*citations(history), _alloop_citation(history)])
        + paragraph(
            "A functional, a basis set or a program that is missing from this list "
            "has papers of its own."
        )
        + folded_block("Configuration in force", code_block(history.config.strip()))
    )
    return Section("methods", "Methods", body)


def _licences(history: History) -> Iterator[str]:
    """Yield a sentence on the licence of the weights that training began with."""
    trained = config_value(history, "potential", "network", "settings")
    licence = _config_word(history, "potential", "licence") or licence_text(
        trained if isinstance(trained, Mapping) else {}
    )
    if licence:
        yield (
            f"Training began with weights under the licence {licence}; it holds for "
            "every model of this campaign."
        )


def _fork_origin(history: History) -> Iterator[str]:
    """Yield the campaign that this one was forked from, in words."""
    for _, event in history.of_kind(e.Forked):
        yield f"This campaign was {event_text(event, {})}."


def about_test_sets(history: History) -> str:
    """Return a description of the validation set's origin and of the examination."""
    return f"{_about_validation(history)} {_about_examination(history)}"


def _about_examination(history: History) -> str:
    examination = last_examination(history)
    if examination is None:
        return "There was no examination."
    if examination.steps == 0:
        return (
            "Examination: the frames and labels of that of the campaign which "
            "this one is a control of; predicted before the labels were looked up."
        )
    motion, beyond = examination.motion, beyond_md(history)
    began = "first frames"
    turned = ""
    if motion.equilibrated:
        began = f"{plural(motion.conformers, 'conformer')} known, by Boltzmann weights,"
        turned = ", before which bonds are turned with a Metropolis test"
    also = (
        ""
        if beyond is None
        else f" Beyond MD: {plural(beyond.frames, 'frame')} of walkers with bonds "
        "turned and stretched at random, tested likewise."
    )
    return (
        f"Examination {examination.number}: {plural(examination.walkers, 'walker')} "
        f"from {began} on generation {examination.generation}, the best on the "
        f"validation set, at {examination.kelvin}{_pressure_words(history)}; a frame "
        f"of each after every {examination.steps} MD steps{turned}, whatever its "
        "surprise, predicted first and then labelled at the expensive level. No "
        "training sees them, nothing is chosen by them, and their labels are outside "
        "the budget."
        f"{also}"
    )


def _about_validation(history: History) -> str:
    samples = list(history.of_kind(e.Sampled))
    frames = len(history.state.labels.validation_frames())
    supplied = sum(label.test for label in history.opened.given)
    if supplied:
        return (
            f"Validation set: {plural(supplied, 'frame')} supplied by the user; no "
            "training sees them."
        )
    if not samples:
        return "Validation set: none so far."
    state = f"{temperature_text(history)}{_pressure_words(history)}"
    return (
        f"Validation set: {plural(frames, 'frame')} from {len(samples)} trajectories "
        f"of Langevin MD at the cheap level ({level_title(history, 'cheap')}){state}, "
        f"labelled at the expensive level ({level_title(history, 'expensive')}), "
        "drawn before the first training; no training sees them, and their labels "
        "are outside the budget. It decides when to stop and which generation is best, "
        "so that its error is no test."
    )


def _pressure_words(history: History) -> str:
    pressure = config_number(history, "explore", "pressure")
    return "" if pressure is None else f" and {pressure:g} GPa"


def level_table(history: History) -> Markup:
    """Return a table of all settings of both levels."""
    levels: Mapping[str, Any] = history.attrs.get("levels", {})
    settings = {name: level.get("settings", {}) for name, level in levels.items()}
    keys = list(dict.fromkeys(key for level in settings.values() for key in level))
    facts = [
        (key, *(str(level.get(key, "–")) for level in levels.values()))
        for key in ("title", "kind", "id")
    ]
    rows = [
        (key, *(_setting_value(level.get(key, "–")) for level in settings.values()))
        for key in keys
        if key != "title"
    ]
    return table_html(("level", *levels), [*facts, *rows], words=9)


def _setting_value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, "") else str(value)


def _alloop_citation(history: History) -> str:
    version_used = history.attrs.get("alloop_version", "?")
    return f"alloop {version_used}: CITATION.cff in its repository"


def _version_text(history: History) -> str:
    programs = {label.record.details.get("program") for label in label_entries(history)}
    used = and_list(sorted(str(name) for name in programs if name)) or "not recorded"
    versions = ", ".join(f"{name} {_package_version(name)}" for name in _LIBRARIES)
    made_by = history.attrs.get("alloop_version", "?")
    return (
        f"Store made by alloop {made_by}. Labels were made by: {used}. This page was "
        f"written with alloop {_package_version('alloop')}, {versions}."
    )


def _package_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def reading_snippet(history: History) -> str:
    """Return Python code that reads the store without alloop."""
    return (
        "import zarr\n"
        f'store = zarr.open("{history.place}", mode="r", zarr_format=3)\n'
        'label, frames = store["labels/expensive"], store["structures"]\n'
        'row = label["structure"][0]; '
        'start, stop = frames["offsets"][row : row + 2]\n'
        'print(label["energy"][0], frames["numbers"][start:stop], '
        'frames["positions"][start:stop])'
    )


def reading_section(history: History) -> Section:
    """Return the section that explains reading the store."""
    body = (
        paragraph("The store is a Zarr v3 group; these lines need no alloop:")
        + code_block(reading_snippet(history))
        + paragraph(
            "Each array says what it is (`about`) and in which unit (`units`) in its "
            "attributes. `alloop export STORE OUT.xyz` writes the labels as extended "
            "XYZ, `alloop log STORE` prints every event."
        )
    )
    return Section("store", "How to read the store", body)


_FIRST = {
    "auto": "on the first rung where the gap is small",
    "always": "on the first rung",
}


def label_checks(history: History) -> Iterator[str]:
    """Yield the checks of each level and the number of labels made again.

    Only checks that the campaign's own levels have are named.
    """
    levels: Mapping[str, Any] = history.attrs.get("levels", {})
    texts: dict[str, list[str]] = {}
    for level in levels.values():
        text = f"{_gate_text(level)}{_ladder_text(level['settings'])}"
        texts.setdefault(text, []).append(level["title"])
    for text, titles in texts.items():
        yield f"{and_list(titles)}: {text}"
    again = {floor.title: floor.n + floor.lost for floor in noise_floors(history)}
    if again:
        counts = and_list(f"{n} of {name}" for name, n in again.items())
        yield (
            "Noise: labels made a second time, at tighter settings where the level has "
            f"them and turned where the frame has no cell: {counts}."
        )


def _gate_text(level: Mapping[str, Any]) -> str:
    limits = level_tolerances(make_level(level["kind"], level["settings"]))
    slope = (
        f" The forces of {limits.slope:.0%} of the labels are compared with energies "
        "of a neighbouring frame."
    )
    return (
        f"no label where two atoms are closer than {limits.closest:g} of the sum of "
        f"their covalent radii, or where a component of a force exceeds "
        f"{limits.force:g} eV/Å, the net force {limits.net_force:g} eV/Å or the net "
        f"torque {limits.torque:g} eV."
    ) + slope * (limits.slope > 0)


def _ladder_text(settings: Mapping[str, Any]) -> str:
    rungs = settings.get("ladder")
    if not rungs:
        return ""
    text = f" Until the SCF converges: {and_list(rungs)}."
    if "stability" not in settings:
        return text
    first = _FIRST.get(settings["stability"], "")
    places = filter(None, (first, "on every later rung" * (len(rungs) > 1)))
    return f"{text} Internal stability is checked {and_list(places) or 'nowhere'}."
