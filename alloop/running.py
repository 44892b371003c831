"""One run of a campaign: store, cluster and loop, opened together and put away."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from alloop.config import Setup, changed, differences
from alloop.config.molecules import elements
from alloop.config.problems import ConfigError, Problem
from alloop.core.counting import plural
from alloop.core.errors import InputError
from alloop.labels.levels import check_level
from alloop.labels.named_code import named_code
from alloop.loop import events as e
from alloop.loop.answers import Answers
from alloop.loop.cluster import open_pool
from alloop.loop.codec import CODEC, opened
from alloop.loop.driver import Driver, Labels
from alloop.loop.due import Due, of_run
from alloop.loop.keeping import Keeper
from alloop.loop.kit import OwnPotential
from alloop.loop.lost_labels import set_aside
from alloop.loop.pools import Pool
from alloop.loop.retries import lost
from alloop.loop.spared import SparedCache
from alloop.loop.spool import Spool
from alloop.loop.state import LoopState
from alloop.loop.times import Times
from alloop.store.archive import Archive
from alloop.store.cache import LabelCache
from alloop.store.requests import stop_requested, withdraw_stop

_log = logging.getLogger(__name__)
_RECENT = 1000  # journal records that tell how long things take
_ASKED = 0.5  # s between two looks for a request to stop
_COMPACT = 30.0  # s: columns need not be younger while the campaign runs
Observe = Callable[[LoopState, e.Turn], None]


@dataclass(frozen=True, slots=True)
class Watch:
    """How somebody looks on: after each commit, in between, and with a say in when to
    stop early; hears what is begun, and of trouble that the run goes on without."""

    observe: Observe = lambda _state, _turn: None
    tick: Callable[[], None] = lambda: None
    stop: Callable[[], bool] = lambda: False
    begin: Callable[[str], None] = lambda _text: None
    warn: Callable[[str], None] = _log.warning


@dataclass(slots=True)
class Run:
    """The open resources of a run."""

    setup: Setup
    archive: Archive
    keeper: Keeper
    pool: Pool
    watch: Watch
    caches: tuple[Labels, ...] = ()
    spool: Spool | None = None
    due: Due | None = None
    posed: e.Posed | None = None
    _turns: int = 0
    _compacted: float = field(default_factory=time.monotonic)
    _looked: float = -_ASKED
    _asked: bool = False

    def drive(self, retry: bool = False) -> LoopState:
        """Drive the loop to its end or until asked to stop, and fill the columns.

        retry: ask again for labels that a limit, a crash or a lost worker cost.
        """
        labels = lost(self.keeper.history()) if retry else ()
        again = (e.Retried(labels),) if labels else ()
        driver = Driver(
            book=self.archive,
            ledger=self.keeper.known.ledger,
            rules=self.setup.rules,
            pool=self.pool,
            levels=self.setup.levels,
            caches=self.caches,
            observe=self._observe,
            tick=self.watch.tick,
            stop=self._stop,
            due=self.due,
            times=self._times(),
            spool=self.spool,
            answers=Answers(self.keeper.history(), self.archive).find,
        )
        first = (*self._first(), *again)
        try:
            state = driver.run(self.keeper.known.state, first)
        finally:
            self.keeper.fill()
        self.keeper.close()
        stays = self.setup.cluster.kind == "address"  # labels go on without us
        if driver.late(state) and not stays and self._turns == len(first):
            raise InputError(_too_short(state))
        if state.finished and not state.broken and self.spool is not None:
            self.spool.clear()
        return state

    def _times(self) -> Times:
        times = Times(self.setup.levels.values(), self.setup.kit.limits.seconds)
        for event in self.keeper.last(_RECENT):
            times.note(event)
        return times

    def compact(self) -> None:
        """Bring the columns that others read up to the journal."""
        self.keeper.compact()
        self._compacted = time.monotonic()

    def _stop(self) -> bool:
        """True once the one who looks on, or `alloop stop`, wants an early end."""
        now = time.monotonic()
        if not self._asked and now - self._looked >= _ASKED:
            self._looked = now
            signature = self.archive.signature
            self._asked = stop_requested(self.archive.path, signature)
        return self._asked or self.watch.stop()

    def _first(self) -> tuple[e.Event, ...]:
        """A new campaign opens; one whose rules changed, or which waits, is amended."""
        state, setup = self.keeper.known.state, self.setup
        if self.keeper.known.seq < 0:
            if setup.model is not None and setup.model_id is not None:
                self.archive.put_model(setup.model_id, setup.model)
            return (opening(setup),)
        names = changed(self.keeper.config, setup.text)
        idle = not (state.open or state.finished)  # as a fork is
        amended = names or state.broken or idle
        first = (e.Amended(setup.text, names),) if amended else ()
        return (*self._posed(state), *first)

    def _posed(self, state: LoopState) -> tuple[e.Posed, ...]:
        """The examination of another campaign, where it was not taken over yet."""
        asked = () if self.posed is None else self.posed.frames
        known = {frame.id for frame in state.posed}
        if self.posed is None or {frame.id for frame in asked} == known:
            return ()
        return (self.posed,)

    def _observe(self, state: LoopState, turn: e.Turn) -> None:
        self._turns += 1
        self.keeper.note(turn, state)
        self.watch.observe(state, turn)
        due = time.monotonic() - self._compacted > _COMPACT
        if due and isinstance(turn.event, e.Trained):
            self.compact()


@dataclass(frozen=True, slots=True)
class Guests:
    """What a caller may bring to a run: a distributed.Client, more label caches, a
    potential of one's own, frames to be examined on in place of its own."""

    client: Any = None
    caches: tuple[Labels, ...] = ()
    potential: OwnPotential | None = None
    posed: e.Posed | None = None


