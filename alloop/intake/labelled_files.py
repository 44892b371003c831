"""Reading of labelled frames from files of any supported format, and from stores."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from alloop.core.atoms import unpaired_electrons
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.levels import Fidelity
from alloop.core.records import Label
from alloop.files.label_files import convert_labels, listed_frames, read_file
from alloop.files.labelled_frames import FileUnits, LabelKeys, LabelledFrames, RawLabel
from alloop.history.reader import History, read_history
from alloop.intake.label_checks import unit_warnings


def read_labels(  # noqa: PLR0913 - one keyword for each fact that a file cannot say
    path: str | Path,
    *,
    energy_unit: str = "eV",
    length_unit: str = "angstrom",
    force_unit: str | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    charge: int | None = None,
    spin: int | None = None,
    multiplicity: int | None = None,
    fidelity: Fidelity | Literal["test"] | None = None,
    energies_alone: bool = False,
) -> LabelledFrames:
    """Read labelled frames from extxyz, an ASE database, npz, or an alloop store.

    Parameters
    ----------
    path
        `.npz` as MD17's, an ASE database (`.db`), a store's folder, or any file that
        `ase.io.read` reads.
    energy_unit, length_unit, force_unit
        Units of the file's numbers; forces default to energy/length.
    energy_key, forces_key
        Names in the file. In an npz, a prefix such as `cc_` of `cc_E` is also tried for
        the positions and atomic numbers.
    charge, spin, multiplicity
        Total charge (e) and 2S, or 2S + 1 in its place, of every frame; default to what
        the file says, then to a neutral singlet.
    fidelity
        Of a store only: "cheap" or "expensive" for the labels that it trains on, "test"
        for its test set.
    energies_alone
        Accept frames that have no forces, whose forces are then NaN.

    Raises:
    ------
    InputError
        The file, its labels or a unit cannot be used.
    """
    path, spin = Path(path), unpaired_electrons(spin, multiplicity)
    units = FileUnits(energy_unit, length_unit, force_unit or "")
    if not path.exists():
        raise InputError(f"expected a file of labelled frames at {path}, found nothing")
    if path.is_dir():
        raw_labels = _read_store(path, fidelity, units)
    else:
        keys = LabelKeys(energy_key, forces_key, energies_alone, charge, spin)
        raw_labels = read_file(path, keys)
    raw_labels = [_with_charge_and_spin(raw, charge, spin) for raw in raw_labels]
    intake = convert_labels(path, raw_labels, units)
    doubts = (*_odd_electrons(path, intake.frames), *unit_warnings(intake))
    return replace(intake, warnings=doubts)


def _with_charge_and_spin(
    raw: RawLabel, charge: int | None, spin: int | None
) -> RawLabel:
    return replace(
        raw,
        charge=raw.charge if charge is None else charge,
        spin=raw.spin if spin is None else spin,
    )


def _odd_electrons(path: Path, frames: Sequence[Frame]) -> tuple[str, ...]:
    odd = [
        index
        for index, frame in enumerate(frames)
        if not any(frame.pbc)
        and (int(frame.numbers.sum()) - frame.charge - frame.spin) % 2
    ]
    if not odd:
        return ()
    frame = frames[odd[0]]
    return (
        f"charge {frame.charge} and spin {frame.spin} (2S, the number of unpaired "
        f"electrons) do not fit the electrons of {listed_frames(odd)} in {path}; give "
        "`charge` and `multiplicity`",
    )


def _read_store(
    path: Path, fidelity: Fidelity | Literal["test"] | None, units: FileUnits
) -> list[RawLabel]:
    """Read the labels that a store trains on at a fidelity, or its test set ("test").

    Labels that were excluded there are left out. Raises InputError for an unknown
    fidelity, and for units that are not a store's.
    """
    if units != FileUnits():
        raise InputError(
            f"{path} is a folder, so it is read as an alloop store, which is in eV "
            "and Å; leave the units out"
        )
    history = read_history(path)
    levels = history.opened.levels
    if fidelity == "test":
        return _raw_labels(
            history, levels["expensive"], history.state.labels.validation_frames()
        )
    if fidelity is None or fidelity not in levels:
        raise InputError(
            f"expected `fidelity` to be one of {', '.join((*levels, 'test'))} for the "
            f"store {path}, got {fidelity}"
        )
    return _raw_labels(
        history, levels[fidelity], history.state.labels.trained_on(fidelity)
    )


def _raw_labels(
    history: History, level: str, frames: tuple[str, ...]
) -> list[RawLabel]:
    out = []
    for frame_id in frames:
        frame = history.label_index.frames[frame_id]
        label = history.label_index.labels[level, frame_id]
        if isinstance(label, Label):
            out.append(
                RawLabel(
                    numbers=frame.numbers,
                    positions=frame.positions,
                    energy=label.energy,
                    forces=label.forces,
                    charge=frame.charge,
                    spin=frame.spin,
                    cell=frame.cell,
                    pbc=frame.pbc,
                    stress=label.stress,
                )
            )
    return out
