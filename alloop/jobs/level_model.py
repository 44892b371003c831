"""A level of theory in the place of a trained model: MD and diagnoses with it.

That is how any ASE calculator is used as a potential, and PySCF, xTB or a universal
potential as it comes. A level cannot be trained, and no file holds it.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from alloop.config.load import parse_level
from alloop.config.molecules import element_symbols, start_problems
from alloop.config.yaml_text import parse_yaml, read_yaml_text
from alloop.core.batch import Batch
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.levels import Level
from alloop.core.records import Predictions
from alloop.core.roles import Labeller
from alloop.generation import Generation
from alloop.labels.child.labeller import IsolatedLabeller
from alloop.labels.composite import SUM
from alloop.labels.levels import check_level, level_mapping
from alloop.labels.universal import universal_potential
from alloop.models.checkpoint import Checkpoint, Storable
from alloop.potentials.labeller_potential import LabelFailed, LabellerPotential
from alloop.scores.soap import SoapDescriptors


class LevelPotential:
    """A level as a potential; each frame is labelled in turn.

    labeller: by default one with a child process, within its limits of time and memory.
    elements: atomic numbers of frames whose atoms are described by SOAP; without any
    there are no descriptors.
    """

    def __init__(
        self,
        level: Level,
        elements: Sequence[int] = (),
        labeller: Labeller | None = None,
    ) -> None:
        self.level = level
        self._labels = LabellerPotential(labeller or IsolatedLabeller(level))
        self._soap = SoapDescriptors(tuple(sorted(elements))) if elements else None

    def predict(self, batch: Batch, *, descriptors: bool = False) -> Predictions:
        """Return energies (eV), forces (eV/Å) and stress of the level, where it has it.

        Raises InputError where a frame gets no label.
        """
        try:
            said = self._labels.predict(batch)
        except LabelFailed as error:
            raise InputError(
                f"{self.level.title} gives no energy and forces of a frame: {error}"
            ) from error
        if not descriptors or self._soap is None:
            return said
        return replace(said, descriptors=self._soap.describe(batch))

    def checkpoint(self) -> Checkpoint:
        """Return what identifies the level; nothing restores a potential from it."""
        return Checkpoint("level", {"kind": self.level.kind, "id": self.level.id}, {})


def level_model(
    level: Level, frames: Sequence[Frame], elements: Sequence[int] = ()
) -> Generation:
    """Return a level as a model without scorer and domain.

    A universal potential describes atoms itself and treats frames together. For others
    SOAP does, where DScribe is installed; elements: atomic numbers that it is for.
    Raises InputError where the level cannot treat one of the frames.
    """
    problems = check_level(level, element_symbols(frames))
    for frame in frames:
        problems = problems or start_problems(frame, [level])
    if problems:
        raise InputError(f"{level.title}: {'; '.join(problems)}")
    if level.kind == "universal":
        potential: Storable = universal_potential(level.settings)
    else:
        described = importlib.util.find_spec("dscribe") is not None
        potential = LevelPotential(level, elements if described else ())
    return Generation(potential, None, None, facts={})


def named_level(text: str) -> Level | None:
    """Return the level that a text names, None where it is a path.

    Levels are short names such as `gfn2-xtb`, mappings in braces, and YAML files of one
    level. `hf/sto-3g` is a path where there is such a file, or a folder `hf`. Raises
    InputError for a mapping or a YAML file that is wrong.
    """
    word, place = text.strip(), Path(text)
    if word.startswith("{"):
        return parse_level(word)
    if place.is_file() and place.suffix in (".yaml", ".yml"):
        tree = parse_yaml(read_yaml_text(place), text)
        return parse_level(text) if {"kind", "level", SUM} & set(tree) else None
    if place.exists() or ("/" in word and place.parent.exists()):
        return None
    try:
        level_mapping(word)
    except InputError:
        return None
    return parse_level(word)
