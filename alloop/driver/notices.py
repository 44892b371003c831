"""Notices of a campaign: which are due, and which were sent.

A notice has an id that follows from the journal, so that a resumed campaign gives the
same notice the same id. A file beside the store, STORE.notices, has a line for each
notice before it is sent, and one for each receiver that took it. A driver that dies in
between sends the notice again: a receiver that drops ids it has seen gets each notice
exactly once.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alloop.core.records import Topic
from alloop.core.text import plural, printable_line
from alloop.driver.failure_rates import Outcomes, failing_kinds
from alloop.loop.rules import Rules
from alloop.loop.state import LoopState
from alloop.loop.stopping import target_reason

_SHARES = (80, 100)  # percent of a budget that are told
_LONGEST = 1000  # characters of a text


@dataclass(frozen=True, slots=True)
class Notice:
    """A thing to tell. key: names it within its campaign, the same in every run."""

    about: Topic
    key: str
    text: str


def state_notices(state: LoopState, rules: Rules, seq: int) -> Iterator[Notice]:
    """Yield all notices that the state after record `seq` calls for. Pure.

    One that was due before is yielded again, with the same key.
    """
    for name, share, spent in _budgets(state, rules):
        for percent in _SHARES:
            if 100 * share >= percent:
                text = f"{percent} % of the budget of {name} is spent ({spent})"
                yield Notice("budget", f"budget/{name}/{percent}/{spent}", text)
    target = target_reason(state, rules)
    if target is not None:
        yield Notice("target", f"target/{rules.stopping.target}", target)
    if state.broken:
        yield Notice("stopped", f"stopped/{seq}", state.broken)
    elif state.finished:
        yield Notice("finished", f"finished/{seq}", state.finished)


def failure_notices(
    outcomes: Outcomes, share: float, window: int, number: int
) -> Iterator[Notice]:
    """Yield a notice for each kind of task of which this share failed. Pure.

    number: of the round; a kind is told once in it.
    """
    for kind, (failed, of) in failing_kinds(outcomes, share, window).items():
        text = f"{failed} of the last {plural(of, kind)} failed"
        yield Notice("failures", f"failures/{kind}/{number}", text)


def _budgets(state: LoopState, rules: Rules) -> Iterator[tuple[str, float, str]]:
    """Yield the name of each budget, its spent share, and the whole in words."""
    budget = rules.budget
    if rules.split is None:
        for fidelity in ("cheap", "expensive"):
            limit = budget.cheap if fidelity == "cheap" else budget.expensive
            if limit:
                share = state.labels.used(fidelity) / limit
                yield f"{fidelity} labels", share, f"{limit} labels"
    if budget.cpu_hours is not None:
        share = state.labels.cpu_seconds() / 3600 / budget.cpu_hours
        yield "CPU time", share, f"{budget.cpu_hours:g} CPU h"


def notices_file(store: Path) -> Path:
    """Return the path of a store's notices: STORE.notices."""
    return store.with_name(store.name + ".notices")


def read_notices(store: Path) -> list[dict[str, Any]]:
    """Return the lines of a store's notices; a torn one is left out.

    Each has `id`, `state` (due, sent or failed) and `time` (seconds since 1970); one
    that is due has `about`, `title` and `text` too, the others `receiver`.
    """
    try:
        lines = notices_file(store).read_bytes().splitlines()
    except OSError:
        return []
    return [x for x in map(_parse_line, lines) if x is not None]


def last_notice(store: Path) -> dict[str, Any] | None:
    """Return the newest notice of a store, or None."""
    return next((x for x in reversed(read_notices(store)) if x["state"] == "due"), None)


def _parse_line(line: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        value = json.loads(line)
        if isinstance(value, dict) and {"id", "state", "time"} <= value.keys():
            return value
    return None


class NoticeFile:
    """The notices of a campaign, on the disk: what is due, and who took it.

    identity: returns that of the campaign, wherever its store lies.
    """

    def __init__(self, store: Path, name: str, identity: Callable[[], str]) -> None:
        self._path, self._name, self._identity = notices_file(store), name, identity
        lines = read_notices(store)
        self._due = {x["id"]: x for x in lines if x["state"] == "due"}
        self._seen: set[str] = set()  # keys of this run
        self._taken = {
            (x["id"], x.get("receiver")) for x in lines if x["state"] == "sent"
        }

    def add(self, notice: Notice, facts: dict[str, Any]) -> dict[str, Any] | None:
        """Record a notice; return what to send, None where it was due before.

        What cannot be recorded, on a full disk, is sent all the same.
        """
        if notice.key in self._seen:
            return None
        self._seen.add(notice.key)
        name = f"{self._identity()}/{notice.key}"
        key = hashlib.sha256(name.encode()).hexdigest()[:32]
        if key in self._due:
            return None
        message = {
            "id": key,
            "state": "due",
            "time": time.time(),
            "campaign": self._name,
            "about": notice.about,
            "title": f"{self._name}: {notice.about}",
            "text": printable_line(notice.text)[:_LONGEST],
            **facts,
        }
        self._due[key] = message
        with contextlib.suppress(OSError):
            self._write(message)
        return message

    def untaken(self, receivers: Sequence[str]) -> Iterable[tuple[str, dict[str, Any]]]:
        """Yield each receiver with a notice that it has not taken yet, oldest first."""
        for key, message in self._due.items():
            for receiver in receivers:
                if (key, receiver) not in self._taken:
                    yield receiver, message

    def note(self, message: dict[str, Any], receiver: str, state: str) -> None:
        """Record that a receiver took a notice (`sent`), or that it did not."""
        if state == "sent":
            self._taken.add((message["id"], receiver))
        line = {"id": message["id"], "state": state, "time": time.time()}
        with contextlib.suppress(OSError):
            self._write({**line, "receiver": receiver})

    def _write(self, line: dict[str, Any]) -> None:
        """Append a line, synced; a newline comes first, since the last may be torn."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        handle = os.open(self._path, flags, 0o600)
        try:
            os.write(handle, b"\n" + json.dumps(line).encode() + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
