"""A server that forks processes, so that starting and killing many is cheap."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_SERVER = """
import os, sys
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        work(line.strip())
        os._exit(0)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


class ForkServer:
    """A process that forks children, one at a time, which run `work(argument)`.

    script: Python source that defines `work`; it is run once, so that children pay for
    no imports. The server is closed with `close`. env: its environment.
    """

    def __init__(self, script: str, env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", script + _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )

    def spawn(self, argument: str | Path) -> int:
        """Start a child and return its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{argument}\n")
        self._process.stdin.flush()
        return int(self._read_line())

    def kill(self, pid: int) -> None:
        """Kill the child with SIGKILL and wait for its end."""
        os.kill(pid, signal.SIGKILL)
        self._read_line()

    def wait(self) -> int:
        """Wait for the child's end and return its wait status, 0 for success."""
        return int(self._read_line())

    def close(self) -> None:
        """End the server."""
        self._process.communicate()

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()
