"""Settings as records: fields that carry their meaning, and the identity of a record.

A setting is declared once, as a field of a frozen dataclass in the room that uses it.
Its default, limits and description are plain metadata, from which the sections of
campaign files, options of commands and the reference are made.
"""

from collections.abc import Callable
from dataclasses import MISSING, Field, field, fields, is_dataclass
from typing import Any, TypeVar, cast

Default = TypeVar("Default")

# No campaign has more than these: a larger number is a typing mistake, which would take
# hours or all memory. PARALLEL_COUNT: of walkers, processes or jobs at once.
COUNT: dict[str, Any] = {"ge": 1, "le": 1_000_000_000}
PARALLEL_COUNT: dict[str, Any] = {"ge": 1, "le": 100_000}
LABELS_OR_NONE: dict[str, Any] = {"ge": 0, "le": 10_000_000}
WHOLE: dict[str, Any] = {"ge": 0, "le": 2**63 - 1}  # the largest index of an array
SHARE: dict[str, Any] = {"ge": 0, "le": 1}


def setting(
    default: Default,
    description: str,
    *,
    key: str | None = None,
    convert: Callable[[float], float] | None = None,
    **facts: Any,
) -> Default:
    """Return a field of a record, with its default, meaning and limits.

    key: its name in files, the field's own by default. convert: from the unit of files
    to that of the record; default and limits are in the unit of files. facts: limits as
    ge, gt, le and lt, and `implied` of `identity`.
    """
    value: Any = default
    converted = value if convert is None or value is None else convert(value)
    facts |= {"description": description, "default": default}
    facts |= {} if key is None else {"key": key}
    facts |= {} if convert is None else {"convert": convert}
    return cast("Default", field(default=converted, metadata=facts))


def from_milli(value: float) -> float:
    """Return a value in eV/Å of one in meV/Å."""
    return value * 1e-3


def settings_of(record: type[Any]) -> dict[str, Field[Any]]:
    """Return the fields of a record that files may set, by their key in files."""
    described = (item for item in fields(record) if "description" in item.metadata)
    return {item.metadata.get("key", item.name): item for item in described}


def limits_of(item: Field[Any]) -> dict[str, float]:
    """Return the limits of a setting by their names: ge, gt, le, lt."""
    return {x: item.metadata[x] for x in ("ge", "gt", "le", "lt") if x in item.metadata}


def identity(value: Any) -> Any:
    """Return a JSON value that tells settings from others, for saved states.

    A record becomes its class and those of its fields that differ from their defaults,
    so that a new field leaves older states valid. Where a default changes, `implied` of
    the setting keeps the value that states without the field were made with.
    """
    if isinstance(value, tuple | list):
        return [identity(item) for item in value]
    if not is_dataclass(value):
        return value
    values = {item: getattr(value, item.name) for item in fields(value)}
    changed = {x.name: identity(v) for x, v in values.items() if v != _implied(x)}
    return {"record": type(value).__name__, **changed}


def _implied(item: Field[Any]) -> Any:
    if item.default_factory is not MISSING:
        return item.default_factory()
    return item.metadata.get("implied", item.default)
