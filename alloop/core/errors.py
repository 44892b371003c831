"""Errors that are shown to the user, grouped by what a caller would do about them.

AlloopError              one sentence: what was expected, what was found, what to do
├── InputError           the user's file, key or argument: fix it, run again (exit 2)
├── StoreError           the store cannot be used as asked (exit 2)
│   ├── FullDiskError    no space is left: free some, and run again (exit 3)
│   ├── LockedError      another driver holds it: wait, or stop that one
│   └── DamagedError     bytes do not match their checksum: `alloop doctor STORE`
└── Interrupted          stopped early, and resumable (exit 3)

A failed label, an exploded walker or a lost worker is not an error: it is an event.
"""


class AlloopError(Exception):
    """Base of all errors that are shown to the user as one sentence."""

    exit_code = 2


class InputError(AlloopError):
    """An error for input that cannot be used; the message says what to change."""


class StoreError(AlloopError):
    """An error for a store that cannot be used as asked."""


class NewerStoreError(StoreError):
    """An error for a store that holds what a newer alloop wrote."""


class FullDiskError(StoreError):
    """An error for a store on a full disk; running again continues."""

    exit_code = 3


class LockedError(StoreError):
    """An error for a store on which another driver is running."""


class DamagedError(StoreError):
    """An error for stored bytes that do not match their checksum."""


class Interrupted(AlloopError):
    """An error for a run that ended early; running it again continues it."""

    exit_code = 3
