"""Repair of a damaged store into a new one, with which the campaign can continue.

The damaged store is only read. Records are kept up to the first lost one; after it, the
history is reconstructed from later records and from the columns, see
`alloop.history.continuation`. Tasks whose results are lost are left open, and resuming
the campaign computes them: with the same frames on the same machine and versions.
"""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from alloop.config import Setup, parse_campaign
from alloop.core.errors import AlloopError, DamagedError, InputError, StoreError
from alloop.core.frame import FrameId
from alloop.core.levels import LevelId
from alloop.core.records import Label, Unlabelled
from alloop.driver.own_parts import OwnParts
from alloop.driver.run import campaign_opening
from alloop.history.column_labels import ColumnLabel, read_labels
from alloop.history.continuation import (
    Continuation,
    ContinuedTurn,
    SavedRecord,
    leftover_turns,
    needed_models,
    saved_record,
)
from alloop.history.fold_keeper import FoldKeeper
from alloop.history.journal_codec import CODEC
from alloop.history.journal_fold import JournalFold
from alloop.loop import events as e
from alloop.loop.rules import Rules
from alloop.store import root
from alloop.store.archive import Archive
from alloop.store.codec import EncodedRecord
from alloop.store.doctor import runs
from alloop.store.files import FileSystem, make_folders
from alloop.store.journal import FOLDER, Journal, RawEntry
from alloop.store.links import refuse_links
from alloop.store.models import model_ids, read_model
from alloop.store.set_aside import parts

Key = tuple[LevelId, FrameId]


@dataclass(frozen=True, slots=True)
class RepairReport:
    """The result of a repair.

    lost: a sentence for each loss. kept: number of records copied as they are;
    restored: of reconstructed records; waiting: of answers kept for a later command;
    labels: of good labels in the new store.
    """

    lost: tuple[str, ...]
    kept: int
    restored: int
    waiting: int
    labels: int


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """The records of a journal that can be read.

    prefix: those before the first lost one. later: those after it. damaged: the numbers
    and errors of the lost ones.
    """

    prefix: tuple[tuple[RawEntry, e.Turn], ...]
    later: tuple[tuple[RawEntry, e.Turn], ...]
    damaged: tuple[tuple[int, str], ...]


def repair_store(store: Path, out: Path) -> RepairReport:
    """Make a new store `out` of all that is whole in `store`, which is not changed.

    The list of losses is written beside it, as OUT.lost.txt.

    Raises:
    ------
    InputError
        `out` exists already, or it is inside the store.
    StoreError
        There is no store, or not enough of it is whole to continue.
    """
    _refuse(store, out)
    refuse_links(store)
    attrs = _attributes(store)
    found = _survey(store)
    missing = _missing_models(store, found)
    work = _Work(store, attrs, found, missing)
    mending, prefix, waiting = work.mended()
    kept = prefix if mending is not None else found.prefix
    turns = [] if mending is None else mending.mended
    more = [*turns, *leftover_turns(waiting)]
    labels = _write(store, out, attrs, kept, more)
    repaired = RepairReport(
        lost=tuple(_losses(found, missing, kept, turns)),
        kept=len(kept),
        restored=len(turns),
        waiting=len(more) - len(turns),
        labels=labels,
    )
    text = "\n".join([*report_lines(repaired), ""])
    out.with_name(f"{out.name}.lost.txt").write_text(text, encoding="utf-8")
    return repaired


