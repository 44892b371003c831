"""The saved state of an MD run, from which it is resumed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.records import Walker
from alloop.core.units import Floats
from alloop.files.targets import replace_atomically

_KEY = "alloop"
_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class RunState:
    """The state after a piece: MD steps done, walkers, trajectory length in bytes."""

    step: int
    walkers: tuple[Walker, ...]
    length: int


class StateFile:
    """The state file of a run, `OUT.state`, which also holds the run's request.

    older: parts of the request as older versions wrote them. force: start again where
    `out` belongs to something else.
    """

    def __init__(
        self,
        out: Path,
        request: Mapping[str, str],
        older: Mapping[str, str],
        force: bool = False,
    ) -> None:
        self._out, self._request, self._force = out, dict(request), force
        self._older = older
        self.path = out.with_name(f"{out.name}.state")

    def read(self, beginning: Sequence[Walker]) -> RunState:
        """Return the saved state; step 0 with the walkers `beginning` without one.

        Raises InputError where `out` belongs to something else, unless forced.
        """
        try:
            return self._read(beginning)
        except InputError:
            if not self._force:
                raise
        self.path.unlink(missing_ok=True)
        return RunState(0, tuple(beginning), 0)

    def _read(self, beginning: Sequence[Walker]) -> RunState:
        if not self.path.exists():
            if self._out.exists():
                raise self._other_request("was not left by a run that can go on")
            return RunState(0, tuple(beginning), 0)
        facts, tensors = self._read_file()
        before = facts["request"]
        other = [
            key
            for key, value in self._request.items()
            if before[key] not in (value, self._older.get(key))
        ]
        if other:
            raise self._other_request(
                f"belongs to a run with another {', '.join(other)}"
            )
        if self._trajectory_size() < facts["length"]:
            raise self._other_request("is shorter than it was when the run stopped")
        walkers = _restored_walkers(beginning, facts, tensors)
        return RunState(facts["step"], walkers, facts["length"])

    def write(self, state: RunState) -> None:
        """Replace the saved state, atomically and synced."""
        facts = {
            "version": _VERSION,
            "request": self._request,
            "step": state.step,
            "length": state.length,
            "steps": [walker.step for walker in state.walkers],
            "stopped": [walker.stopped for walker in state.walkers],
        }
        batch = pack_frames([walker.frame for walker in state.walkers])
        v = np.concatenate([walker.velocities for walker in state.walkers])
        tensors = {"positions": batch.positions, "velocities": v}
        if batch.pbc.any():
            tensors["cells"] = batch.cells
        text = json.dumps(facts, sort_keys=True)
        with replace_atomically(self.path) as partial:
            partial.write_bytes(safetensors_numpy.save(tensors, {_KEY: text}))

    def _read_file(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        try:
            with safetensors.safe_open(self.path, "np") as file:
                facts = json.loads((file.metadata() or {})[_KEY])
                names = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise InputError(
                f"expected the state of a run of MD, {self.path} cannot be read; "
                "add --force to start again"
            ) from error
        return facts, tensors

    def _trajectory_size(self) -> int:
        return self._out.stat().st_size if self._out.exists() else 0

    def _other_request(self, why: str) -> InputError:
        return InputError(
            f"{self._out} is there already and {why}; choose another --out, or add "
            "--force to replace it"
        )


def _restored_walkers(
    beginning: Sequence[Walker], facts: Mapping[str, Any], tensors: Mapping[str, Floats]
) -> tuple[Walker, ...]:
    """Return the walkers with their saved state; older files hold no cells."""
    start = pack_frames([walker.frame for walker in beginning])
    cells = tensors.get("cells", start.cells)
    arrays = (tensors["positions"], tensors["velocities"])
    cuts = start.offsets[1:-1]
    parts = zip(*(np.split(array, cuts) for array in arrays), cells, strict=True)
    each = zip(beginning, parts, facts["steps"], facts["stopped"], strict=True)
    return tuple(
        replace(
            walker,
            frame=replace(walker.frame, positions=positions, cell=cell),
            velocities=velocities,
            step=step,
            stopped=stopped,
        )
        for walker, (positions, velocities, cell), step, stopped in each
    )
