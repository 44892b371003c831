"""Names in PySCF levels, in their usual spelling; PySCF itself is not imported."""

import re

COUPLED_CLUSTER = ("ccsd", "ccsd(t)")
MULTIREFERENCE = ("casscf", "nevpt2")  # they have an active space
WAVE_FUNCTIONS = ("hf", "mp2", *COUPLED_CLUSTER, *MULTIREFERENCE)
BASES = (
    *("STO-3G", "3-21G", "6-31G", "6-31G*", "6-31G**", "6-31+G*", "6-31++G**"),
    *("6-311G", "6-311G*", "6-311G**", "6-311+G**", "6-311++G**"),
    *("def2-SVP", "def2-SVPD", "def2-TZVP", "def2-TZVPD", "def2-TZVPP", "def2-TZVPPD"),
    *("def2-QZVP", "def2-QZVPP", "pc-0", "pc-1", "pc-2", "pcseg-1", "pcseg-2"),
    *("cc-pVDZ", "cc-pVTZ", "cc-pVQZ", "cc-pV5Z", "cc-pCVDZ", "cc-pCVTZ"),
    *("aug-cc-pVDZ", "aug-cc-pVTZ", "aug-cc-pVQZ", "LANL2DZ"),
    *("gth-SZV", "gth-DZV", "gth-DZVP", "gth-TZVP", "gth-TZV2P"),
)
FUNCTIONALS = (
    *("SVWN", "PBE", "PBE0", "revPBE", "BLYP", "BP86", "B3LYP", "CAM-B3LYP", "HSE06"),
    *("TPSS", "TPSSh", "SCAN", "r2SCAN", "r2SCAN0", "M06", "M06-L", "M06-2X"),
    *("wB97X-V", "wB97M-V", "wB97X-D3BJ", "wB97M-D3BJ", "B97M-D3BJ", "B97M-V"),
)
RUNGS = ("default", "damping", "level shift", "second order")
DISPERSIONS = ("d3bj", "d3zero", "d4")
# Separate functionals in PySCF, with VV10 replaced by a fitted D3 or D4.
_WHOLE = ("wb97x-d3bj", "wb97m-d3bj", "b97m-d3bj", "wb97m-d4", "b97m-d4", "wb97x-d4")


def is_correlated(method: str) -> bool:
    """Return True for the methods beyond a mean field: MP2, coupled cluster, CASSCF."""
    return method in WAVE_FUNCTIONS[1:]


def plain_name(name: str) -> str:
    """Return a name in lower case without dashes, underscores and blanks."""
    return re.sub(r"[-_ ]", "", name).lower()


def basis_name(name: str) -> str:
    """Return the basis in its usual spelling, or as given if it is not known."""
    return {plain_name(name_of): name_of for name_of in BASES}.get(
        plain_name(name), name.strip()
    )


def functional_name(name: str) -> str:
    """Return the functional in its usual spelling, or in capitals if not known."""
    functionals = {functional.lower(): functional for functional in FUNCTIONALS}
    return functionals.get(name, name.upper())


def split_dispersion(method: str) -> tuple[str, str | None]:
    """Split `b3lyp-d3bj` into b3lyp and d3bj; leave functionals fitted as a whole."""
    name, _, suffix = method.rpartition("-")
    if name and suffix in DISPERSIONS and method not in _WHOLE:
        return name, suffix
    return method, None
