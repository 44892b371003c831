"""Facts about this machine: versions, cores, memory, disk and compiler."""

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import psutil

from alloop.workers.cluster_plan import available_cores

PACKAGES = ("alloop", "torch", "torch-geometric", "pyscf", "ase", "zarr", "distributed")
EXTRAS = {"tblite": "xtb", "dask-jobqueue": "jobqueue"}  # optional packages
_COMPILERS = ("cc", "gcc", "clang")


def machine_facts() -> Iterator[tuple[str, str]]:
    """Yield names and values of facts that matter for a campaign.

    No heavy package is imported.
    """
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(".")
    yield "python", f"{platform.python_version()} on {platform.system()}"
    for package in PACKAGES:
        yield package, _package_version(package) or "missing: install alloop again"
    for package, extra in EXTRAS.items():
        hint = f"missing: pip install alloop[{extra}]"
        yield package, _package_version(package) or hint
    yield "cores", f"{available_cores()} usable of {os.cpu_count()}"
    yield "memory", f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    yield "disk", f"{disk.free / 1e9:.1f} GB free here"
    yield "threads", f"{os.environ.get('OMP_NUM_THREADS', 'all')} a process"
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    yield "compiler", compiler or "none (only torch.compile would want one)"


def _package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
