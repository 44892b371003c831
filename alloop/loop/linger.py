"""The old name of `alloop.workers.finish_labels`, for `dask worker --preload`."""

from alloop.workers.finish_labels import dask_teardown as dask_teardown
