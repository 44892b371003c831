"""A driver of i-PI, in its process (`ffdirect`) or by a socket; beads as one batch.

`i-pi-driver-py -m custom -P FILE -o template=start.xyz,model=water.model`, where FILE
is this file: `python -m alloop.engines.ipi_driver` prints its path.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from ipi.pes.dummy import Dummy_driver
from ipi.utils.units import unit_to_internal, unit_to_user

from alloop.core.batch import Batch
from alloop.core.stress import tensor_of_voigt
from alloop.core.units import Floats
from alloop.engines.evaluator import (
    BeyondAction,
    Evaluation,
    Evaluator,
    Watch,
    repeated,
)
from alloop.files.frames import read_frames

__DRIVER_NAME__ = "alloop"
__DRIVER_CLASS__ = "AlloopDriver"


class AlloopDriver(Dummy_driver):  # type: ignore[misc]
    """A driver of i-PI that calls a model of alloop.

    template: a file of the atoms, whose charge, spin and periodic axes count. model:
    the model file. beyond, file, surprise, error, table, spacing: those of `Watch`
    (action, file, ...). Surprise and the limit of error are among i-PI's extras, as
    `surprise` and `error_limit` of JSON.
    """

    def __init__(  # noqa: PLR0913 - i-PI passes options by keyword
        self,
        template: str,
        model: str,
        *args: Any,
        beyond: BeyondAction = "warn",
        file: str | None = None,
        table: str | None = None,
        surprise: float | None = None,
        error: float | None = None,
        spacing: int = 100,
        outside: bool = False,
        compile: bool = False,
        **kwargs: Any,
    ) -> None:
        self.frame = read_frames([template])[0].frame
        watch = Watch(
            surprise=None if surprise is None else float(surprise),
            error=None if error is None else float(error),
            action=beyond,
            file=None if file is None else Path(file),
            table=None if table is None else Path(table),
            spacing=int(spacing),
        )
        self.evaluator = Evaluator.of_file(
            model, watch=watch, outside=bool(outside), compile=bool(compile)
        )
        super().__init__(*args, **kwargs)

    def compute(self, cell: Any, pos: Any) -> Any:
        """Return potential, forces, virial and extras, or a list of them for lists."""
        if not isinstance(cell, list):
            return self.compute([cell], [pos])[0]
        batch = self._batch(cell, pos)
        evaluation = self.evaluator.evaluate(batch)
        return [_answer(batch, evaluation, index) for index in range(len(batch))]

    def _batch(self, cells: list[Floats], positions: list[Floats]) -> Batch:
        angstrom = unit_to_user("length", "angstrom", 1.0)
        where = np.array(positions, dtype=np.float64) * angstrom
        where = where.reshape(len(positions), -1, 3)
        if not any(self.frame.pbc):
            return repeated(self.frame, where)
        columns = np.array(cells, dtype=np.float64) * angstrom
        return repeated(self.frame, where, columns.transpose(0, 2, 1))


def _answer(batch: Batch, evaluation: Evaluation, index: int) -> tuple[Any, ...]:
    electronvolt = unit_to_internal("energy", "electronvolt", 1.0)
    force = unit_to_internal("force", "ev/ang", 1.0)
    span = slice(*batch.offsets[index : index + 2].tolist())
    virial = np.zeros((3, 3))
    if evaluation.stress is not None and np.isfinite(evaluation.stress[index]).all():
        volume = abs(float(np.linalg.det(batch.cells[index])))
        virial = -volume * tensor_of_voigt(evaluation.stress[index])
    extras = {
        "surprise": float(evaluation.surprise[index]),
        "error_limit": float(evaluation.error_limits[index]),
    }
    return (
        float(evaluation.energies[index]) * electronvolt,
        evaluation.forces[span] * force,
        virial * electronvolt,
        json.dumps(extras),
    )


if __name__ == "__main__":
    print(Path(__file__).resolve())  # noqa: T201 - what it is for
