"""One run of a campaign: opens store, cluster and loop together, and closes them."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from alloop.config import Setup, changes_since
from alloop.core.errors import InputError, Interrupted
from alloop.core.text import plural
from alloop.driver.driver import Driver, LabelStore
from alloop.driver.opening import (
    campaign_opening,
    open_archive,
    refuse_another,
    refuse_machine,
    verify_models,
)
from alloop.driver.oversight import Oversight
from alloop.driver.own_parts import OwnParts
from alloop.history.column_labels import set_aside_labels
from alloop.history.continuation import KeptAnswers
from alloop.history.fold_updater import FoldUpdater
from alloop.history.journal_codec import opening_event
from alloop.history.label_entries import lost_labels
from alloop.labels.child.scratch import sweep_scratch
from alloop.loop import events as e
from alloop.loop.policy import decide
from alloop.loop.state import LoopState
from alloop.store.archive import Archive
from alloop.store.cache import LabelCache, TolerantCache
from alloop.store.claims import LabelClaims
from alloop.store.lock import stop_requested, withdraw_stop
from alloop.workers.dask_pool import open_pool
from alloop.workers.pools import Pool
from alloop.workers.settings import SuppliedFrames
from alloop.workers.shared_cluster import SharedCluster
from alloop.workers.spool import Spool
from alloop.workers.task_times import TaskTimes
from alloop.workers.time_limits import TimeLimit, run_limit

_log = logging.getLogger(__name__)
_RECENT = 1000  # last journal records, from which durations are estimated
_CHECK = 0.5  # s between two checks for a request to stop
_COMPACT = 300.0  # s between two updates of the columns, at least
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
    observer: RunObserver
    oversight: Oversight
    caches: tuple[LabelStore, ...] = ()
    spool: Spool | None = None
    time_limit: TimeLimit | None = None
    posed: e.Posed | None = None
    own: OwnParts = field(default_factory=OwnParts)
    claims: LabelClaims | None = None
    _times: TaskTimes = field(default_factory=TaskTimes)
    _turns: int = 0
    _compacted: float = field(default_factory=time.monotonic)
    _trained: bool = False  # since the last update of the columns
    _last_check: float = -_CHECK
    _stop_asked: bool = False

    def run_loop(self, retry: bool = False) -> LoopState:
        """Drive the loop to its end or until asked to stop, and fill the columns.

        retry: request labels again that a limit, a crash or a lost worker cost.
        """
        self._times = self._task_times()
        labels = lost_labels(self.keeper.history()) if retry else ()
        retried = (e.Retried(labels),) if labels else ()
        driver = Driver(
            archive=self.archive,
            label_index=self.keeper.fold.label_index,
            rules=self.own.rules(self.setup.rules),
            pool=self.pool,
            policy=self.own.policy or decide,
            levels=self.setup.levels,
            caches=self.caches,
            observe=self._observe,
            tick=self._tick,
            stop=self._stop_requested,
            time_limit=self.time_limit,
            task_times=self._times,
            spool=self.spool,
            kept_answer=KeptAnswers(self.keeper.history(), self.archive).find,
            supplied=self._supplied_frames(),
            claims=self.claims,
        )
        first = (*self._first_events(), *retried)
        try:
            state = driver.run(self.keeper.fold.state, first)
        finally:
            self.keeper.fill_columns()
        self.keeper.close()
        if self.oversight.paused is not None:
            raise Interrupted(self.oversight.paused)
        stays = self.setup.cluster.kind == "address"  # labels go on without this run
        if driver.is_late(state) and not stays and self._turns == len(first):
            raise InputError(_too_short(state))
        if state.finished and not state.broken and self.spool is not None:
            self.spool.clear()
        return state

    def _supplied_frames(self) -> SuppliedFrames:
        setup, original = self.setup, None
        if (setup.sets or setup.replay is not None) and setup.model_id is not None:
            original = setup.model or self.archive.model(setup.model_id)
        return SuppliedFrames(setup.sets, setup.replay, original)

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
        self._compacted, self._trained = time.monotonic(), False

    def _stop_requested(self) -> bool:
        """Return True once somebody requests an early end, or the run has to pause."""
        now = time.monotonic()
        if not self._stop_asked and now - self._last_check >= _CHECK:
            self._last_check = now
            signature = self.archive.signature
            self._stop_asked = stop_requested(self.archive.path, signature)
        paused = self.oversight.paused is not None
        return self.stop_asked() or paused

    def stop_asked(self) -> bool:
        """Return True if the observer or `alloop stop` requested an early end."""
        return self._stop_asked or self.observer.stop()

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
        names = changes_since(self.keeper.config, setup.text)
        idle = not (state.open or state.finished)  # such as a new fork
        amended = names or state.broken or idle
        first = (e.Amended(setup.text, names),) if amended else ()
        return (*self._posed(state), *first)

    def _posed(self, state: LoopState) -> tuple[e.Posed, ...]:
        """Return the given examination frames, unless they were taken over already."""
        frames = () if self.posed is None else self.posed.frames
        posed = {frame.id for frame in state.examination.posed_frames}
        if self.posed is None or {frame.id for frame in frames} == posed:
            return ()
        return (self.posed,)

    def _observe(self, state: LoopState, turn: e.Turn) -> None:
        self._turns += 1
        self.keeper.add_turn(turn, state)
        self.oversight.note_turn(state, turn)
        self.observer.observe(state, turn)
        self._trained = self._trained or isinstance(turn.event, e.Trained)

    def _tick(self) -> None:
        """Compact the store after a training, once its next tasks are submitted."""
        self.observer.tick()
        self.oversight.look(self.keeper.fold.state, self._times)
        if self._trained and time.monotonic() - self._compacted > _COMPACT:
            self.compact()


@dataclass(frozen=True, slots=True)
class CallerParts:
    """Optional objects that a caller gives to a run.

    client: a distributed.Client. cluster: of campaigns in a row. caches: further label
    caches. posed: examination frames in place of the campaign's own. own: parts of the
    loop.
    """

    client: Any = None
    cluster: SharedCluster | None = None
    caches: tuple[LabelStore, ...] = ()
    posed: e.Posed | None = None
    own: OwnParts = field(default_factory=OwnParts)


@contextlib.contextmanager
def open_run(
    setup: Setup, observer: RunObserver, parts: CallerParts
) -> Iterator[CampaignRun]:
    """Open store and cluster, and close both in any case.

    Raises InputError where the store holds another campaign, LockedError where another
    driver runs it, StoreError where it cannot be written.
    """
    cache = setup.cache
    stored_labels = (
        () if cache is None else (TolerantCache(LabelCache(cache), observer.warn),)
    )
    claims = None if cache is None else LabelClaims(cache, observer.warn)
    time_limit = run_limit(setup.plan.limits.walltime)
    refuse_machine(setup)
    observer.begin("opening the store")
    with open_archive(setup, parts.own) as archive:
        refuse_another(setup, opening_event(archive), parts.own)
        keeper = FoldUpdater(archive)
        verify_models(archive, keeper.fold.state)
        spool = Spool(setup.store)
        caches = (
            *stored_labels,
            *parts.caches,
            *set_aside_labels(keeper.history()),
        )
        sweep_scratch()
        identity = partial(_campaign_identity, keeper, archive)
        oversight = Oversight(setup, identity, keeper.fold.seq, observer.warn)
        runs: list[CampaignRun] = []
        with oversight.of_run(
            lambda: keeper.fold.state, lambda: any(run.stop_asked() for run in runs)
        ):
            observer.begin("starting the workers")
            pool = _open_pool(setup, parts, spool)
            try:
                run = CampaignRun(
                    *(setup, archive, keeper, pool, observer, oversight),
                    *(caches, spool, time_limit),
                    posed=parts.posed,
                    own=parts.own,
                    claims=claims,
                )
                runs.append(run)
                yield run
            finally:
                if claims is not None:
                    claims.close()
                pool.close()
                withdraw_stop(setup.store)


def _campaign_identity(keeper: FoldUpdater, archive: Archive) -> str:
    """Return what tells a campaign from others, wherever its store lies.

    It is the checksum of its first record, and of the fork that it began as.
    """
    forks = [entry.seq for entry, _ in keeper.history().of_kind(e.Forked, 1)]
    return "/".join(str(archive.digest(seq)) for seq in (0, *forks))


def _too_short(state: LoopState) -> str:
    return (
        "nothing could be finished within the time limit of this run; "
        f"{plural(len(state.open), 'task')} open, {min(state.open)} among them: give "
        "`limits: walltime` or the batch job more time"
    )


def _open_pool(setup: Setup, parts: CallerParts, spool: Spool) -> Pool:
    settings, user_parts = replace(setup.worker_settings, spool=spool.folder), parts.own
    if user_parts.potential is not None:
        potential = user_parts.potential
        settings = replace(
            settings, make_trainer=potential.get_trainer, restore=potential.restore
        )
    if user_parts.scorer is not None:
        settings = replace(
            settings, scoring=replace(settings.scoring, scorer=user_parts.scorer)
        )
    folder = setup.store.absolute()
    folder = folder.with_name(folder.name + ".jobs")
    plan = replace(setup.cluster, folder=folder)
    return open_pool(plan, settings, parts.client, parts.cluster)
