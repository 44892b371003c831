"""A model as other programs call it: results in batches, watched for their trust."""

import csv
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from ase.io import write

from alloop.core.atoms import to_atoms
from alloop.core.batch import Batch
from alloop.core.errors import AlloopError, InputError
from alloop.core.frame import Frame
from alloop.core.units import Floats
from alloop.generation import Generation, from_bytes, load, to_bytes
from alloop.potentials.checked import CheckedPotential
from alloop.potentials.devices import torch_threads

BeyondAction: TypeAlias = Literal["ignore", "warn", "write", "stop"]
ACTIONS: tuple[BeyondAction, ...] = ("ignore", "warn", "write", "stop")


class BeyondLimitError(AlloopError):
    """An error for a frame that the model does not trust, where that is to stop MD."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Results for the frames of a batch.

    energies (frames,) in eV, forces (atoms, 3) in eV/Å; stress (frames, 6) in eV/Å³,
    in Voigt's order and with ASE's sign, NaN without a cell, None where the model has
    none; surprise (frames,) and error_limits (frames,) in eV/Å are NaN where the model
    has no scorer or no limits; beyond (frames,): whether a frame is not trusted.
    """

    energies: Floats
    forces: Floats
    stress: Floats | None
    surprise: Floats
    error_limits: Floats
    beyond: np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Watch:
    """The limits of trust in a model, and the action beyond them.

    surprise: a frame above it is beyond the limit, by default above the model's own
    threshold. error: so is one whose limit of error, eV/Å, is larger. action: `ignore`,
    `warn` (once), `write` (the frame to `file`, as extended XYZ that `alloop label` and
    `start:` of a campaign read; then go on) or `stop` (write it if there is a file, and
    raise BeyondLimitError). spacing: calls from one written frame to the next, since
    neighbours in time are alike. most: frames that are written at most. table: a CSV
    file of call, frame, surprise and error_limit, a row for each frame of each call.
    callback: called with each Evaluation.
    """

    surprise: float | None = None
    error: float | None = None
    action: BeyondAction = "warn"
    file: Path | None = None
    spacing: int = 100
    most: int = 1000
    table: Path | None = None
    callback: Callable[[Evaluation], None] | None = None

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise InputError(
                f"expected {', '.join(ACTIONS)} as what to do beyond the limit, got "
                f"{self.action!r}"
            )
        if self.action == "write" and self.file is None:
            raise InputError("expected a file to write frames to, got none; name one")
        if self.spacing < 1:
            raise InputError(f"expected a spacing of 1 or more, got {self.spacing}")


