"""The base of all sections: strict types, bounded numbers, quantities and unions."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
    TypeAlias,
    TypeVar,
    get_args,
    get_type_hints,
)

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    create_model,
)

from alloop.core.settings import (
    COUNT,
    LABELS_OR_NONE,
    PARALLEL_COUNT,
    SHARE,
    WHOLE,
    limits_of,
    settings_of,
)

Record = TypeVar("Record")
Built = TypeVar("Built")

Positive: TypeAlias = Annotated[float, Field(gt=0)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0)]
# A molecule has no bonds left long before: a larger number is a typing mistake.
Kelvin: TypeAlias = Annotated[float, Field(gt=0, le=100_000)]
Share: TypeAlias = Annotated[float, Field(**SHARE)]
Count: TypeAlias = Annotated[int, Field(**COUNT)]
Whole: TypeAlias = Annotated[int, Field(**WHOLE)]
ParallelCount: TypeAlias = Annotated[int, Field(**PARALLEL_COUNT)]
LabelsOrNone: TypeAlias = Annotated[int, Field(**LABELS_OR_NONE)]
LabelCount: TypeAlias = Annotated[int, Field(ge=1, le=10_000_000)]
# Text that is written into a script: a word, or a whole line.
Word: TypeAlias = Annotated[str, Field(pattern=r"^\w[\w.@+:,/=-]*$", max_length=200)]
Line: TypeAlias = Annotated[str, Field(pattern=r"^[^\x00-\x08\x0a-\x1f\x7f]*$")]
# Quantities that may be written with a unit: `90 min`, `24 h`, `64 GB`.
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_WORDS_OF_TIME = {"sec": "s", "second": "s", "minute": "min", "hour": "h", "day": "d"}
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)")  # as Slurm and PBS write it
_MEGABYTES = {"MB": 1.0, "GB": 1e3, "TB": 1e6}
_WRITTEN = re.compile(r"\s*(\d+(?:\.\d*)?)\s*([A-Za-z]+)\s*")

Loose = Strict(False)  # a YAML list becomes a tuple; its items stay strict


def _parse_quantity(value: Any, units: dict[str, float]) -> Any:
    if not isinstance(value, str):
        return value
    match = _WRITTEN.fullmatch(value)
    if match is None or match[2] not in units:
        names = ", ".join(units)
        raise ValueError(f"expected a number with a unit ({names}), got `{value}`")
    return float(match[1]) * units[match[2]]


def _parse_seconds(value: Any) -> Any:
    """Return a time in s: a number, `90 min`, `24 hours`, `4:00:00` or `1-00:00:00`.

    `4:00` is refused: Slurm takes it for four minutes, most people for four hours.
    """
    if not isinstance(value, str):
        return value
    if clock := _CLOCK.fullmatch(value.strip()):
        days, hours, minutes, seconds = (int(x or 0) for x in clock.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    if ":" in value or "-" in value:
        text = "expected a time such as `4 h`, `4:00:00` or `1-00:00:00`"
        raise ValueError(f"{text}, got `{value}`")
    number, word = _split_unit(value)
    unit = _WORDS_OF_TIME.get(word, _WORDS_OF_TIME.get(word.removesuffix("s"), word))
    return _parse_quantity(f"{number} {unit}" if number else value, _SECONDS)


def _split_unit(text: str) -> tuple[str, str]:
    match = _WRITTEN.fullmatch(text)
    return (match[1], match[2]) if match else ("", "")


def parse_megabytes(value: Any) -> Any:
    """Return a size in MB: a number, `500 MB`, `64 GB` or `1 TB`."""
    return _parse_quantity(value, _MEGABYTES)


Duration: TypeAlias = Annotated[float, BeforeValidator(_parse_seconds), Field(gt=0)]
Memory: TypeAlias = Annotated[float, BeforeValidator(parse_megabytes), Field(gt=0)]


class Section(BaseModel):
    """A mapping in the YAML file: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


