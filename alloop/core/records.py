"""The records that stages pass on: predictions, walkers, candidates, labels.

All are frozen; arrays are in eV, Å, fs. A failure is a record too (`Unlabelled`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

import numpy as np

from alloop.core.arrays import Place
from alloop.core.batch import Batch, pack_frames
from alloop.core.frame import Frame, FrameId
from alloop.core.levels import LevelId
from alloop.core.stress import stack_stress
from alloop.core.units import Floats

Detail: TypeAlias = str | float | int | bool | None
Explorer: TypeAlias = Literal["md", "shapes", "metadynamics", "uncertainty", "paths"]
# What a campaign tells by itself.
Topic: TypeAlias = Literal[
    "finished", "stopped", "target", "budget", "failures", "stalled", "disk"
]


class Failure(StrEnum):
    """The reason why there is no label; the value is advice for the user."""

    GEOMETRY = "atoms too close or not finite; look at how the frame was made"
    NOT_CONVERGED = "the SCF did not converge; try level shift or a smaller step"
    CC_NOT_CONVERGED = "the coupled-cluster equations did not converge"
    CAS_NOT_CONVERGED = (
        "the CASSCF did not converge; choose the active space by atomic orbitals, or "
        "another one"
    )
    GATE = "the result failed a check of forces; the label cannot be trusted"
    ELECTRONS = "charge and spin do not fit the electrons; give charge and multiplicity"
    UNSUPPORTED = "this level cannot treat this frame"
    TIMEOUT = (
        "the label ran into its time limit; raise it (`limits: label_time`, "
        "`--time-limit`) or lower the level"
    )
    MEMORY = (
        "the label ran into its memory limit; raise it, in MB "
        "(`limits: label_memory`, `--memory-limit`)"
    )
    DISK = "the scratch disk is full or failing; free it or set PYSCF_TMPDIR"
    CRASHED = "the program failed, or its process died; see the message"
    LOST = "the worker was lost too often; see the log"
    UNSTABLE = "the SCF ended on a saddle point and no rung led away from it"
    MISSING = "the table holds no label of this frame"

    @property
    def is_transient(self) -> bool:
        """True if another machine, another try or other limits may give a label."""
        return self in _TRANSIENT


_TRANSIENT = frozenset(
    {Failure.TIMEOUT, Failure.MEMORY, Failure.DISK, Failure.CRASHED, Failure.LOST}
)


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The predictions of a potential for a batch.

    energies (frames,) in eV, forces (atoms, 3) in eV/Å, descriptors (atoms, features)
    or None where they were not asked for. stress (frames, 6) in eV/Å³, in Voigt's order
    and with ASE's sign, NaN for frames without a cell; None where the potential gives
    none. dipoles (frames, 3) in e Å, None where one of the frames has none.
    """

    energies: Floats
    forces: Floats
    descriptors: Floats | None = None
    stress: Floats | None = None
    dipoles: Floats | None = None

    def moved(self, place: Place) -> "Predictions":
        """Return the predictions with all of their arrays moved to another place."""
        others = (
            None if x is None else place(x)
            for x in (self.descriptors, self.stress, self.dipoles)
        )
        return Predictions(place(self.energies), place(self.forces), *others)


@dataclass(frozen=True, slots=True, eq=False)
class Walker:
    """The state of one MD trajectory.

    frame: the current one; velocities (atoms, 3) in Å/fs; step: MD steps taken;
    stopped: the reason why a guard rail stopped it, None while it moves. temperature:
    of its thermostat in K; None: that of the settings of MD.
    """

    index: int
    molecule: int
    frame: Frame
    velocities: Floats
    step: int = 0
    stopped: str | None = None
    temperature: float | None = None