@dataclass(slots=True)
class Evaluator:
    """A model that engines call, one batch of frames at a time.

    Frames outside the domain raise InputError unless `outside`; a change of molecules
    is checked, positions are not. threads: torch's threads in each call. compile: for
    long MD of one molecule, see `PotentialCalculator`. It pickles with the model in it.
    scored: whether surprise is computed, by default where the model has a scorer;
    leaving it out saves time.
    """

    generation: Generation
    watch: Watch = field(default_factory=Watch)
    outside: bool = False
    threads: int = 1
    compile: bool = False
    scored: bool = True
    calls: int = 0
    count_beyond: int = 0
    count_written: int = 0
    last_written: int | None = None
    _checked: CheckedPotential = field(init=False)

    def __post_init__(self) -> None:
        self.scored = self.scored and self.generation.scorer is not None
        domain = None if self.outside else self.generation.domain
        self._checked = CheckedPotential(
            self.generation.potential, domain, compile=self.compile
        )
        watch = self.watch
        lacking = not self.scored or (
            watch.error is not None and self.generation.error_limits is None
        )
        if lacking and watch.action in ("write", "stop"):
            raise InputError(
                f"expected a model that knows its surprise and, for a limit of error, "
                f"its errors, to {watch.action} beyond the limit; this one does not"
            )
        if self.threshold is None and watch.error is None and watch.action == "stop":
            raise InputError(
                "expected a limit of surprise or error, the model has no threshold of "
                "its own; give one"
            )

    @classmethod
    def of_file(cls, path: str | Path, **options: Any) -> "Evaluator":
        """Return the evaluator of a model file, with the fields given as options."""
        return cls(load(path), **options)

    def __reduce__(self) -> tuple[Any, ...]:
        blob = to_bytes(self.generation)[1]
        options = (self.watch, self.outside, self.threads, self.compile, self.scored)
        return _restored, (blob, *options)

    @property
    def threshold(self) -> float | None:
        """The surprise above which a frame is beyond the limit, None without one."""
        surprise = self.watch.surprise
        return self.generation.threshold if surprise is None else surprise

    def evaluate(self, batch: Batch) -> Evaluation:
        """Return the results for a batch, after doing what the watch says.

        Raises InputError outside the domain, BeyondLimitError where the watch stops.
        """
        with torch_threads(self.threads):
            batch = self._checked.prepare(batch)
            predictions = self._checked.fast.predict(batch, descriptors=self.scored)
            surprise = np.full(len(batch), np.nan)
            limits = surprise.copy()
            if self.scored:
                scorer = self.generation.scorer
                assert scorer is not None
                surprise = scorer.score(batch, predictions)
                if self.generation.error_limits is not None:
                    limits = self.generation.error_limits.limits(surprise, batch)
        beyond = self._beyond(surprise, limits)
        evaluation = Evaluation(
            energies=predictions.energies,
            forces=predictions.forces,
            stress=predictions.stress,
            surprise=surprise,
            error_limits=limits,
            beyond=beyond,
        )
        self._tell(batch, evaluation)
        return evaluation

    def _beyond(
        self, surprise: Floats, limits: Floats
    ) -> np.ndarray[Any, np.dtype[np.bool_]]:
        beyond = np.zeros(len(surprise), dtype=np.bool_)
        if not self.scored:
            return beyond
        if self.threshold is not None:
            beyond |= ~(surprise <= self.threshold)  # NaN too
        if self.watch.error is not None:
            beyond |= ~(limits <= self.watch.error)
        return beyond

    def _tell(self, batch: Batch, evaluation: Evaluation) -> None:
        self.calls += 1
        if self.watch.table is not None:
            self._append_rows(self.watch.table, evaluation)
        if self.watch.callback is not None:
            self.watch.callback(evaluation)
        if not evaluation.beyond.any():
            return
        first = self.count_beyond == 0
        self.count_beyond += int(evaluation.beyond.sum())
        if self.watch.file is not None and self._due():
            self._write(self.watch.file, batch, evaluation)
        if self.watch.action == "stop":
            raise BeyondLimitError(self._sentence(evaluation))
        if self.watch.action == "warn" and first:
            warnings.warn(self._sentence(evaluation), stacklevel=4)

    def _due(self) -> bool:
        last = self.last_written
        spaced = last is None or self.calls - last >= self.watch.spacing
        return spaced and self.count_written < self.watch.most

    def _write(self, file: Path, batch: Batch, evaluation: Evaluation) -> None:
        """Append the most surprising frame of the call."""
        surprise = np.where(evaluation.beyond, evaluation.surprise, -math.inf)
        index = int(np.argmax(np.where(np.isnan(surprise), math.inf, surprise)))
        atoms = to_atoms(batch.frame(index))
        atoms.info |= {
            "call": self.calls,
            "surprise": float(evaluation.surprise[index]),
            "error_limit": float(evaluation.error_limits[index]),
        }
        write(file, atoms, format="extxyz", append=True)
        self.last_written = self.calls
        self.count_written += 1

    def _append_rows(self, table: Path, evaluation: Evaluation) -> None:
        new = not table.exists()
        with table.open("a", newline="") as stream:
            rows = csv.writer(stream)
            if new:
                rows.writerow(("call", "frame", "surprise", "error_limit", "beyond"))
            for index, surprise in enumerate(evaluation.surprise):
                limit, beyond = evaluation.error_limits[index], evaluation.beyond[index]
                rows.writerow((self.calls, index, surprise, limit, int(beyond)))

    def _sentence(self, evaluation: Evaluation) -> str:
        index = int(np.argmax(evaluation.beyond))
        surprise, limit = evaluation.surprise[index], evaluation.error_limits[index]
        place = "" if self.watch.file is None else f"; see {self.watch.file}"
        return (
            f"expected surprise up to {self.threshold} and a limit of error up to "
            f"{self.watch.error} eV/Å, got {surprise:.3g} and {limit:.3g} eV/Å in call "
            f"{self.calls}: the model does not trust this frame; label such frames and "
            f"train on them{place}"
        )


def _restored(
    blob: bytes, watch: Watch, outside: bool, threads: int, compile: bool, scored: bool
) -> Evaluator:
    return Evaluator(
        from_bytes(blob),
        watch,
        outside=outside,
        threads=threads,
        compile=compile,
        scored=scored,
    )


def repeated(frame: Frame, positions: Floats, cells: Floats | None = None) -> Batch:
    """Return copies of a frame at positions (frames, atoms, 3) in Å.

    cells (frames, 3, 3) in Å: those of the frame by default.
    """
    count, size = len(positions), len(frame)
    a, b, c = frame.pbc
    return Batch(
        numbers=np.tile(frame.numbers, count),
        positions=np.asarray(positions, dtype=np.float64).reshape(-1, 3),
        offsets=np.arange(count + 1, dtype=np.int64) * size,
        charges=np.full(count, frame.charge, dtype=np.int64),
        spins=np.full(count, frame.spin, dtype=np.int64),
        cells=np.tile(frame.cell, (count, 1, 1)) if cells is None else cells,
        pbc=np.tile(np.array([a, b, c], dtype=np.bool_), (count, 1)),
    )
