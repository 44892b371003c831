"""The old name of `alloop.workers.spool`, for `dask worker --preload`."""

from alloop.workers.spool import dask_teardown as dask_teardown
