"""Messages between a worker and its child: a JSON header and raw arrays, no pickle.

A message is a mark, a checksum (CRC-32 of header and arrays), two little-endian
lengths, the header, then the arrays one after another.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Failure, Label, Unlabelled

_HEAD = struct.Struct("<8sIQQ")
_MARK = b"alloop 1"


class GarbledMessage(Exception):
    """Bytes that are not a message, from memory corruption or another writer."""


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """A header of JSON values and a mapping of arrays by name."""

    header: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


def encode_message(message: Message) -> bytes:
    """Return the bytes of a message."""
    arrays = {name: np.ascontiguousarray(a) for name, a in message.arrays.items()}
    layout = [(name, a.dtype.str, a.shape) for name, a in arrays.items()]
    header = json.dumps({**message.header, "arrays": layout}).encode()
    body = b"".join(a.tobytes() for a in arrays.values())
    rest = header + body
    return _HEAD.pack(_MARK, zlib.crc32(rest), len(header), len(body)) + rest


def decode_message(data: bytes | bytearray) -> tuple[Message, int] | None:
    """Return the first message in `data` and its size; None while it is incomplete.

    Raises `GarbledMessage` as soon as the bytes cannot become a message.
    """
    if not _MARK.startswith(data[: len(_MARK)]):
        raise GarbledMessage(f"expected a message, got {bytes(data[:40])!r}")
    if len(data) < _HEAD.size:
        return None
    _, checksum, head, body = _HEAD.unpack_from(data)
    size = _HEAD.size + head + body
    if len(data) < size:
        return None
    rest = bytes(data[_HEAD.size : size])
    if zlib.crc32(rest) != checksum:
        raise GarbledMessage("a message whose checksum is wrong")
    header = json.loads(rest[:head])
    return Message(header, _decode_arrays(header.pop("arrays"), rest[head:])), size


def receive_message(stream: BinaryIO) -> Message | None:
    """Return the next message of a blocking stream; None at the end of the stream."""
    top = stream.read(_HEAD.size)
    if len(top) < _HEAD.size:
        return None
    _, _, head, body = _HEAD.unpack(top)
    message = decode_message(top + stream.read(head + body))
    return None if message is None else message[0]


def label_request(level: Level, frame: Frame) -> Message:
    """Return the request to label a frame at a level."""
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


def parse_label_request(message: Message) -> tuple[Level, Frame]:
    """Return the level and the frame of a request."""
    header = message.header
    frame = Frame(
        charge=header["charge"],
        spin=header["spin"],
        pbc=header["pbc"],
        **message.arrays,
    )
    return Level(header["kind"], header["text"]), frame


def outcome_message(outcome: Label | Unlabelled) -> Message:
    """Return the answer to a request for a label."""
    header = {"cpu_seconds": outcome.cpu_seconds, "details": dict(outcome.details)}
    if isinstance(outcome, Label):
        label = {"say": "label", "energy": outcome.energy, **header}
        stress = {} if outcome.stress is None else {"stress": outcome.stress}
        return Message(label, {"forces": outcome.forces, **stress})
    failure, message = outcome.failure.name, outcome.message
    return Message({"say": "none", "failure": failure, "message": message, **header})


def parse_outcome(message: Message, frame: Frame, level: Level) -> Label | Unlabelled:
    """Return the outcome in an answer to a request for `frame` at `level`.

    Raises `GarbledMessage` for an answer that lacks a field or names no known failure.
    """
    header = message.header
    try:
        cost, details = header["cpu_seconds"], header["details"]
        if header["say"] == "label":
            forces = message.arrays["forces"]
            stress = message.arrays.get("stress")
            return Label(
                frame=frame.id,
                level=level.id,
                energy=header["energy"],
                forces=forces,
                cpu_seconds=cost,
                details=details,
                stress=stress,
            )
        failure = Failure[header["failure"]]
        return Unlabelled(
            frame=frame.id,
            level=level.id,
            failure=failure,
            message=header["message"],
            cpu_seconds=cost,
            details=details,
        )
    except KeyError as error:
        raise GarbledMessage(f"an answer without a known {error}") from error


def _decode_arrays(
    layout: list[tuple[str, str, list[int]]], body: bytes
) -> dict[str, npt.NDArray[Any]]:
    arrays, at = {}, 0
    for name, dtype, shape in layout:
        count = int(np.prod(shape, dtype=np.int64))
        flat = np.frombuffer(body, dtype=dtype, count=count, offset=at)
        arrays[name] = flat.reshape(shape).copy()
        at += flat.nbytes
    return arrays
