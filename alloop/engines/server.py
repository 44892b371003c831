"""One process that holds a model and answers many callers on this machine.

Callers connect to a UNIX socket and speak i-PI's protocol in the part of its driver:
INIT with a JSON of `numbers`, `charge`, `spin`, `pbc`; then POSDATA and GETFORCE. After
GETFORCE comes FORCEREADY, whose extra bytes are a JSON of surprise and error_limit, or
ERROR with the number of bytes (int32) of a sentence and the sentence.
"""

import json
import socket
import stat
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingUnixStreamServer
from threading import Lock
from typing import Any

import numpy as np
from ase.calculators.socketio import IPIProtocol, SocketClosed

from alloop.core.errors import AlloopError, InputError
from alloop.core.frame import Frame
from alloop.core.stress import tensor_of_voigt
from alloop.core.units import BOHR, HARTREE
from alloop.engines.evaluator import Evaluation, Evaluator, repeated

_MOST_BYTES = 10**7  # of a sentence or of a description of atoms


class ModelServer(ThreadingUnixStreamServer):
    """Serves an evaluator on a UNIX socket that only its user can open.

    place: the socket's path, in a folder in which nobody else may write; InputError
    otherwise, or where something is there. Calls are answered one after the other.
    """

    daemon_threads = True

    def __init__(self, place: Path, evaluator: Evaluator) -> None:
        self.evaluator, self.lock, self.place = evaluator, Lock(), place
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if place.parent.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise InputError(
                f"expected a folder that only its user can open, {place.parent} is "
                "open to others; name another one, or change its mode to 700"
            )
        if place.exists():
            raise InputError(f"{place} is there already; end that server or remove it")
        super().__init__(str(place), _Caller)

    def server_close(self) -> None:
        """Close the socket and remove it."""
        super().server_close()
        self.place.unlink(missing_ok=True)


class _Caller(BaseRequestHandler):
    server: ModelServer
    request: socket.socket

    def handle(self) -> None:
        """Answer one caller until it leaves."""
        protocol, frame = IPIProtocol(self.request), None
        answer: Evaluation | AlloopError | None = None
        with suppress(SocketClosed, ConnectionError):
            while (message := protocol.recvmsg()) != "EXIT":
                if message == "INIT":
                    frame = _read_frame(protocol)
                elif message == "POSDATA":
                    cell, _, positions = protocol.recvposdata()
                    answer = self._evaluated(frame, cell, positions)
                elif message == "GETFORCE" and answer is not None:
                    _answer(protocol, answer, cell)
                    answer = None
                elif message == "STATUS":
                    state = "READY" if answer is None else "HAVEDATA"
                    protocol.sendmsg(state if frame is not None else "NEEDINIT")
                else:
                    return

    def _evaluated(
        self, frame: Frame | None, cell: Any, positions: Any
    ) -> Evaluation | AlloopError:
        if frame is None or len(frame) != len(positions):
            return InputError("expected INIT with the numbers of these atoms first")
        batch = repeated(frame, positions[None], cell[None])
        try:
            with self.server.lock:
                return self.server.evaluator.evaluate(batch)
        except AlloopError as error:
            return error


def _read_frame(protocol: Any) -> Frame:
    protocol.recv(1, np.int32)
    size = int(protocol.recv(1, np.int32)[0])
    if not 0 < size < _MOST_BYTES:
        raise SocketClosed
    try:
        fields = json.loads(protocol.recv(size, np.byte).tobytes())
        numbers = np.array(fields["numbers"], dtype=np.int64)
        a, b, c = (bool(x) for x in fields.get("pbc", (False,) * 3))
        state = int(fields.get("charge", 0)), int(fields.get("spin", 0))
    except (ValueError, KeyError, TypeError) as error:
        raise SocketClosed from error
    return Frame(numbers, np.zeros((len(numbers), 3)), *state, pbc=(a, b, c))


def _answer(protocol: Any, answer: Evaluation | AlloopError, cell: Any) -> None:
    if isinstance(answer, AlloopError):
        text = str(answer).encode()
        protocol.sendmsg("ERROR")
        protocol.send(len(text), np.int32)
        protocol.send(np.frombuffer(text, np.byte), np.byte)
        return
    virial = np.zeros((3, 3))
    if answer.stress is not None and np.isfinite(answer.stress[0]).all():
        virial = -abs(np.linalg.det(cell)) * tensor_of_voigt(answer.stress[0])
    extras = {"surprise": answer.surprise[0], "error_limit": answer.error_limits[0]}
    data = np.frombuffer(json.dumps(extras).encode(), np.byte)
    protocol.sendforce(answer.energies[0], answer.forces, virial, data)


def call_server(
    place: Path,
    numbers: Sequence[int],
    positions: Any,
    *,
    charge: int = 0,
    spin: int = 0,
) -> tuple[float, Any, dict[str, float]]:
    """Return energy (eV), forces (eV/Å) and surprise and limit of a molecule.

    Raises InputError with the server's sentence where it refuses.
    """
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        try:
            connection.connect(str(place))
        except OSError as error:
            raise InputError(
                f"expected a server at {place} ({error.strerror}); start it with "
                "`alloop serve MODEL`"
            ) from error
        protocol = IPIProtocol(connection)
        fields = {"numbers": [int(x) for x in numbers], "charge": charge, "spin": spin}
        data = np.frombuffer(json.dumps(fields).encode(), np.byte)
        protocol.sendmsg("INIT")
        protocol.send(0, np.int32)
        protocol.send(len(data), np.int32)
        protocol.send(data, np.byte)
        protocol.sendposdata(np.eye(3), np.eye(3), np.asarray(positions))
        protocol.sendmsg("GETFORCE")
        return _received(protocol)


def _received(protocol: Any) -> tuple[float, Any, dict[str, float]]:
    message = protocol.recvmsg()
    if message == "ERROR":
        size = int(protocol.recv(1, np.int32)[0])
        raise InputError(protocol.recv(size, np.byte).tobytes().decode())
    energy = float(protocol.recv(1, np.float64)[0]) * HARTREE
    count = int(protocol.recv(1, np.int32)[0])
    forces = protocol.recv((count, 3), np.float64) * (HARTREE / BOHR)
    protocol.recv((3, 3), np.float64)
    size = int(protocol.recv(1, np.int32)[0])
    return energy, forces, json.loads(protocol.recv(size, np.byte).tobytes())
