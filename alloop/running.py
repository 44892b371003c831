"""One run of a campaign: store, cluster and loop, opened together and put away."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from alloop.config import Setup, changed, differences
from alloop.core.errors import InputError
from alloop.loop import events as e
from alloop.loop.cluster import open_pool
from alloop.loop.driver import Driver, Labels
from alloop.loop.history import CODEC, History, history_of
from alloop.loop.kit import OwnPotential
from alloop.loop.pools import Pool
from alloop.loop.state import LoopState
from alloop.loop.tables import tables
from alloop.store.archive import Archive
from alloop.store.cache import LabelCache
from alloop.store.columns import write

_COMPACT = 30.0  # s: columns need not be younger while the campaign runs
Observe = Callable[[LoopState, e.Turn], None]


@dataclass(frozen=True, slots=True)
class Watch:
    """How somebody looks on: after each commit, in between, and with a say in when to
    stop early."""

    observe: Observe = lambda _state, _turn: None
    tick: Callable[[], None] = lambda: None
    stop: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class Run:
    """The open resources of a run."""

    setup: Setup
    archive: Archive
    history: History
    pool: Pool
    watch: Watch
    caches: tuple[Labels, ...] = ()
    _compacted: float = field(default_factory=time.monotonic)

    def drive(self) -> LoopState:
        """Drive the loop to its end or until asked to stop, and fill the columns."""
        driver = Driver(
            book=self.archive,
            ledger=self.history.ledger,
            rules=self.setup.rules,
            pool=self.pool,
            caches=self.caches,
            observe=self._observe,
            tick=self.watch.tick,
            stop=self.watch.stop,
        )
        try:
            return driver.run(self.history.state, self._first())
        finally:
            self.compact()

    def compact(self) -> None:
        """Bring the columns that others read up to the journal."""
        history = history_of(self.archive)
        mark = history.entries[-1].seq if history.entries else -1
        write(self.archive, tables(history), mark)
        self._compacted = time.monotonic()

    def _first(self) -> e.Event | None:
        """A new campaign opens; one whose rules changed, or which waits, is amended."""
        state, setup = self.history.state, self.setup
        if not self.history.entries:
            if setup.model is not None and setup.model_id is not None:
                self.archive.put_model(setup.model_id, setup.model)
            return opening(setup)
        names = changed(self.history.config, setup.text)
        idle = not (state.open or state.finished)  # as a fork is
        if names or state.broken or idle:
            return e.Amended(setup.text, names)
        return None

    def _observe(self, state: LoopState, turn: e.Turn) -> None:
        self.watch.observe(state, turn)
        due = time.monotonic() - self._compacted > _COMPACT
        if due and isinstance(turn.event, e.Trained):
            self.compact()


@dataclass(frozen=True, slots=True)
class Guests:
    """What a caller may bring to a run: a distributed.Client, more label caches, a
    potential of one's own."""

    client: Any = None
    caches: tuple[Labels, ...] = ()
    potential: OwnPotential | None = None


@contextlib.contextmanager
def running(setup: Setup, watch: Watch, guests: Guests) -> Iterator[Run]:
    """Open store and cluster, and close both whatever happens.

    Raises InputError where the store holds another campaign, LockedError where another
    driver runs it, StoreError where it cannot be written.
    """
    own = () if setup.cache is None else (LabelCache(setup.cache),)
    with _archive(setup) as archive:
        history = history_of(archive)
        refuse_another(setup, history)
        pool = _pool(setup, guests)
        try:
            caches = (*own, *guests.caches)
            yield Run(setup, archive, history, pool, watch, caches)
        finally:
            pool.close()


def _pool(setup: Setup, guests: Guests) -> Pool:
    kit, own = setup.kit, guests.potential
    if own is not None:
        kit = replace(kit, trainer=own.trainer, restore=own.restore)
    return open_pool(setup.cluster, kit, guests.client)


def opening(setup: Setup) -> e.Opened:
    """The first event of a campaign: what never changes for its store."""
    return e.Opened(
        seed=setup.seed,
        levels={fidelity: level.id for fidelity, level in setup.levels.items()},
        start=setup.start,
        given=setup.given,
        model=setup.model_id,
    )


def refuse_another(setup: Setup, history: History) -> None:
    """InputError where the store was begun with another seed, start or levels."""
    if not history.entries:
        return
    wrong = differences(setup, history.opened)
    if wrong:
        raise InputError(
            f"{setup.store} belongs to another campaign: {'; '.join(wrong)}. "
            "Choose another `store:`, or put the old values back"
        )


def attributes(setup: Setup) -> dict[str, Any]:
    """What a store says of itself."""
    return {
        "name": setup.name,
        "seed": setup.seed,
        "config": setup.text,
        "levels": {
            fidelity: {"id": level.id, "title": level.title, "kind": level.kind}
            | {"settings": level.settings}
            for fidelity, level in setup.levels.items()
        },
    }


def _archive(setup: Setup) -> Archive:
    if setup.store.exists():
        return Archive.open(setup.store, CODEC, mode="w")
    return Archive.create(setup.store, attrs=attributes(setup), codec=CODEC)
