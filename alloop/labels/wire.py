"""Messages between a worker and its child: a JSON header and raw arrays, no pickle.

A message is two little-endian 8-byte lengths, the header, then the arrays in a row.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Failure, Label, Unlabelled

_LENGTHS = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """A header of JSON values, and arrays by name."""

    header: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    arrays = {name: np.ascontiguousarray(a) for name, a in message.arrays.items()}
    layout = [(name, a.dtype.str, a.shape) for name, a in arrays.items()]
    header = json.dumps({**message.header, "arrays": layout}).encode()
    body = b"".join(a.tobytes() for a in arrays.values())
    return _LENGTHS.pack(len(header), len(body)) + header + body


def decode(data: bytes | bytearray) -> tuple[Message, int] | None:
    """The first message in `data` and its size; None while it is incomplete."""
    if len(data) < _LENGTHS.size:
        return None
    head, body = _LENGTHS.unpack_from(data)
    size = _LENGTHS.size + head + body
    if len(data) < size:
        return None
    header = json.loads(bytes(data[_LENGTHS.size : _LENGTHS.size + head]))
    return Message(
        header, _arrays(header.pop("arrays"), data[size - body : size])
    ), size


def receive(stream: BinaryIO) -> Message | None:
    """The next message of a blocking stream; None where the stream has ended."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    rest = stream.read(sum(_LENGTHS.unpack(lengths)))
    found = decode(lengths + rest)
    return None if found is None else found[0]


def ask_label(level: Level, frame: Frame) -> Message:
    """The request to label a frame at a level."""
    header = {
        "ask": "label",
        "kind": level.kind,
        "text": level.text,
        "charge": frame.charge,
        "spin": frame.spin,
        "pbc": frame.pbc,
    }
    arrays = {
        "numbers": frame.numbers,
        "positions": frame.positions,
        "cell": frame.cell,
    }
    return Message(header, arrays)


def asked(message: Message) -> tuple[Level, Frame]:
    """The level and the frame of a request."""
    header = message.header
    frame = Frame(
        charge=header["charge"],
        spin=header["spin"],
        pbc=header["pbc"],
        **message.arrays,
    )
    return Level(header["kind"], header["text"]), frame


def tell(outcome: Label | Unlabelled) -> Message:
    """The answer to a request for a label."""
    header = {"cpu_seconds": outcome.cpu_seconds, "details": dict(outcome.details)}
    if isinstance(outcome, Label):
        told = {"say": "label", "energy": outcome.energy, **header}
        return Message(told, {"forces": outcome.forces})
    failure, message = outcome.failure.name, outcome.message
    return Message({"say": "none", "failure": failure, "message": message, **header})


def told(message: Message, frame: Frame, level: Level) -> Label | Unlabelled:
    """The outcome in an answer; whose it is, the asker knows."""
    header = message.header
    rest = (header["cpu_seconds"], header["details"])
    if header["say"] == "label":
        forces = message.arrays["forces"]
        return Label(frame.id, level.id, header["energy"], forces, *rest)
    failure = Failure[header["failure"]]
    return Unlabelled(frame.id, level.id, failure, header["message"], *rest)


def _arrays(
    layout: list[tuple[str, str, list[int]]], body: bytes | bytearray
) -> dict[str, npt.NDArray[Any]]:
    arrays, at = {}, 0
    for name, dtype, shape in layout:
        count = int(np.prod(shape, dtype=np.int64))
        flat = np.frombuffer(bytes(body), dtype=dtype, count=count, offset=at)
        arrays[name] = flat.reshape(shape).copy()
        at += flat.nbytes
    return arrays
