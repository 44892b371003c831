"""Receivers of notices: a shell line, a webhook, Apprise. None of them stops a run.

Notices are sent by a thread of their own. What a receiver did not take is told in the
log, and sent again, with the same id, by the next run of the campaign.
"""

import http.client
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeAlias

from alloop.config.sections.notify import Notify
from alloop.driver.notices import NoticeFile

Send: TypeAlias = Callable[[dict[str, Any]], None]
_PATIENCE = 60.0  # s for a command, and for Apprise
_ANSWER = 10.0  # s for a webhook
_PAUSES = (1.0, 5.0)  # s before further tries
_FAREWELL = 1.0  # s that the end of a run waits for receivers, at most


class NotTakenError(Exception):
    """An error for a notice that a receiver did not take; the message says why."""


@dataclass(frozen=True, slots=True)
class Receivers:
    """The receivers of a campaign by name, and what is wrong with the others.

    heartbeat: the address of a watcher, None without one.
    """

    sends: Mapping[str, Send]
    problems: tuple[str, ...] = ()
    heartbeat: str | None = None

    @property
    def trials(self) -> Mapping[str, Send]:
        """All that a test is sent to; that of the heartbeat is a request."""
        url = self.heartbeat
        if url is None:
            return self.sends
        return {**self.sends, "heartbeat": lambda _message: _request(url)}


def make_receivers(notify: Notify, environment: Mapping[str, str]) -> Receivers:
    """Return the receivers that a campaign file names.

    environment: holds the values of `$NAME`, which are read now and kept in memory.
    """
    sends: dict[str, Send] = {}
    problems = [
        f"`notify: {key}` names the environment variable {value[1:]}, which is not set"
        for key in ("webhook", "token", "apprise", "heartbeat")
        if (value := getattr(notify, key)) and _value(value, environment) is None
    ]
    if notify.command is not None:
        line = notify.command
        sends["command"] = lambda message: _run(["/bin/sh", "-c", line], message, {})
    url, token = (_value(x, environment) for x in (notify.webhook, notify.token))
    if url is not None and not url.startswith(("http://", "https://")):
        problems.append("expected `notify: webhook` to be an address of http or https")
    elif url is not None and (token is not None or notify.token is None):
        sends["webhook"] = lambda message: _post(url, token, message)
    urls = _value(notify.apprise, environment)
    if urls is not None and find_spec("apprise") is None:
        problems.append(
            "`notify: apprise` needs the package apprise: pip install 'alloop[apprise]'"
        )
    elif urls is not None:
        sends["apprise"] = lambda message: _run(
            [sys.executable, "-c", _APPRISE], message, {_ADDRESSES: urls}
        )
    watcher = _value(notify.heartbeat, environment)
    if watcher is not None and not watcher.startswith(("http://", "https://")):
        problems.append(
            "expected `notify: heartbeat` to be an address of http or https"
        )
        watcher = None
    return Receivers(sends, tuple(problems), watcher)


def _value(text: str | None, environment: Mapping[str, str]) -> str | None:
    if text is None or not text.startswith("$"):
        return text
    return environment.get(text[1:]) or None


# Apprise is imported in a process of its own: it sends while the driver goes on, or
# ends, and no exception or thread of a service's client gets into the run.
_ADDRESSES = "ALLOOP_APPRISE"
_APPRISE = f"""
import json, os, sys
from apprise import Apprise
message = json.load(sys.stdin)
body = "{{text}}\\n\\n{{id}}".format(**message)
services = Apprise()
known = services.add(os.environ["{_ADDRESSES}"].split())
sys.exit(0 if known and services.notify(title=message["title"], body=body) else 1)
"""


