"""Quantities that may be written with a unit: `90 min`, `24 h`, `64 GB`."""

import re
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_MEGABYTES = {"MB": 1.0, "GB": 1e3, "TB": 1e6}
_WRITTEN = re.compile(r"\s*(\d+(?:\.\d*)?)\s*([A-Za-z]+)\s*")


def _parse_quantity(given: Any, units: dict[str, float]) -> Any:
    if not isinstance(given, str):
        return given
    found = _WRITTEN.fullmatch(given)
    if found is None or found[2] not in units:
        known = ", ".join(units)
        raise ValueError(f"expected a number with a unit ({known}), got `{given}`")
    return float(found[1]) * units[found[2]]


def _parse_seconds(given: Any) -> Any:
    return _parse_quantity(given, _SECONDS)


def _parse_megabytes(given: Any) -> Any:
    return _parse_quantity(given, _MEGABYTES)


Duration: TypeAlias = Annotated[float, BeforeValidator(_parse_seconds), Field(gt=0)]
Memory: TypeAlias = Annotated[float, BeforeValidator(_parse_megabytes), Field(gt=0)]
