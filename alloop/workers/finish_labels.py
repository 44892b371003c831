"""A Dask worker preload that finishes the label in progress before the worker ends.

    dask worker --preload alloop.workers.finish_labels ...

A scheduler started by a driver dies with it, and Dask ends a worker half a minute after
its scheduler, whatever it does. With this preload, the worker first finishes its label
and leaves it in the spool, as long as its batch job lasts.
"""

import asyncio

from alloop.workers.spool import is_labelling

_LOOK = 0.2  # s


async def dask_teardown(_worker: object) -> None:
    """Wait for the label in progress; Dask awaits this before a worker ends."""
    while is_labelling():
        await asyncio.sleep(_LOOK)
