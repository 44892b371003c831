"""A level of theory: every setting that changes the answer, addressed by its hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeAlias, get_args

Fidelity: TypeAlias = Literal["cheap", "expensive"]  # role of a level in a campaign
FIDELITIES: tuple[Fidelity, ...] = get_args(Fidelity)
LevelId: TypeAlias = str  # 16 hexadecimal digits

FORCES, NO_FORCES = "forces", "none"  # a setting, and what it says of energies alone
ENERGIES = ", energies"  # ends the title of a level without forces
CODE_FOLDER = "code_folder"  # setting: the folder of the file that names a user's code
_PLACES = ("path", CODE_FOLDER)


@dataclass(frozen=True, slots=True)
class Level:
    """A level of theory: a program and its settings.

    kind names the program ("pyscf", "ase", ...); `text` is the canonical JSON of its
    settings, program version included. Two levels are the same if their ids are.
    Settings named `path` and `code_folder` only say where files are, so they are not
    part of the id.
    """

    kind: str
    text: str
    id: LevelId = field(init=False)

    def __post_init__(self) -> None:
        payload = f"alloop level 1|{self.kind}|{_without_paths(self.text)}".encode()
        object.__setattr__(self, "id", hashlib.sha256(payload).hexdigest()[:16])

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as a dictionary of JSON values."""
        settings: dict[str, Any] = json.loads(self.text)
        return settings

    @property
    def has_forces(self) -> bool:
        """False for a level whose labels are energies alone."""
        return gives_forces(self.settings)

    @property
    def title(self) -> str:
        """A short name for people: `CCSD(T)/cc-pVDZ`, or the kind."""
        settings = self.settings
        if "title" in settings:
            return str(settings["title"])
        if "basis" in settings:
            return f"{settings['method']}/{settings['basis']}".upper()
        if "path" in settings:
            return f"{self.kind} {settings['path'].rpartition('/')[2]}"
        return str(settings.get("calculator", self.kind))


def make_level(kind: str, settings: Mapping[str, Any]) -> Level:
    """Return the level of these settings; the order of keys does not matter."""
    return Level(kind, json.dumps(settings, sort_keys=True, separators=(",", ":")))


def gives_forces(settings: Mapping[str, Any]) -> bool:
    """Return False for the settings of a level whose labels are energies alone."""
    return bool(settings.get(FORCES) != NO_FORCES)


def energy_level(level: Level) -> Level:
    """Return the level of the same energies whose labels have no forces."""
    if not level.has_forces:
        return level
    title = level.title + ENERGIES
    return make_level(level.kind, {**level.settings, FORCES: NO_FORCES, "title": title})


def installed_version(package: str) -> str:
    """Return a package's name and minor version, such as `pyscf 2.14`.

    Results may change with the minor version, not with a patch. A package that is not
    installed gives its name only.
    """
    try:
        return f"{package} {'.'.join(version(package).split('.')[:2])}"
    except PackageNotFoundError:
        return package


def _without_paths(text: str) -> str:
    settings: dict[str, Any] = json.loads(text)
    if not settings.keys() & {*_PLACES}:
        return text
    rest = {key: value for key, value in settings.items() if key not in _PLACES}
    return json.dumps(rest, sort_keys=True, separators=(",", ":"))
