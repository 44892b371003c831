"""Scores of frames that the user brings: surprise, limit of the error, verdict."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan
from typing import Any

import numpy as np
from ase import Atoms

from alloop.core.atoms import hill_formula
from alloop.core.batch import pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame, frame_fault
from alloop.core.species import Domain, species
from alloop.core.units import Floats
from alloop.files.frames import GivenStructure
from alloop.generation import Generation
from alloop.scores.error_limits import needed_frames

VERDICTS = ("trusted", "flagged", "outside")
_ATOMS = 2000  # of a batch, about


@dataclass(frozen=True, slots=True, eq=False)
class ScoredFrame:
    """A frame with its predicted energy, surprise, limit of the error and verdict.

    number: of the frame in its file, from 0 on. energy in eV; nan where the model knows
    nothing of an element, and surprise with it, or gives no number. error_limit: upper
    limit of the largest force error on an atom, eV/Å; inf where the frames that it was
    made from show none, nan where the model has none and for frames outside. verdict:
    "trusted", "flagged", or "outside" for a composition, charge or spin that the model
    was not trained on.
    """

    number: int
    atoms: Atoms
    formula: str
    energy: float
    surprise: float
    error_limit: float
    verdict: str

    def facts(self) -> dict[str, Any]:
        """Return all but the structure, fit for `json.dumps`."""
        return {
            "frame": self.number,
            "formula": self.formula,
            "energy": _or_none(self.energy),
            "surprise": _or_none(self.surprise),
            "error_limit": _or_none(self.error_limit),
            "verdict": self.verdict,
        }

    def scored_atoms(self) -> Atoms:
        """Return a copy of the structure as it was read, with the scores in `info`."""
        atoms = self.atoms.copy()
        atoms.calc = self.atoms.calc
        values = {"model_energy": self.energy, "surprise": self.surprise}
        values["error_limit"] = self.error_limit
        finite = {key: value for key, value in values.items() if not isnan(value)}
        atoms.info |= {**finite, "verdict": self.verdict}
        return atoms


@dataclass(frozen=True, slots=True, eq=False)
class FrameScores:
    """The scores of a model.

    domain: what it was trained on; None where that is not known. error: eV/Å; frames
    that may be off by more are flagged, by default those above the surprise threshold.
    Raises InputError where the model cannot give a verdict.
    """

    model: Generation
    domain: Domain | None = None
    error: float | None = None

    def __post_init__(self) -> None:
        if self.model.scorer is None:
            raise InputError("this model has no scorer: it cannot tell its surprise")
        if self.error is not None and self.model.error_limits is None:
            raise InputError(
                "expected a model with limits of its errors, this one has none: they "
                f"take {needed_frames(0.9)} expensive labels or more that it was not "
                "trained on (`test.frames`); leave `--error` out, or train it anew"
            )
        if self.error is None and self.model.threshold is None:
            raise InputError(
                "expected a calibrated model, this one has no threshold of surprise; "
                "hold more frames out of its training (`flag.heldout`)"
            )

    def score(self, structures: Iterable[GivenStructure]) -> Iterator[ScoredFrame]:
        """Yield the scores of structures in order; a batch of them is in memory."""
        waiting: list[GivenStructure] = []
        first = atoms = 0
        for structure in structures:
            waiting.append(structure)
            atoms += len(structure.frame)
            if atoms >= _ATOMS:
                yield from self._score_batch(first, waiting)
                first += len(waiting)
                waiting, atoms = [], 0
        if waiting:
            yield from self._score_batch(first, waiting)

    def _score_batch(
        self, first: int, structures: list[GivenStructure]
    ) -> Iterator[ScoredFrame]:
        inside = np.array(
            [self._is_inside(structure.frame) for structure in structures]
        )
        energies, surprise = np.full((2, len(structures)), nan)
        sound = np.array(
            [frame_fault(structure.frame) is None for structure in structures]
        )
        for places in (np.flatnonzero(inside & sound), np.flatnonzero(~inside & sound)):
            if len(places):
                said = self._predicted([structures[i].frame for i in places])
                energies[places], surprise[places] = said
        limits = self._limits(surprise, [structure.frame for structure in structures])
        for index, structure in enumerate(structures):
            limit = float(limits[index])
            numbers = not isnan(energies[index])
            is_known = inside[index] and (numbers or self.domain is not None)
            if is_known and not numbers and self.model.error_limits is not None:
                limit = inf  # as for atoms on top of one another
            yield ScoredFrame(
                number=first + index,
                atoms=structure.atoms,
                formula=hill_formula(structure.frame),
                energy=float(energies[index]),
                surprise=float(surprise[index]),
                error_limit=limit if is_known else nan,
                verdict=self._verdict(surprise[index] if numbers else nan, limit)
                if is_known
                else "outside",
            )

    def _is_inside(self, frame: Frame) -> bool:
        """Return True for a species of the domain, and where that is not known."""
        elements = None if self.domain is None else self.domain.species
        return elements is None or species(pack_frames([frame]))[0] in elements

    def _predicted(self, frames: Sequence[Frame]) -> tuple[Floats, Floats]:
        """Return energies (frames,) in eV and surprise (frames,).

        nan where the model cannot be asked, as it knows nothing of an element.
        """
        batch = pack_frames(frames)
        try:
            said = self.model.predict(batch, descriptors=True)
        except InputError:
            if self.domain is not None and self._is_inside(frames[0]):
                raise  # of which the model has learned
            if len(frames) == 1:
                return np.full(1, nan), np.full(1, nan)
            parts = [self._predicted([frame]) for frame in frames]
            energies, surprise = (np.concatenate(x) for x in zip(*parts, strict=True))
            return energies, surprise
        assert self.model.scorer is not None
        return said.energies, self.model.scorer.score(batch, said)

    def _limits(self, surprise: Floats, frames: Sequence[Frame]) -> Floats:
        limits = self.model.error_limits
        if limits is None:
            return np.full(len(surprise), nan)
        return limits.limits(surprise, pack_frames(frames))

    def _verdict(self, surprise: float, limit: float) -> str:
        if self.error is not None:
            return "trusted" if limit <= self.error else "flagged"
        assert self.model.threshold is not None
        return "trusted" if surprise <= self.model.threshold else "flagged"


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
