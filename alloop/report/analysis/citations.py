"""The papers to cite for a campaign, by the methods and programs that it used."""

from collections.abc import Iterator
from itertools import chain

from alloop.history.reader import History
from alloop.models.settings import NETWORKS, is_pretrained
from alloop.report.analysis.campaign_facts import config_value

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
    potential, flag = _word(history, "potential", "kind"), ("flag", "selection")
    words = [
        _word(history, "training", "kind"),
        _optimiser(history, potential),
        _word(history, "flag", "kind"),
        _word(history, *flag) or _word(history, *flag, "kind"),
        _word(history, "flag", "descriptors"),
    ]
    for kind in (potential, _word(history, "potential", "network", "kind")):
        yield from _POTENTIALS.get(kind, ())
    yield from (_LOOP[word] for word in words if word in _LOOP)
    if config_value(history, "refine") is not None:
        yield _KREIMAN
    if _word(history, "explore", "protocol") not in ("", "periodic"):
        yield _LOOP["q-residual"]
    if history.state.generations.errors:
        yield (
            "calibration of thresholds and limits: Lei et al., J. Am. Stat. Assoc. "
            "113, 1094 (2018)"
        )
    yield "Langevin MD: Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34"
    if config_value(history, "explore", "pressure") is not None:
        yield "constant pressure: Bernetti and Bussi, J. Chem. Phys. 153, 114107 (2020)"
        if _word(history, "explore", "barostat", "cell") != "isotropic":
            yield "shapes of cells: Del Tatto et al., Appl. Sci. 12, 1139 (2022)"


def _optimiser(history: History, potential: str) -> str:
    """Return the optimiser of the weight matrices, "" where there are none."""
    usual = "adamw" if is_pretrained(potential) else "muon"
    network = potential in NETWORKS
    return _word(history, "training", "optimiser") or (usual if network else "")


def _level_papers(history: History) -> Iterator[str]:
    """Yield the papers of the levels' programs, methods, basis sets and corrections."""
    for level in history.attrs.get("levels", {}).values():
        kind, settings = level.get("kind"), level.get("settings", {})
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


def _word(history: History, *path: str) -> str:
    """Return a word of the configuration in force, "" where there is none."""
    value = config_value(history, *path)
    return value if isinstance(value, str) else ""
