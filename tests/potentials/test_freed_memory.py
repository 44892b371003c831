"""Freed memory: a process uses it again, under Dask and outside."""

import os
import platform
import subprocess
import sys

import pytest

PAGES = """
import resource
import numpy as np
from alloop.potentials.freed_memory import keep_freed_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        kept = [np.ones(2**18) for _ in range(4)]  # 2 MB each: 512 pages
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = page_faults()
keep_freed_memory()
page_faults()
print(first, page_faults())
"""
GLIBC = platform.libc_ver()[0] == "glibc"


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
@pytest.mark.parametrize(
    ("threshold", "kept"), [("65536", True), ("", True), ("70000", False)]
)
def test_memory_is_not_cleared_again_unless_the_user_wants_so(
    threshold: str, kept: bool
) -> None:
    name = "MALLOC_TRIM_THRESHOLD_"
    env = {key: value for key, value in os.environ.items() if key != name}
    env |= {name: threshold} if threshold else {}
    said = subprocess.run(
        [sys.executable, "-c", PAGES],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    before, after = map(int, said.stdout.split())
    assert before > 5000
    assert (after < 500) == kept
