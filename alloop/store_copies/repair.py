"""Repair of a damaged store into a new one, with which the campaign can continue.

The damaged store is only read, in the parts that can still be read. Records are kept up
to the first lost one; after it, the history is reconstructed from later records and
from the columns, see `alloop.history.continuation`. Tasks whose results are lost are
left open, and resuming the campaign computes them: with the same frames on the same
machine and versions.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from alloop.config import Setup, parse_campaign
from alloop.core.errors import (
    AlloopError,
    DamagedError,
    InputError,
    NewerStoreError,
    StoreError,
)
from alloop.core.frame import FrameId
from alloop.core.levels import LevelId
from alloop.core.records import Label, Unlabelled
from alloop.driver.opening import campaign_opening
from alloop.driver.own_parts import OwnParts
from alloop.files.targets import replace_atomically
from alloop.history.column_labels import ColumnLabel, read_labels
from alloop.history.continuation import (
    Continuation,
    ContinuedTurn,
    SavedRecord,
    leftover_turns,
    needed_models,
    saved_records,
)
from alloop.history.fold_updater import FoldUpdater
from alloop.history.journal_codec import CODEC
from alloop.history.saved_fold import JournalFold
from alloop.loop import events as e
from alloop.loop.rules import Rules
from alloop.store import root
from alloop.store.archive import Archive
from alloop.store.codec import EncodedRecord
from alloop.store.doctor import consecutive_runs
from alloop.store.files import refuse_links
from alloop.store.journal import FOLDER, Journal, RawEntry
from alloop.store.models import model_ids, read_model
from alloop.store.set_aside import set_aside_folders
from alloop.store_copies.fork import new_store, refuse_target

Key = tuple[LevelId, FrameId]
Turns: TypeAlias = tuple[tuple[RawEntry, e.Turn], ...]


@dataclass(frozen=True, slots=True, eq=False)
class SurveyedRecords:
    """The records of a journal that can be read.

    prefix: those before the first lost one. later: those after it. damaged: the numbers
    and errors of the lost ones.
    """

    prefix: Turns
    later: Turns
    damaged: tuple[tuple[int, str], ...]


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


def repair_store(store: Path, out: Path) -> RepairReport:
    """Make a new store `out` of all that is whole in `store`, which is not changed.

    The list of losses is written beside it, as OUT.lost.txt.

    Raises:
    ------
    InputError
        `out` exists already, or it is inside the store.
    StoreError
        There is no store, a newer alloop wrote it, or not enough of it is whole to
        continue.
    """
    refuse_target(store, out)
    refuse_links(store)
    attrs = whole_attributes(store)
    survey = survey_records(store)
    missing = missing_models(store, survey)
    reconstruction = _Reconstruction(store, attrs, survey, missing)
    continuation, prefix, waiting = reconstruction.reconstruct()
    turns = continuation.turns
    more = [*turns, *leftover_turns(waiting)]
    origin = {"repaired_from": str(store.absolute())}
    with new_store(out, {**attrs, **origin}) as partial:
        repaired = RepairReport(
            lost=tuple(_loss_sentences(survey, missing, prefix, turns)),
            kept=len(prefix),
            restored=len(turns),
            waiting=len(more) - len(turns),
            labels=_write_store(store, partial, prefix, more),
        )
        text = "\n".join([*report_lines(repaired), ""])
        with replace_atomically(out.with_name(f"{out.name}.lost.txt")) as list_file:
            list_file.write_text(text, encoding="utf-8")
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
class _Reconstruction:
    """The data that a repair has read, and the reconstruction from them."""

    store: Path
    attrs: Mapping[str, Any]
    found: SurveyedRecords
    missing: Mapping[str, int]

    def reconstruct(self) -> tuple[Continuation, Turns, list[SavedRecord]]:
        """Return the continuation, the records kept, and the answers left over.

        If a model is lost that the campaign needs, records are kept only up to its
        training, so that it is trained again.
        """
        redone: set[str] = set()
        while True:
            prefix, later = self._split_records(redone)
            continuation, waiting = self._continue_from(prefix, later, redone)
            needed = needed_models(continuation.state) & self.missing.keys() - redone
            trained = {x for x in needed if self.missing[x] >= 0}
            if not trained:
                return continuation, prefix, waiting
            redone |= trained

    def _split_records(self, redone: Collection[str]) -> tuple[Turns, Turns]:
        survey = self.found
        cut = min((self.missing[model] for model in redone), default=len(survey.prefix))
        begin = [item for item in survey.prefix if item[0].seq < cut]
        return tuple(begin), (*survey.prefix[len(begin) :], *survey.later)

    def _continue_from(
        self, prefix: Turns, later: Turns, redone: Collection[str]
    ) -> tuple[Continuation, list[SavedRecord]]:
        fold = JournalFold()
        for _, turn in prefix:
            fold.add_turn(turn)
        config = fold.config or str(self.attrs["config"])
        continuation = Continuation(fold.state, config, self._rules_of(prefix), redone)
        opened = self._first_event(prefix, later)
        _refuse_own_decisions(opened)
        if not prefix:
            continuation.begin_campaign(later[0][0].time if later else 0.0, opened)
        turns = [(entry.time, turn) for entry, turn in later]
        items = list(saved_records(turns, fold.state.open))
        time = prefix[-1][0].time if prefix else 0.0
        labelled = {*fold.label_index.labels, *_label_keys(items)}
        levels = continuation.state.levels
        folders = (self.store, *set_aside_folders(self.store))
        columns = [list(read_labels(folder, levels)) for folder in folders]
        items = [*_column_records(columns, labelled, time), *items]
        return continuation, _with_requests(continuation.run(items), columns)

    def _rules_of(self, prefix: Turns) -> Callable[[str], Rules]:
        opened = prefix[0][1].event if prefix else None

        @cache
        def rules(config: str) -> Rules:
            if not isinstance(opened, e.Opened):
                return self._parse_setup(config).rules
            return Setup.from_store(config, opened, self.store).rules

        return rules

    def _first_event(self, prefix: Turns, later: Turns) -> e.Opened:
        """Return the first event of the campaign, made anew where it is lost."""
        first = prefix[0][1].event if prefix else None
        if isinstance(first, e.Opened):
            return first
        emptied = (self.store / "labels").is_dir() or set_aside_folders(self.store)
        if not (later or self.found.damaged or emptied):
            raise InputError(f"{self.store} holds no campaign yet; run it first")
        setup = self._parse_setup(str(self.attrs["config"]))
        own_parts = self.attrs.get("parts", {})
        return replace(campaign_opening(setup, OwnParts()), parts=own_parts)

    def _parse_setup(self, config: str) -> Setup:
        try:
            setup = parse_campaign(config, self.store.parent)
        except AlloopError as error:
            raise DamagedError(
                f"record 0 of {self.store} is lost, and what it said cannot be made "
                f"from the configuration ({error}); restore the store from a copy"
            ) from error
        return replace(setup, store=self.store)


def _label_keys(items: list[SavedRecord]) -> Iterator[Key]:
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


def _write_store(
    store: Path, partial: Path, prefix: Turns, more: list[ContinuedTurn]
) -> int:
    """Complete the new store with records and models; count its good labels."""
    _append_records(Journal(partial / FOLDER, writable=True), prefix, more)
    with Archive.open(partial, CODEC, "w") as archive:
        for model in model_ids(store):
            blob = model_blob(store, model)
            if blob is not None:
                archive.put_model(model, blob)
        updater = FoldUpdater(archive)
        updater.fill_columns()
        labels = updater.fold.label_index.labels.values()
        archive.seal()
    return sum(isinstance(label, Label) for label in labels)


def _append_records(
    journal: Journal,
    prefix: Turns,
    more: list[ContinuedTurn],
) -> None:
    records: list[tuple[float, EncodedRecord]] = [(x.time, x.record) for x, _ in prefix]
    for seq, (time, record) in enumerate(records):
        journal.append(seq, record, time)
    for seq, turn in enumerate(more, len(records)):
        journal.append(seq, CODEC.encode(turn.turn), turn.time)


def _loss_sentences(
    survey: SurveyedRecords,
    missing: Mapping[str, int],
    prefix: Turns,
    turns: list[ContinuedTurn],
) -> Iterator[str]:
    for run in consecutive_runs(survey.damaged):
        (first, what), (last, _) = run[0], run[-1]
        many = f"record {first}" if first == last else f"records {first} to {last}"
        yield f"{many} of the old store: {what}"
    events = [
        turn.event for turn in (*(t for _, t in prefix), *(x.turn for x in turns))
    ]
    there = {event.model for event in events if isinstance(event, e.Trained)}
    for model, seq in missing.items():
        again = "it stays lost" if model in there else "it is trained again"
        if seq < 0:
            again = "the campaign was given it; give it again"
        yield f"model {model}: it is not whole; {again}"


def _column_records(
    columns: Iterable[list[ColumnLabel]], labelled: Collection[Key], time: float
) -> Iterator[SavedRecord]:
    """Yield the labels that only columns hold, those set aside included."""
    seen = set(labelled)
    for labels in columns:
        fresh = [x for x in labels if (x.asked.level, x.asked.frame.id) not in seen]
        seen |= {(x.asked.level, x.asked.frame.id) for x in fresh}
        yield from (SavedRecord(time, x.answer, x.asked) for x in fresh)


def _with_requests(
    left: Iterable[SavedRecord], columns: Iterable[list[ColumnLabel]]
) -> list[SavedRecord]:
    """Return answers left over, with their requests from the columns where lost."""
    requests = {x.asked.name: x.asked for labels in columns for x in labels}
    return [
        replace(x, asked=x.asked or requests.get(e.event_name(x.event))) for x in left
    ]


def whole_attributes(store: Path) -> dict[str, Any]:
    """Return the attributes of the store, if damaged from a copy or the whole part.

    Raises DamagedError where the configuration is lost.
    """
    try:
        attrs: dict[str, Any] | None = root.node_attributes(root.read_root(store))
        attrs = root.attributes_copy(store) or attrs
    except DamagedError:
        attrs = root.rescued_attributes(store)
    if attrs is None or not isinstance(attrs.get("config"), str):
        raise DamagedError(
            f"{store / root.NODE_FILE} is damaged where it holds the configuration, "
            "and there is no copy of it; restore that file"
        )
    return attrs


def survey_records(store: Path) -> SurveyedRecords:
    """Read all records of a damaged journal that are whole and follow from others."""
    fold = JournalFold()
    prefix: list[tuple[RawEntry, e.Turn]] = []
    later: list[tuple[RawEntry, e.Turn]] = []
    damaged: list[tuple[int, str]] = []
    for seq, entry in Journal(store / FOLDER).survey():
        try:
            if isinstance(entry, StoreError):
                raise entry
            turn: e.Turn = CODEC.decode(entry.record)
            if not damaged:
                fold.add_turn(turn)
        except NewerStoreError as error:  # whole, and a repair would lose it
            raise NewerStoreError(f"record {seq}: {error}") from error
        except StoreError as error:
            damaged.append((seq, str(error)))
            continue
        (later if damaged else prefix).append((entry, turn))
    return SurveyedRecords(tuple(prefix), tuple(later), tuple(damaged))


def missing_models(store: Path, survey: SurveyedRecords) -> dict[str, int]:
    """Return the models that the records name and that are lost or damaged.

    By id: the number of the record of their training, -1 for a supplied one.
    """
    out: dict[str, int] = {}
    for entry, turn in (*survey.prefix, *survey.later):
        match turn.event:
            case e.Opened(model=str(model)) if not model_blob(store, model):
                out[model] = -1
            case e.Trained(model=model) if not model_blob(store, model):
                out[model] = entry.seq
    return out


def model_blob(store: Path, model: str) -> bytes | None:
    """Return the bytes of a model, None where it is lost or damaged."""
    try:
        return read_model(store, model)
    except (StoreError, OSError, ValueError):
        return None
