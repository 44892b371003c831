"""Active-learning MD: two-fidelity data sets and force fields with a known error.

MD proposes frames; they are scored, selected, labelled, stored and trained on.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alloop.campaign import Campaign as Campaign
    from alloop.core.atoms import from_atoms as from_atoms
    from alloop.core.batch import pack_frames as pack_frames
    from alloop.core.errors import AlloopError as AlloopError
    from alloop.core.frame import Frame as Frame
    from alloop.core.records import Walker as Walker
    from alloop.generation import load as load
    from alloop.jobs.diagnose_job import diagnose as diagnose
    from alloop.jobs.train_job import train as train
    from alloop.jobs.training_set import file_frames as file_frames
    from alloop.labels.calculators import calculator as calculator
    from alloop.labels.levels import level_from_name as level  # noqa: F401
    from alloop.labels.result import Refused as Refused
    from alloop.labels.result import Result as Result
    from alloop.loop.policy import decide as decide
    from alloop.md.barostat import Barostat as Barostat
    from alloop.md.dynamics import DynamicsSettings as DynamicsSettings
    from alloop.md.dynamics import run_dynamics as run_dynamics
    from alloop.md.integrate import maxwell_boltzmann as maxwell_boltzmann
    from alloop.potentials.analytic import Morse as Morse
    from alloop.selection import PerMolecule as PerMolecule
    from alloop.workers.settings import OwnPotential as OwnPotential

__version__ = "0.1.0"
_HOMES = {
    "AlloopError": "alloop.core.errors",
    "Barostat": "alloop.md.barostat",
    "Campaign": "alloop.campaign",
    "DynamicsSettings": "alloop.md.dynamics",
    "Frame": "alloop.core.frame",
    "Morse": "alloop.potentials.analytic",
    "OwnPotential": "alloop.workers.settings",
    "PerMolecule": "alloop.selection",
    "Refused": "alloop.labels.result",
    "Result": "alloop.labels.result",
    "Walker": "alloop.core.records",
    "calculator": "alloop.labels.calculators",
    "decide": "alloop.loop.policy",
    "diagnose": "alloop.jobs.diagnose_job",
    "file_frames": "alloop.jobs.training_set",
    "from_atoms": "alloop.core.atoms",
    "level": "alloop.labels.levels:level_from_name",
    "load": "alloop.generation",
    "maxwell_boltzmann": "alloop.md.integrate",
    "pack_frames": "alloop.core.batch",
    "run_dynamics": "alloop.md.dynamics",
    "train": "alloop.jobs.train_job",
}
__all__ = [*_HOMES, "__version__"]


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `import alloop` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'alloop' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute or name)
