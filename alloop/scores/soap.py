"""Surprise by SOAP descriptors of atoms, in place of the model's own.

SOAP (Bartók et al., Phys. Rev. B 87, 184115, 2013) describes what stands around an atom
and does not depend on any model: it serves potentials without descriptors, and it is
what Wong & Yang, arXiv 2603.10159, took for the Q-residual. The numbers are those of
DScribe with their settings; `pip install 'alloop[soap]'` installs it.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from alloop.core.atoms import to_atoms
from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.records import Predictions
from alloop.core.roles import Arrays, Potential, ReadPotential, Retrain
from alloop.core.units import Floats
from alloop.scores.leverage import LeverageScorer
from alloop.scores.qresidual import UNSEEN, QResidual, QResidualScorer

_ELEMENTS = "soap_elements"


@dataclass(frozen=True, slots=True)
class SoapDescriptors:
    """SOAP vectors of atoms: cutoff 5 Å, n_max 8, l_max 6, σ 0.375 Å.

    elements: ascending atomic numbers; frames have no others.
    """

    elements: tuple[int, ...]

    def describe(self, batch: Batch) -> Floats:
        """Return the descriptors (atoms, features).

        Raises InputError where DScribe is not installed.
        """
        frames = batch.frames()
        parts = [
            _soap(self.elements, any(frame.pbc)).create(to_atoms(frame))
            for frame in frames
        ]
        width = _soap(self.elements, False).get_number_of_features()
        out: Floats = np.concatenate([np.zeros((0, width)), *parts])
        return out


@dataclass(frozen=True, slots=True, eq=False)
class SoapSurprise:
    """A fitted scorer that reads SOAP descriptors of the frames it is given."""

    soap: SoapDescriptors
    fitted: QResidual

    def score(self, batch: Batch, predictions: Predictions) -> Floats:
        """Return the surprise (frames,); the largest one for an unseen element."""
        covered = np.isin(batch.numbers, self.soap.elements)
        inside = np.flatnonzero(np.logical_and.reduceat(covered, batch.offsets[:-1]))
        surprise: Floats = np.full(len(batch), UNSEEN)
        if len(inside):
            part = batch.select(inside)
            described = replace(predictions, descriptors=self.soap.describe(part))
            surprise[inside] = self.fitted.score(part, described)
        return surprise

    def arrays(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """Return the named arrays that `SoapScorer.restore` reads."""
        elements = np.array(self.soap.elements, dtype=np.int64)
        return {**self.fitted.arrays(), _ELEMENTS: elements}


@dataclass(frozen=True, slots=True)
class SoapScorer:
    """The Scorer that fits another one to SOAP descriptors.

    scorer: the one to fit.
    """

    scorer: LeverageScorer | QResidualScorer

    def fit(
        self,
        potential: Potential,  # noqa: ARG002
        learned: Batch,
        heldout: Batch,
        retrain: Retrain,
    ) -> SoapSurprise:
        """Return the scorer fitted to frames; it does not depend on the potential."""
        elements = np.union1d(learned.numbers, heldout.numbers)
        soap = SoapDescriptors(tuple(int(z) for z in elements))
        fitted = self.scorer.fit(_SoapPotential(soap), learned, heldout, retrain)
        return SoapSurprise(soap, fitted)

    def restore(
        self,
        arrays: Arrays,
        read_potential: ReadPotential,  # noqa: ARG002
    ) -> SoapSurprise:
        """Return the scorer that gave these arrays; ValueError if they do not fit."""
        elements = np.asarray(arrays[_ELEMENTS])
        rest = {name: x for name, x in arrays.items() if name != _ELEMENTS}
        if elements.ndim != 1 or not np.isin(elements, np.arange(1, 119)).all():
            raise ValueError("the scorer's arrays do not fit (elements of SOAP)")
        soap = SoapDescriptors(tuple(int(z) for z in elements))
        return SoapSurprise(soap, QResidual.from_arrays(rest))


@dataclass(frozen=True, slots=True)
class _SoapPotential:
    """SOAP descriptors in the place of a potential's; no energies and forces."""

    soap: SoapDescriptors

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        descriptors_of = self.soap.describe(batch) if descriptors else None
        shape = batch.positions.shape
        return Predictions(np.zeros(len(batch)), np.zeros(shape), descriptors_of)


def missing_dscribe() -> str | None:
    """Return a sentence where DScribe is not installed, or None."""
    if importlib.util.find_spec("dscribe") is not None:
        return None
    return "DScribe is not installed; pip install 'alloop[soap]'"


@cache
def _soap(elements: tuple[int, ...], periodic: bool) -> Any:
    if missing := missing_dscribe():
        raise InputError(missing)
    from dscribe.descriptors import SOAP

    return SOAP(
        species=[int(z) for z in elements],
        r_cut=5.0,
        n_max=8,
        l_max=6,
        sigma=0.375,
        periodic=periodic,
    )
