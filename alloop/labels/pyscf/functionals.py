"""Checks of functional names, and of dispersion corrections that PySCF would omit."""

from functools import cache

from pyscf.dft import libxc

from alloop.labels.pyscf.spelling import WAVE_FUNCTIONS

# Of functionals fitted with a dispersion correction that libxc does not include.
_ENDINGS = ("_D", "_D3", "3C")
_INSTEAD = {"b97-d": "b97m-d3bj", "wb97x-d4": "wb97x-d3bj or wb97m-d4"}
_OTHERWISE = "wb97x-d3bj, or a plain functional with `dispersion: d3bj`"


def dispersion_problem(method: str, dispersion: str | None) -> str | None:
    """Return why method and dispersion do not fit together in a sentence, or None."""
    if method in WAVE_FUNCTIONS:
        return _of_wave_function(method) if dispersion else None
    if not is_known_functional(method):
        return f"PySCF knows no functional {method!r}"
    if method == "wb97x-d4" or (
        dispersion and _base_functional(method) in ("wb97x", "wb97m")
    ):
        return (
            f"PySCF takes different functionals for {method!r} with dispersion, by its "
            "version; try wb97x-d3bj or wb97m-d4, fitted as a whole"
        )
    if dispersion and _has_nonlocal(method):
        return f"{method!r} has its dispersion (VV10) in it; leave `dispersion` out"
    if not dispersion and _promises_dispersion(method):
        return (
            f"the dispersion of {method!r} is not supported: PySCF would leave it out; "
            f"try {_INSTEAD.get(method, _OTHERWISE)}"
        )
    return None


def is_known_functional(method: str) -> bool:
    """Return True if PySCF recognises the name of a functional."""
    try:
        libxc.parse_xc(method)
    except (KeyError, ValueError):
        return False
    except NotImplementedError:  # known, but not implemented
        return True
    return True


def known_functionals() -> list[str]:
    """Return PySCF's own names of functionals."""
    return [str(name).lower() for name in libxc.XC_ALIAS]


def _of_wave_function(method: str) -> str | None:
    if method == "hf":
        return None
    return f"dispersion corrections are for hf and DFT, not for {method}; leave it out"


def _promises_dispersion(method: str) -> bool:
    try:
        parts = libxc.parse_xc(method)[1]
    except NotImplementedError:  # PySCF's own list of functionals that it lacks
        return True
    return any(int(number) in _fitted_with() for number, _ in parts)


def _has_nonlocal(method: str) -> bool:
    return bool(libxc.is_nlc(method))


def _base_functional(method: str) -> str:
    return method.replace("_", "-").split("-")[0]


@cache
def _fitted_with() -> frozenset[int]:
    """Return libxc's numbers of functionals fitted with a dispersion correction."""
    codes = libxc.XC_CODES.items()
    numbers = {n for name, n in codes if name.endswith(_ENDINGS)}
    return frozenset(int(n) for n in numbers if not isinstance(n, str))
