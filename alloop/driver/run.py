"""One run of a campaign: opens store, cluster and loop together, and closes them."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from alloop.config import Setup, changed_keys, fixed_differences
from alloop.config.molecules import element_symbols
from alloop.config.problems import ConfigError, Problem
from alloop.core.errors import InputError
from alloop.core.text import plural
from alloop.driver.driver import Driver, LabelStore
from alloop.driver.own_parts import OwnParts, refuse_other_parts
from alloop.driver.tolerant_cache import TolerantCache
from alloop.history.column_labels import set_aside_labels
from alloop.history.continuation import KeptAnswers
from alloop.history.fold_updater import FoldUpdater
from alloop.history.journal_codec import CODEC, opening_event
from alloop.history.label_entries import lost_labels
from alloop.labels.child.labeller import IsolatedLabeller
from alloop.labels.levels import check_level
from alloop.labels.programs import outside_code
from alloop.loop import events as e
from alloop.loop.policy import decide
from alloop.loop.state import LoopState
from alloop.store.archive import Archive
from alloop.store.cache import LabelCache
from alloop.store.lock import stop_requested, withdraw_stop
from alloop.workers.dask_pool import open_pool
from alloop.workers.pools import Pool
from alloop.workers.spool import Spool
from alloop.workers.task_times import TaskTimes
from alloop.workers.time_limits import TimeLimit, run_limit

_log = logging.getLogger(__name__)
_RECENT = 1000  # last journal records, from which durations are estimated
_ASKED = 0.5  # s between two checks for a request to stop
_COMPACT = 30.0  # s between two updates of the columns, at least
Observe = Callable[[LoopState, e.Turn], None]


@dataclass(frozen=True, slots=True)
class RunObserver:
    """Callbacks of a run.

    observe: called after each commit. tick: called between commits. stop: returns True
    to stop early. begin: receives a text when a phase begins. warn: receives errors
    that do not end the run.
    """

    observe: Observe = lambda _state, _turn: None
    tick: Callable[[], None] = lambda: None
    stop: Callable[[], bool] = lambda: False
    begin: Callable[[str], None] = lambda _text: None
    warn: Callable[[str], None] = _log.warning


@dataclass(slots=True)
class CampaignRun:
    """The open resources of a run."""

    setup: Setup
    archive: Archive
    keeper: FoldUpdater
    pool: Pool
    watch: RunObserver
    caches: tuple[LabelStore, ...] = ()
    spool: Spool | None = None
    due: TimeLimit | None = None
    posed: e.Posed | None = None
    own: OwnParts = field(default_factory=OwnParts)
    _turns: int = 0
    _compacted: float = field(default_factory=time.monotonic)
    _looked: float = -_ASKED
    _asked: bool = False

    def run_loop(self, retry: bool = False) -> LoopState:
        """Drive the loop to its end or until asked to stop, and fill the columns.

        retry: request labels again that a limit, a crash or a lost worker cost.
        """
        labels = lost_labels(self.keeper.history()) if retry else ()
        again = (e.Retried(labels),) if labels else ()
        driver = Driver(
            book=self.archive,
            ledger=self.keeper.fold.label_index,
            rules=self.setup.rules,
            pool=self.pool,
            policy=self.own.policy or decide,
            levels=self.setup.levels,
            caches=self.caches,
            observe=self._observe,
            tick=self.watch.tick,
            stop=self._stop_requested,
            due=self.due,
            times=self._task_times(),
            spool=self.spool,
            answers=KeptAnswers(self.keeper.history(), self.archive).find,
        )
        first = (*self._first_events(), *again)
        try:
            state = driver.run(self.keeper.fold.state, first)
        finally:
            self.keeper.fill_columns()
        self.keeper.close()
        stays = self.setup.cluster.kind == "address"  # labels go on without this run
        if driver.is_late(state) and not stays and self._turns == len(first):
            raise InputError(_too_short(state))
        if state.finished and not state.broken and self.spool is not None:
            self.spool.clear()
        return state

    def _task_times(self) -> TaskTimes:
        times = TaskTimes(
            self.setup.levels.values(), self.setup.worker_settings.limits.seconds
        )
        for event in self.keeper.last_events(_RECENT):
            times.note_event(event)
        return times

    def compact(self) -> None:
        """Update the columns up to the last record of the journal."""
        self.keeper.compact()
        self._compacted = time.monotonic()

    def _stop_requested(self) -> bool:
        """Return True once the observer or `alloop stop` requests an early end."""
        now = time.monotonic()
        if not self._asked and now - self._looked >= _ASKED:
            self._looked = now
            signature = self.archive.signature
            self._asked = stop_requested(self.archive.path, signature)
        return self._asked or self.watch.stop()

    def _first_events(self) -> tuple[e.Event, ...]:
        """Return the first events of this run.

        A new campaign begins with `Opened`. `Amended` follows if the rules changed, the
        campaign is broken, or it has nothing open. `Posed` adds given frames.
        """
        state, setup = self.keeper.fold.state, self.setup
        if self.keeper.fold.seq < 0:
            if setup.model is not None and setup.model_id is not None:
                self.archive.put_model(setup.model_id, setup.model)
            return (campaign_opening(setup, self.own),)
        names = changed_keys(self.keeper.config, setup.text)
        idle = not (state.open or state.finished)  # such as a new fork
        amended = names or state.broken or idle
        first = (e.Amended(setup.text, names),) if amended else ()
        return (*self._posed(state), *first)

    def _posed(self, state: LoopState) -> tuple[e.Posed, ...]:
        """Return the given examination frames, unless they were taken over already."""
        asked = () if self.posed is None else self.posed.frames
        known = {frame.id for frame in state.posed}
        if self.posed is None or {frame.id for frame in asked} == known:
            return ()
        return (self.posed,)

    def _observe(self, state: LoopState, turn: e.Turn) -> None:
        self._turns += 1
        self.keeper.add_turn(turn, state)
        self.watch.observe(state, turn)
        due = time.monotonic() - self._compacted > _COMPACT
        if due and isinstance(turn.event, e.Trained):
            self.compact()


@dataclass(frozen=True, slots=True)
class CallerParts:
    """Optional objects that a caller gives to a run.

    client: a distributed.Client. caches: further label caches. posed: examination
    frames in place of the campaign's own. own: parts of the loop.
    """

    client: Any = None
    caches: tuple[LabelStore, ...] = ()
    posed: e.Posed | None = None
    own: OwnParts = field(default_factory=OwnParts)


@contextlib.contextmanager
def open_run(
    setup: Setup, watch: RunObserver, guests: CallerParts
) -> Iterator[CampaignRun]:
    """Open store and cluster, and close both in any case.

    Raises InputError where the store holds another campaign, LockedError where another
    driver runs it, StoreError where it cannot be written.
    """
    cache = setup.cache
    own = () if cache is None else (TolerantCache(LabelCache(cache), watch.warn),)
    due = run_limit(setup.plan.limits.walltime)
    refuse_code(setup)
    watch.begin("opening the store")
    with _open_archive(setup, guests.own) as archive:
        refuse_another(setup, opening_event(archive), guests.own)
        keeper = FoldUpdater(archive)
        _verify_models(archive, keeper.fold.state)
        spool = Spool(setup.store)
        watch.begin("starting the workers")
        pool = _open_pool(setup, guests, spool)
        try:
            caches = (*own, *guests.caches, *set_aside_labels(keeper.history()))
            yield CampaignRun(
                *(setup, archive, keeper, pool, watch, caches, spool, due),
                posed=guests.posed,
                own=guests.own,
            )
        finally:
            pool.close()
            withdraw_stop(setup.store)


def _verify_models(archive: Archive, state: LoopState) -> None:
    """Raise DamagedError if a model in use is not the one that the journal names."""
    used = {state.model, *(insight.model for insight in state.insights.values())}
    for model in sorted(used - {None}, key=str):
        archive.model(str(model))


def refuse_code(setup: Setup) -> None:
    """Raise ConfigError if the code that a level names cannot make labels.

    The code is imported and tried in a child process, which `alloop check` never does.
    """
    code = {name: x for name, x in setup.levels.items() if outside_code(x)}
    if not code:
        return
    elements = element_symbols(setup.start)
    with IsolatedLabeller(next(iter(code.values()))) as child:
        problems = [
            Problem(f"levels.{name}", text)
            for name, level in code.items()
            for text in check_level(level, elements, within=child)
        ]
    if problems:
        raise ConfigError("the campaign", problems)


def _too_short(state: LoopState) -> str:
    return (
        "nothing could be finished within the time limit of this run; "
        f"{plural(len(state.open), 'task')} open, {min(state.open)} among them: give "
        "`limits: walltime` or the batch job more time"
    )


def _open_pool(setup: Setup, guests: CallerParts, spool: Spool) -> Pool:
    kit, own = replace(setup.worker_settings, spool=spool.folder), guests.own.potential
    if own is not None:
        kit = replace(kit, trainer=own.trainer, restore=own.restore)
    folder = setup.store.absolute()
    folder = folder.with_name(folder.name + ".jobs")
    return open_pool(replace(setup.cluster, folder=folder), kit, guests.client)


def campaign_opening(setup: Setup, own: OwnParts) -> e.Opened:
    """Return the first event of a campaign, which never changes for its store."""
    return e.Opened(
        seed=setup.seed,
        levels={fidelity: level.id for fidelity, level in setup.levels.items()},
        start=setup.start,
        given=setup.given,
        model=setup.model_id,
        parts=own.names(),
    )


def refuse_another(setup: Setup, first: e.Opened | None, own: OwnParts) -> None:
    """Raise InputError if a store was begun with another seed, start, levels or parts.

    first: its first event, None where it has none yet.
    """
    wrong = [] if first is None else fixed_differences(setup, first)
    if wrong:
        raise InputError(
            f"{setup.store} belongs to another campaign: {'; '.join(wrong)}. "
            "Choose another `store:`, or put the old values back"
        )
    if first is not None:
        refuse_other_parts(own, first.parts)


def store_attributes(setup: Setup) -> dict[str, Any]:
    """Return the attributes of the store: name, seed, configuration and levels."""
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


def _open_archive(setup: Setup, own: OwnParts) -> Archive:
    if setup.store.exists():
        return Archive.open(setup.store, CODEC, mode="w")
    names = own.names()
    attrs = store_attributes(setup) | ({"parts": names} if names else {})
    return Archive.create(setup.store, attrs=attrs, codec=CODEC)