STATIONARY = "stationary"  # origin of a candidate: the top or the end of a path
_CHOSEN = ("surprise", "control", STATIONARY)  # origins that are no guard rails


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A frame that MD proposes, with the model's predictions, made before any label.

    surprise: from the scorer; energy in eV and forces (atoms, 3) in eV/Å: from the
    model; descriptor (features,): the mean over atoms; origin: "surprise", "control",
    `STATIONARY`, or the guard rail that stopped its walker. explorer: what made it,
    from the walker at this step.
    """

    frame: Frame
    molecule: int
    walker: int
    step: int
    surprise: float
    energy: float
    forces: Floats
    descriptor: Floats
    origin: str = "surprise"
    explorer: Explorer = "md"

    @property
    def guard(self) -> str | None:
        """The guard rail that stopped its walker, None where none did."""
        return None if self.origin in _CHOSEN else self.origin


@dataclass(frozen=True, slots=True, eq=False)
class MinimumPath:
    """A reaction path from a molecule's lowest minimum to another one, as last found.

    lowest, minimum: the two, on the model of that round; top: the highest structure,
    and its energy in eV by that model; surprising: the number of structures whose
    surprise is above the threshold. error: of the energy against the expensive label
    of the top in eV, None without one.
    """

    molecule: int
    lowest: Frame
    minimum: Frame
    top: FrameId
    energy: float
    surprising: int
    error: float | None = None

    def is_done(self, tolerance: float) -> bool:
        """Return True if the path is trusted and its top agrees with the label (eV)."""
        trusted = self.surprising == 0 and self.error is not None
        return trusted and abs(self.error or 0.0) <= tolerance


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """The energy (eV) and forces (atoms, 3) in eV/Å of a frame at a level.

    The forces of a label that has an energy alone are NaN, all of them.
    cpu_seconds: the cost; details: columns worth keeping (rung of the ladder, HOMO-LUMO
    gap, <S²>, T1, energies of cheaper methods inside, program, host). stress (6,) in
    eV/Å³, in Voigt's order and with ASE's sign, of a cell at a level that gives it.
    """

    frame: FrameId
    level: LevelId
    energy: float
    forces: Floats
    cpu_seconds: float = 0.0
    details: Mapping[str, Detail] = field(default_factory=dict)
    stress: Floats | None = None

    @property
    def has_forces(self) -> bool:
        """False where the label has an energy alone."""
        return bool(np.isfinite(self.forces).all())

    @property
    def is_numeric(self) -> bool:
        """True if the energy is finite, and the forces are, or all of them are NaN."""
        return bool(
            np.isfinite(self.energy)
            and (self.has_forces or np.isnan(self.forces).all())
        )

    @property
    def is_permanent(self) -> bool:
        """True: a label stays what it is."""
        return True


@dataclass(frozen=True, slots=True, eq=False)
class Unlabelled:
    """A frame that has no label at a level, and the reason."""

    frame: FrameId
    level: LevelId
    failure: Failure
    message: str = ""
    cpu_seconds: float = 0.0
    details: Mapping[str, Detail] = field(default_factory=dict)

    @property
    def is_permanent(self) -> bool:
        """True if another try would give the same failure."""
        return not self.failure.is_transient


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """The change of a label made again at tighter settings, with the frame rotated.

    level: the label's own; energy in eV (absolute difference), force_rms and force_max
    over components in eV/Å. failure: the reason where there is no second label.
    """

    frame: FrameId
    level: LevelId
    energy: float = float("nan")
    force_rms: float = float("nan")
    force_max: float = float("nan")
    cpu_seconds: float = 0.0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """A check of a trained model: what was measured, and the most that passes.

    name: a phrase for people; detail: more of it, "" without. limit: infinite where
    there is nothing to compare with. set_name: the user's set of frames that was
    measured, "" for none; before: the value of the model before, None where it was not
    measured.
    """

    name: str
    value: float
    limit: float
    unit: str = ""
    detail: str = ""
    set_name: str = ""
    before: float | None = None

    @property
    def passed(self) -> bool:
        """True where the value is a number and not above the limit."""
        return self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Refinement:
    """A test-time training in place of a training (`alloop.refine.test_time`).

    frames: whose cheap labels it learned; share: of its step that was kept, 0 where it
    was rolled back. cheap, held: force MAE before and after, on these labels and on
    expensive ones that the model was not trained on, eV/Å.
    """

    frames: int
    share: float
    cheap: tuple[float, float]
    held: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class LabelSet:
    """Labelled frames of one level: energies (frames,) eV, forces (atoms, 3) eV/Å.

    Forces are NaN for frames whose label has an energy alone.
    stress (frames, 6) in eV/Å³, in Voigt's order, NaN for frames whose label has none;
    None where no label has one. dipoles (frames, 3) in e Å about the origin, likewise.
    """

    batch: Batch
    energies: Floats
    forces: Floats
    stress: Floats | None = None
    dipoles: Floats | None = None

    @classmethod
    def of(
        cls,
        frames: Sequence[Frame],
        energies: Sequence[float] | Floats,
        forces: Sequence[Floats],
        stress: Sequence[Floats | None] = (),
        dipoles: Floats | None = None,
    ) -> "LabelSet":
        """Return the set of frames with an energy and forces (atoms, 3) each.

        stress: (6,) or None for each frame, or nothing at all.
        """
        return cls(
            batch=pack_frames(frames),
            energies=np.array(energies, dtype=np.float64),
            forces=np.concatenate([np.zeros((0, 3)), *forces]),
            stress=stack_stress(stress),
            dipoles=dipoles,
        )

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def has_forces(self) -> bool:
        """True if a label of the set has forces, or if the set is empty."""
        return not len(self) or bool(np.isfinite(self.forces).any())


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """The labels for a trainer: cheap ones (may be empty) and expensive ones."""

    cheap: LabelSet
    expensive: LabelSet


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """A generation's predictions on the validation set, frame after frame."""

    frames: tuple[FrameId, ...]
    energies: Floats
    forces: Floats
    surprise: Floats
    energy_mae: float  # eV, after removing the mean difference
    force_mae: float  # eV/Å, mean over components
    force_rmse: float  # eV/Å
    energy_absolute: float | None = None  # eV, nothing removed; None: not measured

    @property
    def error(self) -> float:
        """The error that decides: of forces in eV/Å, else (no forces) of energies, eV.

        The energy's is less its mean error. NaN where the model predicts no number.
        """
        return self.force_mae if self.has_forces else self.energy_mae

    @property
    def has_forces(self) -> bool:
        """False if the labels were energies alone, and not the predictions NaN."""
        return bool(np.isfinite(self.force_mae) or not np.isfinite(self.forces).all())
