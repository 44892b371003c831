"""A generation: a trained potential with the scorer fitted to it and its threshold.

It is stored as one blob of named tensors (no pickle), in which a scorer that alloop
ships goes by its name, and identified by its content.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from alloop.core.batch import Batch
from alloop.core.error_limits import ErrorLimits
from alloop.core.errors import InputError
from alloop.core.records import Predictions
from alloop.core.roles import Arrays, FittedScorer, Potential, ReadPotential, Scorer
from alloop.core.species import Domain
from alloop.core.units import Floats
from alloop.models.checkpoint import (
    Checkpoint,
    Storable,
    checkpoint_from_bytes,
    checkpoint_to_bytes,
    content_id,
    malformed,
    understood,
)
from alloop.potentials.ase_calculator import PotentialCalculator
from alloop.potentials.restore import (
    DOMAIN,
    SCORER,
    domain,
    inner_checkpoint,
    restore_potential,
)
from alloop.scores.committee import Committee, CommitteeScorer
from alloop.scores.connectivity import Connectivity, ConnectivityScorer
from alloop.scores.leverage import LeverageScorer
from alloop.scores.qresidual import QResidual, QResidualScorer
from alloop.scores.soap import SoapScorer, SoapSurprise

DEFAULT = "q-residual"  # of files that do not say
_FITTED: dict[type, str] = {
    QResidual: DEFAULT,
    Committee: "committee",
    SoapSurprise: "soap",
    Connectivity: "connectivity",
}
_SHIPPED: dict[str, Scorer] = {
    DEFAULT: QResidualScorer(),
    "committee": CommitteeScorer(),
    "soap": SoapScorer(LeverageScorer()),
    "connectivity": ConnectivityScorer(),
}


def scorer_name(fitted: FittedScorer) -> str:
    """Return the name of a scorer; that of a user's own is its import path."""
    kind = type(fitted)
    return _FITTED.get(kind) or f"{kind.__module__}:{kind.__qualname__}"


def restore_scorer(
    name: str, arrays: Arrays, read_potential: ReadPotential, kind: Scorer | None
) -> FittedScorer:
    """Return the scorer of that name that gave these arrays.

    own: restores a scorer that is not alloop's. Raises InputError where that is
    missing, ValueError where the arrays do not fit.
    """
    scorer = _SHIPPED.get(name, kind)
    if scorer is None:
        raise InputError(
            f"expected a scorer of {', '.join(_SHIPPED)} in this model, it has "
            f"`{name}`; in Python: `alloop.load(file, scorer=...)`"
        )
    return scorer.restore(arrays, read_potential)


