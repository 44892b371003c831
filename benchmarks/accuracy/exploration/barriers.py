"""Barriers and frequencies of a campaign's model against those of its own level.

    python -m benchmarks.accuracy.exploration.barriers --store runs/hcn.zarr \\
        --ends campaigns/hcn.xyz campaigns/hnc.xyz --level ccsd(t)/cc-pvdz

Both ends and the saddle between them are stationary points of each surface for itself:
those of the model's path are refined by Newton's method on the model, and from there at
the level, with Hessians by differences of forces. The table has energies above the
first end (meV), the largest difference of a wavenumber (cm⁻¹) and of a bond (Å) at
each point. What the level costs is told: the model's figures need none of it.
"""

import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.io import read

from alloop import Campaign
from alloop.config.load import parse_level
from alloop.core.atoms import from_atoms
from alloop.core.batch import pack_frames
from alloop.core.frame import Frame
from alloop.core.roles import Potential
from alloop.core.units import Floats
from alloop.labels.direct import DirectLabeller
from alloop.md.reaction_path import PathSettings, find_path, stationary_point
from alloop.md.thermal_frames import NormalModes
from alloop.potentials.labeller_potential import LabellerPotential
from benchmarks.common import Row, make_parser, make_table, show, write_json

_POINTS = ("first end", "saddle", "last end")


@dataclass(frozen=True, slots=True, eq=False)
class StationaryPoint:
    """A stationary point; energy in eV, force: the largest left, eV/Å."""

    frame: Frame
    energy: float
    force: float
    modes: NormalModes

    @property
    def distances(self) -> Floats:
        """The distances of all pairs of atoms, Å."""
        first, second = np.triu_indices(len(self.frame), 1)
        arms = self.frame.positions[first] - self.frame.positions[second]
        out: Floats = np.linalg.norm(arms, axis=1)
        return out


def point_on(frame: Frame, potential: Potential) -> StationaryPoint:
    """Return the stationary point of a potential next to a frame."""
    frame, modes = stationary_point(frame, potential)
    predictions = potential.predict(pack_frames([frame]))
    return StationaryPoint(
        frame,
        float(predictions.energies[0]),
        float(np.abs(predictions.forces).max()),
        modes,
    )


def compared(model: StationaryPoint, level: StationaryPoint) -> Row:
    """Return how a point differs on two surfaces, and the level's wavenumbers."""
    ours, theirs = model.modes.wavenumbers, level.modes.wavenumbers
    count = min(len(ours), len(theirs))  # almost linear: a rotation more or less
    ours, theirs = ours[-count:], theirs[-count:]
    return {
        "force left": max(model.force, level.force),
        "wavenumbers at the level": str(np.round(theirs).astype(int).tolist()),
        "largest difference, cm⁻¹": float(np.abs(ours - theirs).max()),
        "of a distance, Å": float(np.abs(model.distances - level.distances).max()),
    }


def make_figures(options: Namespace) -> list[Row]:
    """Return a row for each stationary point."""
    model = Campaign.from_store(options.store).model().potential
    level = LabellerPotential(DirectLabeller(parse_level(options.level)))
    first, last = (from_atoms(read(path)) for path in options.ends)
    settings = PathSettings(images=options.images, match=options.match)
    path = find_path(first, last, model, settings)
    frames = [path.batch.frame(place) for place in (0, path.top, len(path.batch) - 1)]
    points = [point_on(frame, model) for frame in frames]
    began = time.process_time()
    truths = [point_on(point.frame, level) for point in points]
    show(f"{time.process_time() - began:.0f} CPU s at {options.level}")
    return [
        {
            "point": name,
            "model, meV": 1e3 * (point.energy - points[0].energy),
            "level, meV": 1e3 * (truth.energy - truths[0].energy),
            **compared(point, truth),
        }
        for name, point, truth in zip(_POINTS, points, truths, strict=True)
    ]


def main() -> None:
    """Show the table."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--store", type=Path, required=True, help="the store of the campaign")
    add("--ends", type=Path, nargs=2, required=True, help="files of the two ends")
    add("--level", required=True, help="the campaign's expensive level")
    add("--images", type=int, default=7, help="structures between the ends")
    add("--match", action="store_true", help="number like atoms alike")
    options = parser.parse_args()
    rows = make_figures(options)
    show(make_table(f"{options.store.name} against {options.level}", rows))
    write_json(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
