"""For workers: a label in hand is ended and left in the spool, whoever goes away.

    dask worker --preload alloop.loop.linger ...

A driver that runs its own scheduler takes it along when it dies, and Dask ends a worker
half a minute after its scheduler, whatever it does. With this, the worker first ends
the label that it is at, as long as its job lets it.
"""

import asyncio

from alloop.loop.spool import at_hand

_LOOK = 0.2  # s


async def dask_teardown(_worker: object) -> None:
    """What Dask awaits before a worker ends."""
    while at_hand():
        await asyncio.sleep(_LOOK)