_LIMITS = "error_limits"  # the setting that holds the limits of errors
UNKNOWN = (
    "this model (converted, or from an older alloop) does not say what it was trained "
    "on: "
    "charge, spin and composition are not checked"
)


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """A trained potential with its scorer: predicts energies, forces and surprise.

    threshold: surprise above which a frame is not trusted, None where it is not
    calibrated. facts: JSON-able, a description of the model and its test error. domain:
    what it was trained on; None where an older alloop did not record it. error_limits:
    of force errors by surprise; None where too few labelled frames were not trained on.
    """

    potential: Storable
    scorer: FittedScorer | None
    threshold: float | None
    facts: dict[str, Any]
    domain: Domain | None = None
    error_limits: ErrorLimits | None = None

    def __repr__(self) -> str:
        parts = (f"{name}: {value}" for name, value in self._rows().items())
        return f"Generation({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
            for name, value in self._rows().items()
        )
        return f"<table>{rows}</table>"

    def _rows(self) -> dict[str, str]:
        """Return what the model is, in words, by name; no arrays."""
        formulas = () if self.domain is None else self.domain.species
        limits = self.error_limits
        licence = self.licence
        return {
            "potential": type(self.potential).__name__,
            **({} if licence is None else {"licence of the weights": licence}),
            "molecules": ", ".join(sorted({x.formula for x in formulas})) or "unknown",
            **{key.replace("_", " "): _short(x) for key, x in self.facts.items()},
            "threshold of surprise": (
                "none" if self.threshold is None else f"{self.threshold:.3g}"
            ),
            "limits of errors": (
                "none" if limits is None else f"for {limits.coverage:.0%} of frames"
            ),
        }

    @property
    def licence(self) -> str | None:
        """The licence of the weights that training began with, None without one."""
        licence: str | None = getattr(self.potential, "licence", None)
        return licence

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return energies (frames,) in eV and forces (atoms, 3) in eV/Å."""
        return self.potential.predict(batch, descriptors=descriptors)

    def surprise(self, batch: Batch) -> Floats:
        """Return the surprise (frames,); InputError where the model has no scorer."""
        if self.scorer is None:
            raise InputError("this model has no scorer: it cannot tell its surprise")
        return self.scorer.score(batch, self.predict(batch, descriptors=True))

    def calculator(
        self, *, outside: bool = False, threads: int = 1, compile: bool = False
    ) -> PotentialCalculator:
        """Return an ASE calculator of energy, forces, stress of cells and surprise.

        Surprise needs a fitted scorer, limits of the error `error_limits`. outside:
        also accept charges, spins and compositions that the model was not trained on,
        which raise InputError otherwise. threads: of torch, in each call. compile: for
        long MD of one system, see `PotentialCalculator`.
        """
        if self.domain is None and not outside:
            warnings.warn(UNKNOWN, stacklevel=2)
        domain = None if outside else self.domain
        return PotentialCalculator(
            self.potential,
            self.scorer,
            error_limits=self.error_limits,
            domain=domain,
            threads=threads,
            compile=compile,
        )


def _short(fact: Any) -> str:
    return f"{fact:.3g}" if isinstance(fact, float) else str(fact)


def to_bytes(generation: Generation) -> tuple[str, bytes]:
    """Return the generation's id (32 hexadecimal digits) and its blob."""
    potential = generation.potential.checkpoint()
    scorer = generation.scorer
    arrays = {} if scorer is None else scorer.arrays()
    settings = {
        "potential": potential.settings,
        "scored": scorer is not None,
        "threshold": generation.threshold,
        "facts": generation.facts,
    }
    if scorer is not None and scorer_name(scorer) != DEFAULT:
        settings["scorer"] = scorer_name(scorer)
    if generation.error_limits is not None:
        settings[_LIMITS] = asdict(generation.error_limits)
    if generation.domain is not None:
        settings[DOMAIN] = generation.domain.rows
    tensors = {**potential.tensors, **{SCORER + k: v for k, v in arrays.items()}}
    checkpoint = Checkpoint(potential.kind, settings, tensors)
    return content_id(checkpoint), checkpoint_to_bytes(checkpoint)


def potential_from_bytes(
    blob: bytes, restore: Callable[[Checkpoint], Storable] = restore_potential
) -> Storable:
    """Return the potential of the generation in a blob; raises as `from_bytes` does."""
    return restore(inner_checkpoint(checkpoint_from_bytes(blob)))


def from_bytes(
    blob: bytes,
    restore: Callable[[Checkpoint], Storable] = restore_potential,
    scorer: Scorer | None = None,
) -> Generation:
    """Return the generation in a blob.

    InputError or DamagedError where it is none, or one whose tensors and settings make
    no model. restore: the function that restores the potential, where it is not one of
    alloop's own. scorer: restores the scorer, where it is not one of alloop's own.
    """
    checkpoint = checkpoint_from_bytes(blob)
    potential = restore(inner_checkpoint(checkpoint))
    with understood():
        return Generation(
            potential=potential,
            scorer=_scorer(checkpoint, restore, scorer),
            threshold=_threshold(checkpoint.settings["threshold"]),
            facts=dict(checkpoint.settings["facts"]),
            domain=domain(checkpoint),
            error_limits=_error_limits(checkpoint.settings.get(_LIMITS)),
        )


def _scorer(
    checkpoint: Checkpoint,
    restore: Callable[[Checkpoint], Storable],
    restorer: Scorer | None,
) -> FittedScorer | None:
    if not checkpoint.settings["scored"]:
        return None
    arrays = {
        name.removeprefix(SCORER): array
        for name, array in checkpoint.tensors.items()
        if name.startswith(SCORER)
    }

    def read_potential(data: bytes) -> Potential:
        return restore(checkpoint_from_bytes(data))

    name = str(checkpoint.settings.get("scorer", DEFAULT))
    return restore_scorer(name, arrays, read_potential, restorer)


def _error_limits(fields: Any) -> ErrorLimits | None:
    return None if fields is None else ErrorLimits.from_fields(fields)


def _threshold(value: Any) -> float | None:
    if value is None or (isinstance(value, int | float) and not math.isnan(value)):
        return value
    raise malformed(f"its threshold is {value!r}")


def load(
    path: str | Path,
    restore: Callable[[Checkpoint], Storable] = restore_potential,
    scorer: Scorer | None = None,
) -> Generation:
    """Return the model in a file that `alloop export --model` wrote.

    restore, scorer: those of a user's own potential and scorer, see `from_bytes`.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"expected an alloop model file, {file} is not there")
    return from_bytes(file.read_bytes(), restore, scorer)
