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
from typing import Any, TypeAlias

import numpy as np

from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import DamagedError, StoreError
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
_FRAME_ARRAYS = len(fields(Batch))
_PLAIN = (str, bool, int, type(None))
_EXACTLY = frozenset(_PLAIN)


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
    versions
        The present version of a kind of record; 1 where it is not named.
    upcasters
        `(kind, version)` to a function that turns the fields of that version into those
        of the next. A field that is new and has a default needs none.
    """

    def __init__(
        self,
        classes: Iterable[type],
        *,
        versions: Mapping[str, int] | None = None,
        upcasters: Mapping[tuple[str, int], Upcaster] | None = None,
    ) -> None:
        given = versions or {}
        self._registry: dict[str, tuple[type, int]] = {
            cls.__name__: (cls, given.get(cls.__name__, 1)) for cls in (*CORE, *classes)
        }
        self._upcasters = dict(upcasters or {})

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
            A frame whose content is not that of its id.
        """
        for kind, version in encoded.versions.items():
            self._check(kind, version)
        return _Decoder(self._registry, self._upcasters, encoded).run()

    def _check(self, kind: str, version: int) -> None:
        _, known = self._registry.get(kind, (None, 0))
        if version > known:
            reads = f"reads up to {known}" if known else "does not know"
            raise StoreError(
                f"it holds {kind} of version {version}, which this alloop {reads}; "
                "upgrade alloop"
            )


class _Encoder:
    def __init__(self, registry: Mapping[str, tuple[type, int]]) -> None:
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
                return [self.value(each) for each in value]
            case list():
                return {"#list": [self.value(each) for each in value]}
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
        known, version = self.registry.get(cls.__name__, (None, 0))
        if known is not cls:
            raise TypeError(f"{cls.__name__} is not among the codec's classes")
        self.versions[cls.__name__] = version
        return cls.__name__


class _Decoder:
    def __init__(
        self,
        registry: Mapping[str, tuple[type, int]],
        upcasters: Mapping[tuple[str, int], Upcaster],
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
            return tuple([self.value(each) for each in tree])
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
                return {key: self.value(each) for key, each in content.items()}
            case "#list":
                return [self.value(each) for each in content]
            case "#float":
                return float(content)
            case "#enum":
                return self.member(*content)
        raise StoreError(
            f"it holds {sorted(tree)}, which is not alloop's; restore it from a copy"
        )

    def record(self, tree: dict[str, Any]) -> Any:
        kind = tree["#"]
        cls, current = self.registry[kind]
        value = self.value
        named = {key: value(each) for key, each in tree.items() if key != "#"}
        for version in range(self.encoded.versions[kind], current):
            upcast = self.upcasters.get((kind, version))
            named = upcast(named) if upcast else named
        if kind == "Label" and "stress" not in named:  # before labels had the field
            named["stress"] = stress_from_details(named.get("details", {}))
        try:
            return cls(**named)
        except TypeError as error:
            raise StoreError(
                f"its {kind} does not fit this alloop ({error}); use the "
                "version that wrote it"
            ) from error

    def member(self, kind: str, name: str) -> Any:
        members: dict[str, Any] = getattr(self.registry[kind][0], "__members__", {})
        if name not in members:
            raise StoreError(
                f"it holds {kind}.{name}, which this alloop does not know; "
                "upgrade alloop"
            )
        return members[name]


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


@cache
def _settable_fields(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls) if f.init)


def _field_key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a mapping's keys must be text to be stored, got {key!r}")
    return str(key)
