"""For workers: a label in hand is ended and left in the spool, whoever goes away.

    dask worker --preload alloop.workers.finish_labels ...

A driver that runs its own scheduler takes it along when it dies, and Dask ends a worker
half a minute after its scheduler, whatever it does. With this, the worker first ends
the label that it is at, as long as its job lets it.
"""

import asyncio

from alloop.workers.spool import is_labelling

_LOOK = 0.2  # s


async def dask_teardown(_worker: object) -> None:
    """What Dask awaits before a worker ends."""
    while is_labelling():
        await asyncio.sleep(_LOOK)
