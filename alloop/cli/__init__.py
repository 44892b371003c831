"""The command line: most commands call a Campaign method of the same name."""

import os
import sys
from collections.abc import Sequence

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    The code is 0 on success, 2 for a mistake of the user, 3 if stopped early but
    resumable.
    """
    for name in _THREADS:  # before numpy or torch read them: processes fill the machine
        os.environ.setdefault(name, "1")
    try:
        from alloop.cli.app import run_command

        return run_command(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # before a command has begun
        print("stopped", file=sys.stderr)  # noqa: T201 - nothing is imported yet
        return 3
    finally:
        # An interrupt inside exec(), as dataclasses call it while modules are imported,
        # makes `python -m` end by SIGINT whatever code is returned; every exec() of a
        # string clears that flag.
        exec("pass")
