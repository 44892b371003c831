"""The parts of a campaign that a user brings from Python: their names and their checks.

A store keeps the import path of each, not the part itself: no code is ever read from a
store.

A part must be an instance with the methods of its role, which take the arguments that
the loop gives them; that is seen before a label is paid for. A selector must also pass
`alloop.testing.check_selector`, and a scorer `check_scorer`, on small molecules and a
Morse potential. A scorer that raises there may need the campaign's own potential, and
is left to the first training.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from alloop.core.errors import InputError
from alloop.core.roles import FittedScorer, Scorer, Selector, Trainer
from alloop.labels.own_function import error_place
from alloop.loop.policy import Policy
from alloop.loop.rules import Rules
from alloop.potentials.analytic import Morse
from alloop.selection import PerMolecule
from alloop.workers.settings import OwnPotential

if TYPE_CHECKING:
    from alloop.core.frame import Frame
    from alloop.core.records import Candidate


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


def _arguments(method: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a method's arguments after `self`."""
    return tuple(inspect.signature(method).parameters)[1:]


# The methods of each role and the arguments that they get; "" is the part itself.
_CALLS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "scorer": {x.__name__: _arguments(x) for x in (Scorer.fit, Scorer.restore)},
    "selector": {"select": _arguments(Selector.select)},
    "policy": {"": _arguments(Policy.__call__)},
    "potential": {"get_trainer": (), "restore": ("checkpoint",)},
    "trainer": {"train": _arguments(Trainer.train)},
}
_SAMPLES = 6  # frames of each molecule


def refuse_unfit_parts(parts: "OwnParts") -> None:
    """Raise InputError where a part does not do what its role asks for."""
    for role, part in (
        ("potential", parts.potential),
        ("trainer", getattr(parts.potential, "trainer", None)),
        ("scorer", parts.scorer),
        ("selector", parts.selector),
        ("policy", parts.policy),
    ):
        if part is not None and (problem := _interface_problem(role, part)):
            raise InputError(f"expected a {role} of your own, {problem}")
    if parts.selector is not None and (problem := _broken_law(_select, parts.selector)):
        raise _outlaw("selector", parts.selector, problem)
    if parts.scorer is not None and (problem := _broken_law(_score, parts.scorer)):
        raise _outlaw("scorer", parts.scorer, problem)


def _outlaw(role: str, part: Any, problem: str) -> InputError:
    return InputError(
        f"expected a {role} that passes `alloop.testing.check_{role}`, "
        f"{type(part).__name__} does not: {problem}"
    )


def _interface_problem(role: str, part: Any) -> str | None:
    """Return why a part cannot be called as its role is, or None."""
    calls = _CALLS[role]
    if isinstance(part, type) and "" not in calls:
        return f"got the class {part.__name__}; give an instance, {part.__name__}()"
    name = getattr(part, "__name__", type(part).__name__)
    for method, arguments in calls.items():
        call = f"({', '.join(arguments)})"
        run = getattr(part, method, None) if method else part
        if not callable(run):
            lack = f"has no method `{method}`" if method else "cannot be called"
            return f"{name} {lack}; it gets {call}"
        if not _takes(run, len(arguments)):
            called = f"{name}.{method}" if method else name
            return f"`{called}` does not take the arguments {call}"
    return None


def _takes(run: Callable[..., Any], many: int) -> bool:
    try:
        inspect.signature(run).bind(*range(many))
    except TypeError:
        return False
    except ValueError:  # a function of C, without a signature
        return True
    return True


def _broken_law(check: Callable[[Any], str | None], part: Any) -> str | None:
    """Return the law that a part breaks, or None; AssertionError is a check's."""
    try:
        return check(part)
    except AssertionError as error:
        return str(error)


def _select(selector: Any) -> str | None:
    from alloop.testing import check_selector

    try:
        check_selector(selector, _sample_candidates())
    except AssertionError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises
        return error_place(error)
    return None


def _score(scorer: Any) -> str | None:
    from alloop.core.batch import pack_frames
    from alloop.testing import check_scorer

    potential, frames = Morse(), _sample_frames()
    try:
        learned, heldout = pack_frames(frames[::2]), pack_frames(frames[1::2])
        fitted = scorer.fit(potential, learned, heldout, lambda *_, **__: potential)
        if not isinstance(fitted, FittedScorer):
            return (
                "`fit` must return an object with `score` and `arrays`, it returns "
                f"{'None' if fitted is None else type(fitted).__name__}"
            )
        check_scorer(scorer, potential, frames)
    except AssertionError:
        raise
    except Exception:  # noqa: BLE001 - it may need the campaign's own potential
        return None
    return None


def _sample_frames() -> list["Frame"]:
    """Return small molecules with their atoms displaced."""
    from ase.build import molecule

    from alloop.core.atoms import from_atoms
    from alloop.core.seeds import random_stream

    rng, frames = random_stream(0, "driver/sample frames"), []
    for name in ("H2O", "NH3", "CH4", "H2O2"):
        for _ in range(_SAMPLES):
            atoms = molecule(name)
            atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)  # Å
            frames.append(from_atoms(atoms))
    return frames


def _sample_candidates() -> list["Candidate"]:
    """Return candidates of the sample frames, with random surprise and descriptors."""
    from alloop.core.batch import pack_frames
    from alloop.core.records import Candidate
    from alloop.core.seeds import random_stream

    rng, candidates = random_stream(0, "driver/sample candidates"), []
    for step, frame in enumerate(_sample_frames()):
        predictions = Morse().predict(pack_frames([frame]))
        candidates.append(
            Candidate(
                frame=frame,
                molecule=step // _SAMPLES,
                walker=step % 2,
                step=step,
                surprise=float(rng.uniform(0.5, 2.0)),
                energy=float(predictions.energies[0]),
                forces=predictions.forces,
                descriptor=rng.normal(size=8),
            )
        )
    return candidates
