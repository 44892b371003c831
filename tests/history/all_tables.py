"""Tables of a whole history, for tests of the columns."""

from collections.abc import Mapping

from alloop.history.column_rows import ColumnRows
from alloop.history.reader import History
from alloop.loop.reducer import next_state
from alloop.loop.state import LoopState
from alloop.store.record import Array


def tables(history: History) -> Mapping[str, Mapping[str, Array]]:
    """Return all tables of a history, from the first row on."""
    rows, state = ColumnRows(), LoopState()
    for entry in history.entries:
        rows.add_turn(state, entry.turn)
        state = next_state(state, entry.turn.event, entry.turn.commands)
    return rows.tables(state)
