"""The Q-residual: the distance of an atom from what its element had in training.

Wong & Yang, arXiv 2603.10159: Q_i = ||x_i - x̂_i||² with x̂ the reconstruction in the
principal subspace of training descriptors. Here it is computed for each element on its
own and standardised on held-out frames, because elements with few atoms usually have
large residuals; the largest among the atoms counts, because one reacting atom hardly
moves the mean over a frame.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alloop.core.arrays import (
    Place,
    array_like,
    library,
    segment_maxima,
    segment_sums,
)
from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.records import Predictions
from alloop.core.roles import Arrays, Potential, ReadPotential, Retrain
from alloop.core.settings import setting
from alloop.core.units import Floats, Integers
from alloop.scores.subspace import Subspace, principal_subspace

KINDS = ("q", "ppca", "leverage")
UNSEEN = 1e6  # surprise of an element that was not in training: large, yet finite
_PER_ELEMENT = ("elements", "centre", "spread", "components", "rest", "total")
_ENOUGH = 16  # held-out atoms of an element that suffice on their own
_TINY = 1e-12  # of a mean or a spread
_NARROW = 0.1  # of the mean residual: the least spread


@dataclass(frozen=True, slots=True, eq=False)
class QResidual:
    """A scorer by the largest standardised residual among a frame's atoms.

    kind "q" is Q itself, "ppca" T² + Q/σ², which also sees atoms far out inside the
    subspace, "leverage" the latter in the space of `ridge_space`: the surprise is then
    the root of the sum over atoms of (leverage / its mean in held-out frames)², in
    which one reacting atom prevails, yet not alone. elements (elements,), ascending,
    each with its subspace and with centre and spread (elements,) of its residuals in
    held-out frames.
    """

    kind: str
    elements: Integers
    subspaces: tuple[Subspace, ...]
    centre: Floats
    spread: Floats

    def score(self, batch: Batch, predictions: Predictions) -> Floats:
        """Return the surprise (frames,); InputError where there are no descriptors."""
        if predictions.descriptors is None:
            raise InputError(
                "expected per-atom descriptors to score, got none; "
                "ask the potential for them (descriptors=True)"
            )
        z = self.per_atom(batch, predictions.descriptors)
        if not len(batch):
            return z
        offsets, functions = array_like(batch.offsets, z), library(z)
        if self.kind == "leverage":
            norms = functions.sqrt(segment_sums(z**2, offsets))
            capped: Floats = functions.clip(norms, None, UNSEEN)
            return capped
        out: Floats = segment_maxima(z, offsets)
        return out

    def placed(self, place: Place) -> "QResidual":
        """Return the scorer of predictions that are kept elsewhere, on a device."""
        spaces = tuple(space.placed(place) for space in self.subspaces)
        return replace(self, subspaces=spaces)

    def per_atom(self, batch: Batch, descriptors: Floats) -> Floats:
        """Return standardised residuals (atoms,) of descriptors (atoms, features).

        Leverages are divided by their mean alone.
        """
        features = self.subspaces[0].mean.shape[0] if self.subspaces else 0
        if descriptors.shape[1] != features:
            raise InputError(
                f"expected the {features} descriptors that the scorer was fitted to, "
                f"got {descriptors.shape[1]}; export the model again"
            )
        # Atoms of elements that were not in training keep this.
        z = array_like(np.full(len(batch.numbers), UNSEEN), descriptors)
        for index, element in enumerate(self.elements):
            atoms = array_like(np.flatnonzero(batch.numbers == element), descriptors)
            raw = _raw_residuals(self.subspaces[index], self.kind, descriptors[atoms])
            centre = self.centre[index]
            if self.kind == "leverage":
                z[atoms] = raw / max(centre, _TINY)
            else:
                z[atoms] = (raw - centre) / self.spread[index]
        out: Floats = library(z).clip(z, None, UNSEEN)
        return out

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the named arrays that `from_arrays` reads."""
        spaces = self.subspaces
        return {
            "kind": np.array([KINDS.index(self.kind)]),
            "elements": self.elements,
            "centre": self.centre,
            "spread": self.spread,
            "mean": np.stack([space.mean for space in spaces]),
            "axes": np.concatenate([space.axes for space in spaces]),
            "variances": np.concatenate([space.variances for space in spaces]),
            "components": np.array([len(space.variances) for space in spaces]),
            "rest": np.array([space.rest for space in spaces]),
            "total": np.array([space.total for space in spaces]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray[Any, Any]]) -> "QResidual":
        """Return the scorer that gave these arrays; ValueError if they do not fit."""
        _refuse_misfits(arrays)
        cuts = np.cumsum(arrays["components"])[:-1]
        columns = zip(
            arrays["mean"],
            np.split(arrays["axes"], cuts),
            np.split(arrays["variances"], cuts),
            arrays["rest"],
            arrays["total"],
            strict=True,
        )
        return cls(
            kind=KINDS[int(arrays["kind"][0])],
            elements=np.asarray(arrays["elements"], dtype=np.int64),
            subspaces=tuple(
                Subspace(m, a, v, float(r), float(t)) for m, a, v, r, t in columns
            ),
            centre=np.asarray(arrays["centre"], dtype=np.float64),
            spread=np.asarray(arrays["spread"], dtype=np.float64),
        )


