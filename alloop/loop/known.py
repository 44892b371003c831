"""The fold of a journal: what a driver and its readers know of it. Pure."""

from dataclasses import dataclass, field

from alloop.loop import events as e
from alloop.loop.chronicle import Chronicle
from alloop.loop.codec import configured
from alloop.loop.learning import learn
from alloop.loop.ledger import Ledger
from alloop.loop.state import LoopState


@dataclass(slots=True)
class Known:
    """The fold of a journal up to record `seq`, and what is added to it since.

    config: the configuration in force (YAML), "" while it is that of the store.
    """

    seq: int = -1
    config: str = ""
    state: LoopState = field(default_factory=LoopState)
    ledger: Ledger = field(default_factory=Ledger)
    chronicle: Chronicle = field(default_factory=Chronicle)

    def add(self, turn: e.Turn) -> None:
        """Take in the next turn."""
        self.ledger.add(turn)
        self.note(turn, learn(self.state, turn.event, turn.commands))

    def note(self, turn: e.Turn, state: LoopState) -> None:
        """Take in the next turn, which the ledger has; state: the one after it."""
        self.seq += 1
        self.config = configured(turn.event) or self.config
        self.state = state
        self.chronicle.add(self.seq, turn, self.ledger)