def report_lines(repaired: RepairReport) -> Iterator[str]:
    """Yield the lines of a report, one sentence each."""
    yield from repaired.lost or ("nothing is lost",)
    yield (
        f"kept: {repaired.kept} records as they were, {repaired.restored} put together "
        f"again, {repaired.waiting} answers that wait for their question; "
        f"{repaired.labels} good labels"
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """The data that a repair has read, and the reconstruction from them."""

    store: Path
    attrs: Mapping[str, Any]
    found: _Found
    missing: Mapping[str, int]

    def mended(
        self,
    ) -> tuple[
        Continuation | None, tuple[tuple[RawEntry, e.Turn], ...], list[SavedRecord]
    ]:
        """Return the continuation, the records kept, and the answers left over.

        If a model is lost that the campaign needs, records are kept only up to its
        training, so that it is trained again.
        """
        redone: set[str] = set()
        while True:
            prefix, later = self._parts(redone)
            mending, waiting = self._one(prefix, later, redone)
            wanted = needed_models(mending.state) & self.missing.keys() - redone
            trained = {x for x in wanted if self.missing[x] >= 0}
            if not trained:
                return mending, prefix, waiting
            redone |= trained

    def _parts(
        self, redone: Collection[str]
    ) -> tuple[
        tuple[tuple[RawEntry, e.Turn], ...], tuple[tuple[RawEntry, e.Turn], ...]
    ]:
        found = self.found
        cut = min((self.missing[each] for each in redone), default=len(found.prefix))
        begin = [item for item in found.prefix if item[0].seq < cut]
        return tuple(begin), (*found.prefix[len(begin) :], *found.later)

    def _one(
        self,
        prefix: tuple[tuple[RawEntry, e.Turn], ...],
        later: tuple[tuple[RawEntry, e.Turn], ...],
        redone: Collection[str],
    ) -> tuple[Continuation, list[SavedRecord]]:
        known = JournalFold()
        for _, turn in prefix:
            known.add_turn(turn)
        config = known.config or str(self.attrs["config"])
        mending = Continuation(known.state, config, self._rules(prefix), redone)
        opened = self._opening(prefix, later)
        _refuse_own_decisions(opened)
        if not prefix:
            mending.begin(later[0][0].time if later else 0.0, opened)
        turns = [(entry.time, turn) for entry, turn in later]
        items = list(saved_record(turns, known.state.open))
        time = prefix[-1][0].time if prefix else 0.0
        whole = {*known.ledger.labels, *_keys(items)}
        items = [*self._of_columns(mending.state.levels, whole, time), *items]
        return mending, mending.run(items)

    def _of_columns(
        self, levels: Mapping[str, LevelId], known: Collection[Key], time: float
    ) -> Iterator[SavedRecord]:
        """Yield the labels that only columns hold, those set aside included."""
        seen = set(known)
        for folder in (self.store, *parts(self.store)):
            fresh: list[ColumnLabel] = [
                each
                for each in read_labels(folder, levels)
                if (each.asked.level, each.asked.frame.id) not in seen
            ]
            seen |= {(each.asked.level, each.asked.frame.id) for each in fresh}
            yield from (SavedRecord(time, each.answer, each.asked) for each in fresh)

    def _rules(
        self, prefix: tuple[tuple[RawEntry, e.Turn], ...]
    ) -> Callable[[str], Rules]:
        opened = prefix[0][1].event if prefix else None

        @cache
        def rules(config: str) -> Rules:
            if not isinstance(opened, e.Opened):
                return self._loaded(config).rules
            return Setup.from_store(config, opened, self.store).rules

        return rules

    def _opening(
        self,
        prefix: tuple[tuple[RawEntry, e.Turn], ...],
        later: tuple[tuple[RawEntry, e.Turn], ...],
    ) -> e.Opened:
        """Return the first event of the campaign, made anew where it is lost."""
        first = prefix[0][1].event if prefix else None
        if isinstance(first, e.Opened):
            return first
        emptied = (self.store / "labels").is_dir() or parts(self.store)
        if not (later or self.found.damaged or emptied):
            raise InputError(f"{self.store} holds no campaign yet; run it first")
        setup = self._loaded(str(self.attrs["config"]))
        own_parts = self.attrs.get("parts", {})
        return replace(campaign_opening(setup, OwnParts()), parts=own_parts)

    def _loaded(self, config: str) -> Setup:
        try:
            setup = parse_campaign(config, self.store.parent)
        except AlloopError as error:
            raise DamagedError(
                f"record 0 of {self.store} is lost, and what it said cannot be made "
                f"from the configuration ({error}); restore the store from a copy"
            ) from error
        return replace(setup, store=self.store)


def _keys(items: list[SavedRecord]) -> Iterator[Key]:
    for item in items:
        match item.event:
            case e.Labelled(label=Label() as record):
                yield record.level, record.frame
            case e.NotLabelled(unlabelled=Unlabelled() as refused):
                yield refused.level, refused.frame


def _refuse_own_decisions(opened: e.Opened) -> None:
    """Raise InputError where decisions were not alloop's, so it cannot repeat them."""
    for role in ("policy", "selector"):
        if role in opened.parts:
            raise InputError(
                f"expected a campaign whose decisions alloop can make again, this one "
                f"has the {role} `{opened.parts[role]}`; restore the store from a copy"
            )


def _refuse(store: Path, out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise InputError(
            f"expected a place for a new store, {out} exists already; choose another"
        )
    if store.resolve() in out.resolve().parents:
        raise InputError(
            f"expected a place beside {store}, {out} lies in it; choose another"
        )


def _attributes(store: Path) -> dict[str, Any]:
    """Return the attributes of the store, if damaged from a copy or the whole part.

    Raises DamagedError where the configuration is lost.
    """
    try:
        attrs: dict[str, Any] | None = root.node_attributes(root.read_root(store))
        attrs = root.copied(store) or attrs
    except DamagedError:
        attrs = root.rescued(store)
    if attrs is None or not isinstance(attrs.get("config"), str):
        raise DamagedError(
            f"{store / root.NODE_FILE} is damaged where it holds the configuration, "
            "and there is no copy of it; restore that file"
        )
    return attrs


def _survey(store: Path) -> _Found:
    prefix: list[tuple[RawEntry, e.Turn]] = []
    later: list[tuple[RawEntry, e.Turn]] = []
    damaged: list[tuple[int, str]] = []
    for seq, entry in Journal(store / FOLDER).survey():
        try:
            if isinstance(entry, StoreError):
                raise entry
            turn: e.Turn = CODEC.decode(entry.record)
        except StoreError as error:
            damaged.append((seq, str(error)))
            continue
        (later if damaged else prefix).append((entry, turn))
    return _Found(tuple(prefix), tuple(later), tuple(damaged))


def _missing_models(store: Path, found: _Found) -> dict[str, int]:
    """Return the models that the records name and that are lost or damaged.

    By id: the number of the record of their training, -1 for one that the user brought.
    """
    out: dict[str, int] = {}
    for entry, turn in (*found.prefix, *found.later):
        match turn.event:
            case e.Opened(model=str(model)) if not _blob(store, model):
                out[model] = -1
            case e.Trained(model=model) if not _blob(store, model):
                out[model] = entry.seq
    return out


def _blob(store: Path, model: str) -> bytes | None:
    try:
        return read_model(store, model)
    except (StoreError, OSError, ValueError):
        return None


def _write(
    store: Path,
    out: Path,
    attrs: dict[str, Any],
    kept: tuple[tuple[RawEntry, e.Turn], ...],
    more: list[ContinuedTurn],
) -> int:
    """Make the new store, which appears whole or not at all; count its good labels."""
    files = FileSystem()
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    make_folders(files, out.parent)
    said = {**attrs, "repaired_from": str(store.absolute())}
    Archive.create(partial, attrs=said, codec=CODEC).close()
    try:
        _append(Journal(partial / FOLDER, writable=True, files=files), kept, more)
        with Archive.open(partial, CODEC, "w") as archive:
            for model in model_ids(store):
                blob = _blob(store, model)
                if blob is not None:
                    archive.put_model(model, blob)
            keeper = FoldKeeper(archive)
            keeper.fill_columns()
            labels = keeper.known.ledger.labels.values()
            count = sum(isinstance(label, Label) for label in labels)
            archive.seal()
        files.replace(partial, out)
        files.sync(out.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return count


def _append(
    journal: Journal,
    kept: tuple[tuple[RawEntry, e.Turn], ...],
    more: list[ContinuedTurn],
) -> None:
    records: list[tuple[float, EncodedRecord]] = [(x.time, x.record) for x, _ in kept]
    for seq, (time, record) in enumerate(records):
        journal.append(seq, record, time)
    for seq, each in enumerate(more, len(records)):
        journal.append(seq, CODEC.encode(each.turn), each.time)


def _losses(
    found: _Found,
    missing: Mapping[str, int],
    kept: tuple[tuple[RawEntry, e.Turn], ...],
    turns: list[ContinuedTurn],
) -> Iterator[str]:
    for run in runs(found.damaged):
        (first, what), (last, _) = run[0], run[-1]
        many = f"record {first}" if first == last else f"records {first} to {last}"
        yield f"{many} of the old store: {what}"
    told = [
        *((entry.seq, turn) for entry, turn in kept),
        *((-1, each.turn) for each in turns),
    ]
    there = {turn.event.model for _, turn in told if isinstance(turn.event, e.Trained)}
    for model, seq in missing.items():
        again = "it stays lost" if model in there else "it is trained again"
        if seq < 0:
            again = "the campaign was given it; give it again"
        yield f"model {model}: it is not whole; {again}"