@dataclass(frozen=True, slots=True)
class QResidualScorer:
    """The Scorer whose surprise is the Q-residual.

    kind: of the residual, see `QResidual`.
    """

    components: float = setting(
        0.99,
        "principal components of the scorer: a share of variance below 1, a number "
        "from 1 on",
        gt=0,
    )
    kind: str = "q"

    def fit(
        self,
        potential: Potential,
        learned: Batch,
        heldout: Batch,
        retrain: Retrain,  # noqa: ARG002
    ) -> QResidual:
        """Return the scorer fitted to a potential's descriptors."""
        return fit_qresidual(
            learned,
            atom_descriptors(potential, learned),
            heldout,
            atom_descriptors(potential, heldout),
            components=self.components,
            kind=self.kind,
        )

    def restore(
        self,
        arrays: Arrays,
        read_potential: ReadPotential,  # noqa: ARG002
    ) -> QResidual:
        """Return the scorer that gave these arrays; ValueError if they do not fit."""
        return QResidual.from_arrays(arrays)


def atom_descriptors(potential: Potential, batch: Batch) -> Floats:
    """Return descriptors (atoms, features); InputError where there are none."""
    descriptors = potential.predict(batch, descriptors=True).descriptors
    if descriptors is None:
        raise InputError(
            "expected a potential with descriptors of atoms, this one has none; choose "
            "`flag: {descriptors: soap}`, or `flag: {kind: committee}`"
        )
    return descriptors


def fit_qresidual(
    train: Batch,
    train_descriptors: Floats,
    heldout: Batch,
    heldout_descriptors: Floats,
    components: float = 0.99,
    kind: str = "q",
) -> QResidual:
    """Fit subspaces on training atoms, centre and spread on held-out ones.

    components: int, or share of the variance below 1. Without held-out frames the
    training frames are used, which makes surprise too large. InputError without
    training frames or for an unknown kind.
    """
    return fit_spaces(
        lambda x, typical: principal_subspace(x, components, typical),
        kind,
        (train, train_descriptors),
        (heldout, heldout_descriptors),
    )


def fit_spaces(
    space_of: Callable[[Floats, float], Subspace],
    kind: str,
    learned: tuple[Batch, Floats],
    held: tuple[Batch, Floats],
) -> QResidual:
    """Fit a space to each element's descriptors in training; scale by held-out ones."""
    train, train_descriptors = learned
    _check_training(train, kind)
    heldout, heldout_descriptors = held if len(held[0]) else learned
    elements = np.unique(train.numbers)
    by_element = [train_descriptors[train.numbers == element] for element in elements]
    typical = _typical_variance(by_element)
    spaces = tuple(space_of(x, typical) for x in by_element)
    residuals = [
        _raw_residuals(space, kind, heldout_descriptors[heldout.numbers == element])
        for element, space in zip(elements, spaces, strict=True)
    ]
    scales = [space.total if kind == "q" else 1.0 for space in spaces]
    centre, spread = _centre_and_spread(residuals, np.array(scales))
    return QResidual(kind, elements, spaces, centre, spread)


def _refuse_misfits(arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Raise ValueError where arrays are not a scorer's, by shapes, kind or numbers."""
    count, features = arrays["mean"].shape
    rows = int(arrays["components"].sum())
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_PER_ELEMENT, (count,))
    shapes |= {"kind": (1,), "axes": (rows, features), "variances": (rows,)}
    wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape]
    wrong += [name for name, x in arrays.items() if not np.isfinite(x).all()]
    if arrays["kind"][0] not in range(len(KINDS)) or (arrays["components"] < 0).any():
        wrong.append("kind or components")
    if wrong or not count:
        raise ValueError(f"the scorer's arrays do not fit ({', '.join(wrong)})")


def _check_training(train: Batch, kind: str) -> None:
    if kind not in KINDS:
        raise InputError(f"expected a residual of kind {KINDS}, got {kind!r}")
    if not len(train):
        raise InputError("expected training frames to fit a scorer, got none")


def _raw_residuals(space: Subspace, kind: str, descriptors: Floats) -> Floats:
    of = space.residual if kind == "q" else space.distance
    return of(descriptors)


def _typical_variance(by_element: list[Floats]) -> float:
    """Return the mean total variance of the elements that have one, or 1."""
    totals = [float(x.var(axis=0).sum()) for x in by_element]
    some = [total for total in totals if total > 0.0]
    return float(np.mean(some)) if some else 1.0


def _centre_and_spread(
    residuals: list[Floats], scales: Floats
) -> tuple[Floats, Floats]:
    """Return centre and spread of residuals (elements,).

    An element with n < `_ENOUGH` atoms gets a weighted mean: n/_ENOUGH of its own
    values and the rest of those of all elements together. `scales` are units in which
    the residuals of elements are comparable.
    """
    alike = [r / scale for r, scale in zip(residuals, scales, strict=True)]
    pooled = np.concatenate(alike)
    if not len(pooled):
        pooled = np.ones(1)
    trust = np.array([min(1.0, len(r) / _ENOUGH) for r in alike])
    mean = trust * _per_element(alike, np.mean) + (1.0 - trust) * pooled.mean()
    deviation = trust * _per_element(alike, np.std) + (1.0 - trust) * pooled.std()
    floor = np.maximum(_NARROW * mean, _TINY)
    return scales * mean, scales * np.maximum(deviation, floor)


def _per_element(samples: list[Floats], statistic: Any) -> Floats:
    return np.array([statistic(s) if len(s) else 0.0 for s in samples])