@contextlib.contextmanager
def running(setup: Setup, watch: Watch, guests: Guests) -> Iterator[Run]:
    """Open store and cluster, and close both whatever happens.

    Raises InputError where the store holds another campaign, LockedError where another
    driver runs it, StoreError where it cannot be written.
    """
    cache = setup.cache
    own = () if cache is None else (SparedCache(LabelCache(cache), watch.warn),)
    due = of_run(setup.plan.limits.walltime)
    refuse_code(setup)
    watch.begin("opening the store")
    with _archive(setup) as archive:
        refuse_another(setup, opened(archive))
        keeper = Keeper(archive)
        _verify_models(archive, keeper.known.state)
        spool = Spool(setup.store)
        watch.begin("starting the workers")
        pool = _pool(setup, guests, spool)
        try:
            caches = (*own, *guests.caches, *set_aside(keeper.history()))
            yield Run(
                setup, archive, keeper, pool, watch, caches, spool, due, guests.posed
            )
        finally:
            pool.close()
            withdraw_stop(setup.store)


def _verify_models(archive: Archive, state: LoopState) -> None:
    """DamagedError where a model that the campaign goes on with is not the one that
    the journal names."""
    used = {state.model, *(insight.model for insight in state.insights.values())}
    for model in sorted(used - {None}, key=str):
        archive.model(str(model))


def refuse_code(setup: Setup) -> None:
    """InputError where code that a level names cannot make labels: imported and tried
    in a child process, which `check` never does."""
    within = elements(setup.start)
    problems = [
        Problem(f"levels.{name}", text)
        for name, level in setup.levels.items()
        if named_code(level)
        for text in check_level(level, within)
    ]
    if problems:
        raise ConfigError("the campaign", problems)


def _too_short(state: LoopState) -> str:
    return (
        "nothing could be finished within the time limit of this run; "
        f"{plural(len(state.open), 'task')} open, {min(state.open)} among them: give "
        "`limits: walltime` or the batch job more time"
    )


def _pool(setup: Setup, guests: Guests, spool: Spool) -> Pool:
    kit, own = replace(setup.kit, spool=spool.folder), guests.potential
    if own is not None:
        kit = replace(kit, trainer=own.trainer, restore=own.restore)
    folder = setup.store.absolute()
    folder = folder.with_name(folder.name + ".jobs")
    return open_pool(replace(setup.cluster, folder=folder), kit, guests.client)


def opening(setup: Setup) -> e.Opened:
    """The first event of a campaign: what never changes for its store."""
    return e.Opened(
        seed=setup.seed,
        levels={fidelity: level.id for fidelity, level in setup.levels.items()},
        start=setup.start,
        given=setup.given,
        model=setup.model_id,
    )


def refuse_another(setup: Setup, first: e.Opened | None) -> None:
    """InputError where a store was begun with another seed, start or levels.

    first: its first event, None where it has none yet.
    """
    wrong = [] if first is None else differences(setup, first)
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
