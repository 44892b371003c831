"""The parts of a campaign that a user brings from Python, and their names.

A store keeps the import path of each, not the part itself: no code is ever read from a
store.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from alloop.core.errors import InputError
from alloop.core.roles import Scorer, Selector
from alloop.loop.policy import Policy
from alloop.loop.rules import Rules
from alloop.selection import PerMolecule
from alloop.workers.settings import OwnPotential


@dataclass(frozen=True, slots=True)
class OwnParts:
    """A user's own parts, each None where alloop's own is used.

    potential: its trainer and the function that restores it; scorer, selector: in place
    of those of `flag:`, where random selection stays random; policy: decides in place
    of `alloop.loop.policy.decide`. Potential and scorer are sent to the workers, so
    they must be importable there.
    """

    potential: OwnPotential | None = None
    scorer: Scorer | None = None
    selector: Selector | None = None
    policy: Policy | None = None

    def rules(self, rules: Rules) -> Rules:
        """Return the rules with the user's own selector, if there is one."""
        if self.selector is None:
            return rules
        selector = self.selector
        return replace(rules, selector=selector, expensive_selector=selector)

    def names(self) -> dict[str, str]:
        """Return the import path (`module:name`) of each part that is given."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.potential is not None:
            parts["potential"] = self.potential.trainer
        if isinstance(self.selector, PerMolecule):
            parts["selector"] = self.selector.selector
        return {
            role: _import_path(part) for role, part in parts.items() if part is not None
        }


def refuse_other_parts(parts: OwnParts, recorded: Mapping[str, str]) -> None:
    """Raise InputError where the parts are not those that a campaign began with.

    recorded: their names, from its first event. Stores of older versions did not record
    an own potential.
    """
    names = parts.names()
    if "potential" not in recorded:
        names.pop("potential", None)
    for role in sorted({*names, *recorded}):
        if names.get(role) != recorded.get(role):
            advice = f"go on from Python, `Campaign.from_store(store, {role}=...)`"
            if role not in recorded:
                advice = "leave it out, or begin another store"
            raise InputError(
                f"the campaign began with {_described(role, recorded)}, and this run "
                f"has {_described(role, names)}: {advice}"
            )


def _described(role: str, names: Mapping[str, str]) -> str:
    return f"the {role} `{names[role]}`" if role in names else f"alloop's own {role}"


def _import_path(part: Any) -> str:
    named = part if hasattr(part, "__qualname__") else type(part)
    return f"{named.__module__}:{named.__qualname__}"