class RecordSection(Section, Generic[Record]):
    """A section of the settings of a record.

    `class Guards(RecordSection[guards.Guards])` has a key for each described setting,
    with its default, limits and description; the class may declare further keys.
    """

    record: ClassVar[type[Any]]

    if not TYPE_CHECKING:

        def __class_getitem__(cls, record: type[Any]) -> type["RecordSection"]:
            """Return the section with the keys of the record."""
            return _keyed_section(record)

    def build(self, **others: Any) -> Record:
        """Return the record of this section; others: fields that no key sets."""
        built: Record = build_record(self.record, self, **others)
        return built


def build_record(record: type[Built], section: Section, **others: Any) -> Built:
    """Return the record with the values of a section that has its keys.

    others: fields that no key sets, or not as they are. Raises InputError for values
    that make no sense together.
    """
    values: dict[str, Any] = {}
    settings = settings_of(record).items()
    for key, item in ((k, x) for k, x in settings if x.name not in others):
        value: Any = getattr(section, key)
        if value is not None and "convert" in item.metadata:
            value = item.metadata["convert"](value)
        values[item.name] = value
    return record(**{**values, **others})


def setting_key(record: type[Any], key: str, **changes: Any) -> Any:
    """Return the key of a section for a record's setting.

    changes: of default or description.
    """
    item = settings_of(record)[key]
    facts = {name: item.metadata[name] for name in ("default", "description")}
    return Field(**{**facts, **limits_of(item), **changes})


def setting_keys(record: type[Any]) -> dict[str, Any]:
    """Return type and key of a section for each of a record's settings."""
    hints = get_type_hints(record)
    settings = settings_of(record).items()
    return {k: (hints[item.name], setting_key(record, k)) for k, item in settings}


@cache
def _keyed_section(record: type[Any]) -> "type[RecordSection[Any]]":
    keys = setting_keys(record)
    section = create_model(record.__name__, __base__=RecordSection, **keys)
    section.record = record
    return section


def union_tag(name: str) -> Tag:
    """Return the tag of a union's member; the brackets mark it as no part of a path."""
    return Tag(f"<{name}>")


def by_kind(default: str | None = None, paths: str | None = None) -> Discriminator:
    """Choose a union's member by `kind:`; the member `paths` takes kinds like a:b."""

    def choose(value: Any) -> str | None:
        kind = value.get("kind", default) if isinstance(value, Mapping) else None
        kind = getattr(value, "kind", kind)
        if paths is not None and ":" in str(kind):
            return f"<{paths}>"
        return None if kind is None else f"<{kind}>"

    return _discriminator(choose, "kind")


def by_key(*keys: str, otherwise: str | None = None) -> Discriminator:
    """Choose a union's member by the first of these keys that is present."""

    def choose(value: Any) -> str | None:
        if not isinstance(value, Mapping | Section):
            return None
        keyed = value if isinstance(value, Mapping) else type(value).model_fields
        key = next((key for key in keys if key in keyed), otherwise)
        return None if key is None else f"<{key}>"

    return _discriminator(choose, " | ".join(keys))


def _discriminator(choose: Callable[[Any], str | None], name: str) -> Discriminator:
    choose.__name__ = name  # pydantic shows the name in its errors
    return Discriminator(choose)


def one_or_several() -> Discriminator:
    """Choose between a value and a list of such values."""

    def choose(value: Any) -> str:
        return "<several>" if isinstance(value, list | tuple) else "<one>"

    return _discriminator(choose, "a value or a list")


def section_members(annotation: Any) -> dict[str, type[Section]]:
    """Return the sections in an annotation, by tag; an untagged one has the tag ''."""
    if isinstance(annotation, type):
        return {"": annotation} if issubclass(annotation, Section) else {}
    members: dict[str, type[Section]] = {}
    parts = get_args(annotation)
    for part in parts:
        inside = section_members(part)
        tags = [x.tag for x in parts if isinstance(x, Tag)]
        members |= {tags[0] if tags and not key else key: inside[key] for key in inside}
    return members
