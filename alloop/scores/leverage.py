"""The leverage of atoms: how far a linear model of the descriptors extrapolates."""

from dataclasses import dataclass

from alloop.core.batch import Batch
from alloop.core.roles import Arrays, Potential, ReadPotential, Retrain
from alloop.core.settings import setting
from alloop.core.units import Floats
from alloop.scores.qresidual import QResidual, atom_descriptors, fit_spaces
from alloop.scores.subspace import ridge_space


@dataclass(frozen=True, slots=True)
class LeverageScorer:
    """The Scorer whose surprise is the leverage of atoms, Q + T² with one λ, the ridge.

    See `ridge_space`.
    """

    ridge: float = setting(
        1e-4,
        "variance added in every direction, as a share of the total one",
        gt=0,
        le=1,
    )

    def fit(
        self,
        potential: Potential,
        learned: Batch,
        heldout: Batch,
        retrain: Retrain,  # noqa: ARG002
    ) -> QResidual:
        """Return the scorer fitted to a potential's descriptors."""
        return fit_leverage(
            (learned, atom_descriptors(potential, learned)),
            (heldout, atom_descriptors(potential, heldout)),
            self.ridge,
        )

    def restore(
        self,
        arrays: Arrays,
        read_potential: ReadPotential,  # noqa: ARG002
    ) -> QResidual:
        """Return the scorer that gave these arrays; ValueError if they do not fit."""
        return QResidual.from_arrays(arrays)


def fit_leverage(
    learned: tuple[Batch, Floats], heldout: tuple[Batch, Floats], ridge: float = 1e-4
) -> QResidual:
    """Fit the leverage to frames and their descriptors; see `fit_qresidual`."""
    return fit_spaces(
        lambda x, typical: ridge_space(x, ridge, typical), "leverage", learned, heldout
    )
