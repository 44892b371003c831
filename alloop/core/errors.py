"""What can go wrong for a user, by what a caller would do about it.

AlloopError              one sentence: what was expected, what came, what to do
├── InputError           the user's file, key or argument: mend it, run again (exit 2)
├── StoreError           the store cannot be used as asked (exit 2)
│   ├── LockedError      another driver holds it: wait, or stop that one
│   └── DamagedError     bytes do not match their checksum: `alloop doctor STORE`
└── Interrupted          stopped early, and resumable (exit 3)

A failed label, an exploded walker or a lost worker is not an error: it is an event.
"""


class AlloopError(Exception):
    """Base of all errors that are shown to the user as one sentence."""

    exit_code = 2


class InputError(AlloopError):
    """The user's input cannot be used; the message says what to change."""


class StoreError(AlloopError):
    """The store cannot be used as asked."""


class LockedError(StoreError):
    """Another driver is running on this store."""


class DamagedError(StoreError):
    """Stored bytes do not match their checksum."""


class Interrupted(AlloopError):
    """The run ended early; running it again goes on."""

    exit_code = 3
