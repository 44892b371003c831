"""The scorers that alloop ships, by the name under which a model file keeps them."""

from alloop.core.errors import InputError
from alloop.core.roles import Arrays, FittedScorer, ReadPotential, Scorer
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
