"""Conversion of records (frozen dataclasses) to a JSON tree with arrays, and back.

No class is looked up by name at run time: the codec knows only the classes that it was
given, so that a store can never make alloop run code. In the tree

    [...]                    a tuple            {"#": "Walker", ...}      a record
    {"#list": [...]}         a list             {"#map": {...}}           a mapping
    {"#array": i}            arrays[i]          {"#frame": i}             frames[i]
    {"#float": "nan"}        nan, inf, -inf     {"#enum": [class, NAME]}  an enum member

and None, bool, int, str and finite floats stand for themselves. A frame that occurs
many times in a record is stored once.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import numpy as np

from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import DamagedError, InputError, NewerStoreError, StoreError
from alloop.core.frame import Frame, FrameId
from alloop.core.levels import Level
from alloop.core.records import (
    Candidate,
    Failure,
    Label,
    LabelSet,
    Predictions,
    TrainingData,
    Unlabelled,
    Walker,
)
from alloop.core.stress import stress_from_details
from alloop.store.record import Array

Fields: TypeAlias = dict[str, Any]
Upcaster: TypeAlias = Callable[[Fields], Fields]

CORE: tuple[type, ...] = (
    Batch,
    Candidate,
    Failure,
    Label,
    LabelSet,
    Level,
    Predictions,
    TrainingData,
    Unlabelled,
    Walker,
)
VERSION = 1  # of each kind of record; a store with a higher one is a newer alloop's
_FRAME_ARRAYS = len(fields(Batch))
_PLAIN = (str, bool, int, type(None))
_EXACTLY = frozenset(_PLAIN)
_KINDS = {"f": "fiu", "i": "iu", "b": "b"}  # of arrays that pass for such ones
_WHOLE = 2**63  # the largest integer that an array holds, and one
# What a record that was made by hand can raise anywhere in the decoder.
_MALFORMED = (
    *(ArithmeticError, AttributeError, LookupError, RecursionError, TypeError),
    *(ValueError, InputError),
)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRecord:
    """A record as a JSON tree and arrays; versions: of the kinds of record inside."""

    tree: Any
    arrays: tuple[Array, ...]
    frames: tuple[FrameId, ...] = ()
    versions: Mapping[str, int] = field(default_factory=dict)


class Codec:
    """An encoder and decoder of records of the given classes and those of alloop.core.

    Parameters
    ----------
    classes
        Frozen dataclasses and enums beyond those of alloop.core.
    upcasters
        By the name of a class, a function from the fields that any alloop so far stored
        to those of today. A field that is new and has a default needs none.
    """

    def __init__(
        self,
        classes: Iterable[type],
        upcasters: Mapping[str, Upcaster] | None = None,
    ) -> None:
        self._registry: dict[str, type] = {
            cls.__name__: cls for cls in (*CORE, *classes)
        }
        self._upcasters = {"Label": _label_with_stress, **(upcasters or {})}

    def encode(self, record: object) -> EncodedRecord:
        """Return the record as tree and arrays; raise TypeError for unknown types."""
        return _Encoder(self._registry).run(record)

    def decode(self, encoded: EncodedRecord) -> Any:
        """Return the record that was encoded, converted from older versions.

        Raises:
        ------
        StoreError
            A kind or version of record that this alloop does not know.
        DamagedError
            A frame whose content is not that of its id, or a field with a value that
            its class does not allow.
        """
        try:
            for kind, version in encoded.versions.items():
                self._check(kind, version)
            return _Decoder(self._registry, self._upcasters, encoded).run()
        except _MALFORMED as error:
            what = f"{type(error).__name__}: {str(error)[:80]}"
            raise DamagedError(
                f"its content is not that of a record ({what}); restore it from a copy"
            ) from error

    def _check(self, kind: str, version: int) -> None:
        registered = kind in self._registry
        if version > VERSION or not registered:
            reads = f"reads up to {VERSION}" if registered else "does not know"
            raise NewerStoreError(
                f"it holds {kind} of version {version}, which this alloop {reads}; "
                "upgrade alloop"
            )


class _Encoder:
    def __init__(self, registry: Mapping[str, type]) -> None:
        self.registry = registry
        self.versions: dict[str, int] = {}
        self.arrays: list[Array] = []
        self.frames: dict[FrameId, tuple[int, Frame]] = {}

    def run(self, record: object) -> EncodedRecord:
        tree = self.value(record)
        frames = [frame for _, frame in self.frames.values()]
        packed = _frame_columns(pack_frames(frames)) if frames else ()
        return EncodedRecord(
            tree, (*packed, *self.arrays), tuple(self.frames), dict(self.versions)
        )

    def value(self, value: Any) -> Any:
        if type(value) in _EXACTLY:  # the most common case, on the path of each commit
            return value
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, Enum):
            return {"#enum": [self.kind(type(value)), value.name]}
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"#float": repr(value)}
        return self.compound(value)

    def compound(self, value: Any) -> Any:
        match value:
            case np.ndarray():
                self.arrays.append(value)
                return {"#array": len(self.arrays) - 1}
            case Frame():
                return {"#frame": self.frame(value)}
            case tuple():
                return [self.value(item) for item in value]
            case list():
                return {"#list": [self.value(item) for item in value]}
            case Mapping():
                return {
                    "#map": {_field_key(k): self.value(v) for k, v in value.items()}
                }
        return self.record(value)

    def frame(self, frame: Frame) -> int:
        return self.frames.setdefault(frame.id, (len(self.frames), frame))[0]

    def record(self, value: Any) -> Any:
        if not is_dataclass(value) or isinstance(value, type):
            raise TypeError(f"a {type(value).__name__} cannot be stored")
        kind = type(value)
        named = {
            name: self.value(getattr(value, name)) for name in _settable_fields(kind)
        }
        return {"#": self.kind(kind), **named}

    def kind(self, cls: type) -> str:
        if self.registry.get(cls.__name__) is not cls:
            raise TypeError(f"{cls.__name__} is not among the codec's classes")
        self.versions[cls.__name__] = VERSION
        return cls.__name__


class _Decoder:
    def __init__(
        self,
        registry: Mapping[str, type],
        upcasters: Mapping[str, Upcaster],
        encoded: EncodedRecord,
    ) -> None:
        self.registry = registry
        self.upcasters = upcasters
        self.encoded = encoded
        skip = _FRAME_ARRAYS if encoded.frames else 0
        self.frames = _decode_frames(encoded.arrays[:skip], encoded.frames)
        self.arrays = encoded.arrays[skip:]

    def run(self) -> Any:
        return self.value(self.encoded.tree)

    def value(self, tree: Any) -> Any:
        # Journals are long and this is their inner loop: types, not patterns.
        kind = type(tree)
        if kind is list:
            return tuple([self.value(item) for item in tree])
        if kind is not dict:
            return tree
        if "#" in tree:
            return self.record(tree)
        tag: str = ""
        content: Any = None
        if len(tree) == 1:
            ((tag, content),) = tree.items()
        match tag:
            case "#array":
                return self.arrays[content]
            case "#frame":
                return self.frames[content]
        return self.rare(tree, tag, content)

    def rare(self, tree: dict[str, Any], tag: str, content: Any) -> Any:
        match tag:
            case "#map":
                return {key: self.value(item) for key, item in content.items()}
            case "#list":
                return [self.value(item) for item in content]
            case "#float":
                return float(content)
            case "#enum":
                return self.member(*content)
        raise StoreError(
            f"it holds {sorted(tree)}, which is not alloop's; restore it from a copy"
        )

    def record(self, tree: dict[str, Any]) -> Any:
        kind = tree["#"]
        cls, value = self.registry[kind], self.value
        named = {key: value(item) for key, item in tree.items() if key != "#"}
        upcast = self.upcasters.get(kind)
        if upcast is not None:
            named = upcast(named)
        strange = [name for name in named if name not in _settable_fields(cls)]
        if strange:
            raise NewerStoreError(
                f"its {kind} has `{'`, `'.join(strange)}`, which this alloop does not "
                "know; upgrade alloop"
            )
        for name, right in _field_checks(cls).items():
            if name in named and not right(named[name]):
                raise DamagedError(
                    f"its {kind} has {str(named[name])[:40]!r} for `{name}`; restore "
                    "it from a copy"
                )
        try:
            return cls(**named)
        except TypeError as error:
            raise StoreError(
                f"its {kind} does not fit this alloop ({error}); use the "
                "version that wrote it"
            ) from error

    def member(self, kind: str, name: str) -> Any:
        members: dict[str, Any] = getattr(self.registry[kind], "__members__", {})
        if name not in members:
            raise NewerStoreError(
                f"it holds {kind}.{name}, which this alloop does not know; "
                "upgrade alloop"
            )
        return members[name]


def _label_with_stress(stored: Fields) -> Fields:
    """Return the fields of a label; the stress was once among its details."""
    if "stress" in stored:
        return stored
    return {**stored, "stress": stress_from_details(stored.get("details", {}))}


def _decode_frames(
    arrays: Sequence[Array], ids: Sequence[FrameId]
) -> tuple[Frame, ...]:
    if not ids:
        return ()
    frames = Batch(*arrays).frames()
    for frame, expected in zip(frames, ids, strict=True):
        if frame.id != expected:
            raise DamagedError(
                f"frame {expected} has the content of {frame.id}; "
                "run `alloop doctor` on the store"
            )
    return frames


def _frame_columns(batch: Batch) -> tuple[Array, ...]:
    return tuple(getattr(batch, f.name) for f in fields(Batch))


Check: TypeAlias = Callable[[Any], bool]


@cache
def _field_checks(cls: type) -> dict[str, Check]:
    """Return, for each field of a class, a check that a value is of its type."""
    if not is_dataclass(cls):
        return {}
    hints = get_type_hints(cls)
    return {name: _type_check(hints[name]) for name in _settable_fields(cls)}


def _type_check(hint: Any) -> Check:
    """Return a check that a value decoded is of a type; journals are long."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        checks = [_type_check(member) for member in inner]
        return lambda value: any(check(value) for check in checks)
    if origin is tuple and Ellipsis not in inner:
        checks = [_type_check(member) for member in inner]
        return lambda value: (
            type(value) is tuple
            and len(value) == len(checks)
            and all(check(x) for check, x in zip(checks, value, strict=True))
        )
    if origin is Literal:
        return lambda value: type(value) is str and value in inner
    if origin in (tuple, list):
        check = _type_check(inner[0])
        return lambda value: type(value) is origin and all(map(check, value))
    if origin is Mapping:
        check = _type_check(inner[1])
        return lambda value: type(value) is dict and all(map(check, value.values()))
    if origin is np.ndarray:
        kinds = _KINDS.get(np.dtype(get_args(inner[1])[0]).kind, "biufc")
        return lambda value: isinstance(value, np.ndarray) and value.dtype.kind in kinds
    return _plain_check(hint)


def _plain_check(hint: Any) -> Check:
    if hint is Any:
        return lambda _value: True
    if hint is int:
        return lambda value: type(value) is int and -_WHOLE <= value < _WHOLE
    if hint is float:  # whole numbers are stored as such
        return lambda value: (
            type(value) is float or (type(value) is int and -_WHOLE <= value < _WHOLE)
        )
    if hint in _EXACTLY:
        return lambda value: type(value) is hint
    return lambda value: isinstance(value, hint)


@cache
def _settable_fields(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls) if f.init)


def _field_key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a mapping's keys must be text to be stored, got {key!r}")
    return str(key)
