"""The fold of a journal: its state, label index and record index. Pure."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from alloop.core.errors import AlloopError, DamagedError
from alloop.history.journal_codec import event_config
from alloop.history.label_index import LabelIndex
from alloop.history.record_index import RecordIndex
from alloop.loop import events as e
from alloop.loop.reducer import next_state
from alloop.loop.state import LoopState


@contextmanager
def explain_record(seq: int) -> Iterator[None]:
    """Raise DamagedError for whatever a record raises that does not fit the others.

    Its checksum is right and so are its types, so a person or a bug wrote it.
    """
    try:
        yield
    except AlloopError:
        raise
    except Exception as error:
        raise DamagedError(
            f"record {seq} does not follow from those before it "
            f"({type(error).__name__}: {str(error)[:80]}); "
            "`alloop doctor STORE --repair OUT` makes a store without it"
        ) from error


@dataclass(slots=True)
class JournalFold:
    """The fold of a journal up to record `seq`.

    config: the configuration in force (YAML), "" while it is that of the store.
    """

    seq: int = -1
    config: str = ""
    state: LoopState = field(default_factory=LoopState)
    label_index: LabelIndex = field(default_factory=LabelIndex)
    record_index: RecordIndex = field(default_factory=RecordIndex)

    def add_turn(self, turn: e.Turn) -> None:
        """Add the next turn.

        Raises DamagedError if it does not follow from those before it.
        """
        with explain_record(self.seq + 1):
            self.label_index.add_turn(turn)
            state = next_state(self.state, turn.event, turn.commands)
            self.add_indexed_turn(turn, state)

    def add_indexed_turn(self, turn: e.Turn, state: LoopState) -> None:
        """Add the next turn, which the label index has; state: the one after it."""
        self.seq += 1
        self.config = event_config(turn.event) or self.config
        self.state = state
        self.record_index.add_turn(self.seq, turn, self.label_index)
