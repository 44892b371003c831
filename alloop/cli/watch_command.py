"""The command `watch`: one live, read-only page of a campaign, on this machine only."""

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alloop.cli.campaign_paths import StorePath, find_store
from alloop.cli.console import print_text
from alloop.core.errors import AlloopError, InputError

if TYPE_CHECKING:
    from alloop.history.reader import History

_HERE = "127.0.0.1"
_KEY = "ALLOOP_WATCH_KEY"  # the environment variable of a key that stays the same
_SHORTEST = 16  # characters of such a key
_REFRESH = 30  # s
_FRESH = 2.0  # s for which an answer is given again


def watch(
    place: StorePath,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="port; 0: any that is free")
    ] = 0,
) -> None:
    """Serve a live page of a campaign and its metrics, to this machine alone.

    Prints the address, which has a random key (or that of ALLOOP_WATCH_KEY). Ctrl-C
    ends it; the campaign may run, stop or be dead meanwhile.
    """
    server = watch_server(find_store(place), port)
    print_text(f"http://{_HERE}:{server.server_port}/{server.key}/")
    with contextlib.suppress(KeyboardInterrupt), server:
        server.serve_forever()


class WatchServer(ThreadingHTTPServer):
    """A server of the pages of one store, below a key in the address."""

    daemon_threads = True

    def __init__(self, store: Path, port: int, key: str) -> None:
        self.key = key
        self._store, self._lock = store, threading.Lock()
        self._answers: dict[str, tuple[float, bytes]] = {}
        super().__init__((_HERE, port), _Handler)

    def answer(self, name: str) -> tuple[bytes, str] | None:
        """Return the bytes and type of a page, None where there is none of the name."""
        if name not in _PAGES:
            return None
        make, kind = _PAGES[name]
        with self._lock:
            made, data = self._answers.get(name, (0.0, b""))
            now = time.time()
            if now - made > _FRESH:
                from alloop.history.reader import read_history

                data = make(read_history(self._store), now).encode(
                    errors="backslashreplace"
                )
                self._answers[name] = (now, data)
        return data, kind


def watch_server(store: Path, port: int = 0) -> WatchServer:
    """Return the server, which listens but does not serve yet.

    Raises InputError where the port is taken or the key is too short.
    """
    key = os.environ.get(_KEY) or secrets.token_urlsafe(16)
    if len(key) < _SHORTEST or not key.replace("-", "").replace("_", "").isalnum():
        raise InputError(
            f"expected {_SHORTEST} or more letters, digits, `-` or `_` in {_KEY}"
        )
    try:
        return WatchServer(store, port, key)
    except OSError as error:
        raise InputError(
            f"expected a free port, {port} cannot be used ({error.strerror}); choose "
            "another, or 0 for any"
        ) from error


class _Handler(BaseHTTPRequestHandler):
    """A handler that answers GET and HEAD, with the key alone."""

    server: WatchServer

    def do_GET(self) -> None:
        """Answer with a page."""
        self._reply(body=True)

    def do_HEAD(self) -> None:
        """Answer with the head of a page."""
        self._reply(body=False)

    def log_message(self, *_: object) -> None:
        """Print nothing: the address has the key."""

    def _reply(self, *, body: bool) -> None:
        _, _, path = self.path.partition("?")[0].partition("/")
        key, _, name = path.partition("/")
        if not secrets.compare_digest(key.encode(), self.server.key.encode()):
            return self._send(404, b"not found\n", "text/plain", body=body)
        try:
            answer = self.server.answer(name)
        except AlloopError as error:
            return self._send(503, f"{error}\n".encode(), "text/plain", body=body)
        if answer is None:
            return self._send(404, b"not found\n", "text/plain", body=body)
        data, kind = answer
        return self._send(200, data, kind, body=body)

    def _send(self, code: int, data: bytes, kind: str, *, body: bool) -> None:
        self.send_response(code)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        if kind == "text/html":
            self.send_header("Refresh", str(_REFRESH))
        self.end_headers()
        if body:
            with contextlib.suppress(OSError):
                self.wfile.write(data)


def _page(history: "History", now: float) -> str:
    from alloop.report.live_page import live_page

    return live_page(history, now)


def _metrics(history: "History", now: float) -> str:
    from alloop.report.live_page import metrics

    return metrics(history, now)


def _status(history: "History", _now: float) -> str:
    import json

    from alloop.report.status import campaign_status

    return json.dumps(campaign_status(history), indent=2) + "\n"


def _report(history: "History", _now: float) -> str:
    from alloop.report.sections.page import render_report

    return render_report(history)


_PAGES: dict[str, tuple[Callable[["History", float], str], str]] = {
    "": (_page, "text/html"),
    "metrics": (_metrics, "text/plain; version=0.0.4"),
    "status.json": (_status, "application/json"),
    "report": (_report, "text/html"),
}
