"""Minima and vibrations of structures that a user brings, with the model's trust."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from alloop.core.atoms import hill_formula, to_atoms
from alloop.core.batch import Batch, pack_frames
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Predictions
from alloop.core.units import Floats
from alloop.generation import Generation
from alloop.md.anharmonic import AnharmonicVibrations, anharmonic_vibrations
from alloop.md.reaction_path import aligned_distance
from alloop.md.thermal_frames import relax_frames
from alloop.md.vibrations import (
    GasFunctions,
    Vibrations,
    gas_functions,
    harmonic_vibrations,
)

_HEIGHT = 1.0  # of lines without intensities


@dataclass(frozen=True, slots=True, eq=False)
class RelaxedStructure:
    """A structure after its relaxation.

    number: in the file, from 0 on; energy in eV; force: the largest on an atom that is
    left, eV/Å; moved: root mean square of the atoms' moves once the structures lie on
    each other, Å; surprise and error_limit (of the largest force error on an atom,
    eV/Å): NaN where the model has none, inf where a limit is infinite.
    """

    number: int
    frame: Frame
    energy: float
    force: float
    moved: float
    surprise: float
    error_limit: float
    converged: bool
    surprising: bool

    def facts(self) -> dict[str, Any]:
        """Return all but the structure, fit for `json.dumps` and for a CSV file."""
        return {
            "structure": self.number,
            "formula": hill_formula(self.frame),
            "energy": self.energy,
            "force": self.force,
            "moved": self.moved,
            "surprise": _or_none(self.surprise),
            "error_limit": _or_none(self.error_limit),
            "converged": self.converged,
            "surprising": self.surprising,
        }

    def atoms(self) -> Atoms:
        """Return the structure with its numbers in `info`, for extxyz."""
        atoms = to_atoms(self.frame)
        facts = {k: v for k, v in self.facts().items() if v is not None}
        atoms.info |= {"relaxed_energy": facts.pop("energy"), **facts}
        return atoms


@dataclass(frozen=True, slots=True, eq=False)
class VibratingStructure:
    """A relaxed structure with its vibrations.

    gas: None for one in a cell; anharmonic: None where it was not asked for.
    """

    relaxed: RelaxedStructure
    vibrations: Vibrations
    gas: GasFunctions | None
    anharmonic: AnharmonicVibrations | None = None

    def facts(self) -> dict[str, Any]:
        """Return all numbers, fit for `json.dumps`."""
        vibrations, gas = self.vibrations, self.gas
        lines = vibrations.intensities
        return {
            **self.relaxed.facts(),
            "geometry": vibrations.geometry if gas is not None else None,
            "imaginary": vibrations.imaginary,
            "wavenumbers": vibrations.modes.wavenumbers.tolist(),
            "intensities": None if lines is None else lines.tolist(),
            "gas": None
            if gas is None
            else {name: getattr(gas, name) for name in gas.__slots__},
            **self._anharmonic_facts(),
        }

    def _anharmonic_facts(self) -> dict[str, Any]:
        if self.anharmonic is None:
            return {}
        return {
            "fundamentals": self.anharmonic.fundamentals.tolist(),
            "shares": self.anharmonic.shares.tolist(),
            "anharmonic_zero_point": self.anharmonic.zero_point,
            "anharmonic_noise": self.anharmonic.noise,
            "resonances": [asdict(x) for x in self.anharmonic.resonances],
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the modes, for a CSV file; imaginary wavenumbers are negative."""
        facts = self.facts()
        lines = facts["intensities"] or [None] * len(facts["wavenumbers"])
        for mode, pair in enumerate(zip(facts["wavenumbers"], lines, strict=True)):
            row = {
                "structure": facts["structure"],
                "formula": facts["formula"],
                "mode": mode,
                "wavenumber": pair[0],
                "intensity": pair[1],
            }
            if self.anharmonic is not None:
                row["fundamental"] = facts["fundamentals"][mode]
            yield row

    def atoms(self) -> Atoms:
        """Return the structure, modes as columns `mode_0` ..., Å √amu, for extxyz."""
        atoms = self.relaxed.atoms()
        atoms.info["wavenumbers"] = self.vibrations.modes.wavenumbers
        if self.vibrations.intensities is not None:
            atoms.info["intensities"] = self.vibrations.intensities
        if self.anharmonic is not None:
            atoms.info["fundamentals"] = self.anharmonic.fundamentals
        for number, vector in enumerate(self.vibrations.modes.vectors):
            atoms.set_array(f"mode_{number}", vector)
        return atoms