def _run(command: list[str], message: dict[str, Any], extra: dict[str, str]) -> None:
    """Run a command with the notice; raise NotTakenError unless it exits with 0.

    It has a session of its own, so that it outlives the driver and its Ctrl-C.
    """
    facts = {f"ALLOOP_{x.upper()}": str(message[x]) for x in _SHOWN}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **facts, **extra},
        start_new_session=True,
    )
    try:
        process.communicate(_body(message), timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise NotTakenError(f"it took longer than {_PATIENCE:g} s") from None
    if process.returncode:
        raise NotTakenError(f"its exit code was {process.returncode}")


_SHOWN = ("id", "about", "title", "text", "campaign")


def _body(message: dict[str, Any]) -> bytes:
    return json.dumps({k: v for k, v in message.items() if k != "state"}).encode()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A handler that follows no redirect, which might take the token elsewhere."""

    def redirect_request(self, *_args: Any, **_options: Any) -> None:
        """Return None: the answer is an error."""


def _post(url: str, token: str | None, message: dict[str, Any]) -> None:
    """Post the notice as JSON; raise NotTakenError unless the answer is 2xx."""
    head = {"Content-Type": "application/json", "Idempotency-Key": message["id"]}
    if token is not None:
        head["Authorization"] = f"Bearer {token}"
    _request(url, _body(message), head)


def _request(
    url: str, body: bytes | None = None, head: Mapping[str, str] | None = None
) -> None:
    """Request an address, or post to it; raise NotTakenError unless it answers 2xx.

    No message has the address, which may be a secret.
    """
    try:
        request = urllib.request.Request(url, body, dict(head or {}))
        opener = urllib.request.build_opener(_NoRedirects)
        with opener.open(request, timeout=_ANSWER):
            pass
    except urllib.error.HTTPError as error:
        error.close()
        raise NotTakenError(f"it answered {error.code}") from None
    except urllib.error.URLError as error:
        what = error.reason
        raise NotTakenError(str(getattr(what, "strerror", "") or what)) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NotTakenError(type(error).__name__) from None


class Heartbeat:
    """Requests to a watcher's address, so that a driver's silence is noticed.

    The loop of the run itself calls `beat`: requests stay away where it hangs, too.
    Each is sent by a thread; the first of several failures is a problem for the log.
    """

    def __init__(self, url: str | None, every: float) -> None:
        self._url, self._every, self._last = url, every, -math.inf
        self._thread: threading.Thread | None = None
        self._problems: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._failed = False

    def beat(self) -> None:
        """Send a request if one is due and the last one has ended."""
        busy = self._thread is not None and self._thread.is_alive()
        if self._url is None or busy or time.monotonic() - self._last < self._every:
            return
        self._last = time.monotonic()
        self._thread = threading.Thread(
            target=self._send, args=(self._url,), daemon=True
        )
        self._thread.start()

    def problems(self) -> Iterator[str]:
        """Yield sentences for the log that were not taken yet."""
        while not self._problems.empty():
            yield self._problems.get()

    def _send(self, url: str) -> None:
        try:
            _request(url)
        except NotTakenError as error:
            if not self._failed:
                self._problems.put(f"the heartbeat was not taken: {error}")
            self._failed = True
        else:
            self._failed = False


def try_receivers(sends: Mapping[str, Send], campaign: str) -> dict[str, str]:
    """Send a test notice to each; return why it was not taken, "" if it was."""
    message = {
        "id": uuid.uuid4().hex,
        "time": time.time(),
        "campaign": campaign,
        "about": "test",
        "title": f"{campaign}: test",
        "text": "this is a test: the campaign will tell you here",
    }
    results = dict.fromkeys(sends, "")
    for name, send in sends.items():
        try:
            send(message)
        except (NotTakenError, OSError) as error:
            results[name] = str(error)
    return results


class Sender:
    """A thread that sends notices, one after the other for each receiver.

    file: where notices are recorded. pauses: s before further tries. `problems` are
    sentences for the log, to be taken by the thread that runs the campaign.
    """

    def __init__(
        self,
        receivers: Mapping[str, Send],
        file: NoticeFile,
        pauses: tuple[float, ...] = _PAUSES,
    ) -> None:
        self._receivers, self._file, self._pauses = receivers, file, pauses
        self._problems: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._queues: dict[str, queue.SimpleQueue[dict[str, Any] | None]] = {}
        self._threads = []
        for name in receivers:
            self._queues[name] = queue.SimpleQueue()
            thread = threading.Thread(target=self._work, args=(name,), daemon=True)
            thread.start()
            self._threads.append(thread)
        for name, message in file.untaken(list(receivers)):
            self._queues[name].put(message)

    def send(self, message: dict[str, Any]) -> None:
        """Send a notice to all receivers, soon; returns at once."""
        for name in self._queues:
            self._queues[name].put(message)

    def problems(self) -> list[str]:
        """Return what receivers did not take since the last call, in sentences."""
        return [self._problems.get() for _ in range(self._problems.qsize())]

    def close(self, seconds: float = _FAREWELL) -> None:
        """Wait until all is sent, no longer than this."""
        self._ending.set()
        until = time.monotonic() + seconds
        for waiting in self._queues.values():
            waiting.put(None)
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        late = sum(thread.is_alive() for thread in self._threads)
        if late:
            self._problems.put(
                f"{late} of {len(self._threads)} receivers of notices did not answer "
                f"within {seconds:g} s; the next run asks again"
            )

    def _work(self, name: str) -> None:
        while (message := self._queues[name].get()) is not None:
            problem = self._try(self._receivers[name], message)
            self._file.note(message, name, "failed" if problem else "sent")
            if problem:
                self._problems.put(
                    f"`notify: {name}` did not take the notice `{message['about']}`: "
                    f"{problem}; the next run sends it again"
                )

    def _try(self, send: Send, message: dict[str, Any]) -> str:
        """Return why a receiver did not take a notice, "" if it did."""
        problem = ""
        for pause in (0.0, *self._pauses):
            if pause and self._ending.wait(pause):
                break
            try:
                send(message)
            except (NotTakenError, OSError) as error:
                problem = str(error)
            else:
                return ""
        return problem