def relaxed_structures(
    model: Generation, frames: Sequence[Frame], fmax: float, steps: int
) -> list[RelaxedStructure]:
    """Return the frames relaxed together, cells as they are, or left with `steps` 0.

    Raises InputError for a frame whose forces are not finite.
    """
    minima = list(frames)
    if steps:
        for number, minimum in enumerate(relax_frames(frames, model, fmax, steps)):
            if minimum is None:
                raise InputError(
                    f"expected finite forces while relaxing structure {number}, got "
                    "nan or inf; check it"
                )
            minima[number] = minimum
    batch = pack_frames(minima)
    predictions = model.predict(batch, descriptors=model.scorer is not None)
    surprise, limits = _trust(model, batch, predictions)
    structures = []
    for number, span in enumerate(batch.atom_slices()):
        frame, minimum = frames[number], minima[number]
        force = float(np.linalg.norm(predictions.forces[span], axis=1).max())
        structures.append(
            RelaxedStructure(
                number=number,
                frame=minimum,
                energy=float(predictions.energies[number]),
                force=force,
                moved=aligned_distance(minimum, frame),
                surprise=float(surprise[number]),
                error_limit=float(limits[number]),
                converged=force < fmax,
                surprising=model.threshold is not None
                and bool(surprise[number] > model.threshold),
            )
        )
    return structures


def vibrating_structures(
    model: Generation,
    structures: Sequence[RelaxedStructure],
    temperature: float,
    pressure: float,
    symmetry_number: int | None = None,
    *,
    anharmonic: bool = False,
) -> Iterator[VibratingStructure]:
    """Yield the vibrations of relaxed structures; those of one are one batch.

    temperature in K, pressure in bar. Functions of the gas are harmonic in any case.
    Raises InputError where `anharmonic_vibrations` does.
    """
    for structure in structures:
        vibrations = harmonic_vibrations(structure.frame, model.potential)
        gas = None
        if not any(structure.frame.pbc):
            gas = gas_functions(
                vibrations, structure.energy, temperature, pressure, symmetry_number
            )
        beyond = anharmonic_vibrations(vibrations, model) if anharmonic else None
        yield VibratingStructure(structure, vibrations, gas, beyond)


def draw_lines(structures: Sequence[VibratingStructure], out: Path, kind: str) -> None:
    """Draw the harmonic lines, one row for each structure, with intensities if known.

    kind: the format of the file: svg, png or pdf.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 1.0 + 1.6 * len(structures)), layout="constrained")
    rows = figure.subplots(len(structures), sharex=True, squeeze=False)[:, 0]
    for axes, structure in zip(rows, structures, strict=True):
        vibrations = structure.vibrations
        places = vibrations.modes.wavenumbers
        heights = vibrations.intensities
        told = heights is not None
        real = places > 0.0
        drawn = np.full(len(places), _HEIGHT) if heights is None else heights
        axes.vlines(places[real], 0.0, drawn[real])
        axes.vlines(places[~real], 0.0, drawn[~real], color="tab:red")
        number, formula = structure.relaxed.number, hill_formula(vibrations.frame)
        axes.set_title(f"{number}: {formula}", fontsize="small", loc="left")
        axes.set_ylim(bottom=0.0)
        axes.set_ylabel("km/mol" if told else "")
        if not told:
            axes.set_yticks([])
    rows[-1].set_xlabel("harmonic wavenumber, cm⁻¹ (imaginary: negative, red)")
    figure.savefig(out, format=kind)


def _trust(
    model: Generation, batch: Batch, predictions: Predictions
) -> tuple[Floats, Floats]:
    none = np.full(len(batch), nan)
    if model.scorer is None:
        return none, none
    surprise = model.scorer.score(batch, predictions)
    if model.error_limits is None:
        return surprise, none
    return surprise, model.error_limits.limits(surprise, batch)


def _or_none(value: float) -> float | None:
    return value if isfinite(value) else None
