"""The outcome of a campaign in four facts: error, limits, controls and cost.

The command line and the report tell these in the same words. Pure functions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from alloop.history.measured_costs import cpu_seconds_by_part
from alloop.history.reader import History
from alloop.report.analysis.campaign_facts import (
    best_generation,
    level_title,
    supplied_validation,
    validation_origin,
)
from alloop.report.analysis.comparison import (
    TITLES,
    ControlComparison,
    compare_controls,
)
from alloop.report.analysis.examination import last_examination, where_measured
from alloop.report.analysis.label_facts import BUDGETED, label_totals
from alloop.report.analysis.limit_coverage import (
    LimitCoverage,
    limit_coverages,
    limit_sentences,
    newest_limits,
)
from alloop.report.text.formatting import (
    and_list,
    duration_text,
    failure_counts,
    milli_text,
    plural,
)

_NOT_RUN = "`alloop run FILE --controls` runs two at the same label cost"


@dataclass(frozen=True, slots=True)
class OutcomeFact:
    """A fact on the outcome: its head, which a tile shows large, and the rest.

    joint: what stands between the two in a sentence.
    """

    head: str
    rest: str = ""
    joint: str = ": "

    def __str__(self) -> str:
        return f"{self.head}{self.joint}{self.rest}" if self.rest else self.head


@dataclass(frozen=True, slots=True)
class MeasuredError:
    """An error of one generation on one set of frames, in eV and eV/Å.

    name: `examination` or `validation set`; where: a description of its frames. energy:
    MAE after the mean difference is removed.
    """

    name: str
    where: str
    frames: int
    generation: int
    force_mae: float
    force_rmse: float | None
    energy: float | None


def measured_errors(history: History) -> tuple[MeasuredError, ...]:
    """Return the errors of the best generation, the leading one first.

    The examination leads, or a validation set that the user supplied.
    """
    found = [*_examined(history), *_validated(history)]
    return tuple(reversed(found) if supplied_validation(history) else found)


def _examined(history: History) -> Iterator[MeasuredError]:
    found = last_examination(history)
    if found is not None and found.errors is not None:
        yield MeasuredError(
            name="examination",
            where=where_measured(found, "the model"),
            frames=found.frames,
            generation=found.generation,
            force_mae=found.errors.force_mae,
            force_rmse=found.errors.force_rmse,
            energy=found.errors.energy_spread,
        )


def _validated(history: History) -> Iterator[MeasuredError]:
    found = best_generation(history)
    if found is not None and found.force_mae is not None:
        yield MeasuredError(
            name="validation set",
            where=f"{plural(found.test, 'frame')} {validation_origin(history)}",
            frames=found.test,
            generation=found.generation,
            force_mae=found.force_mae,
            force_rmse=found.force_rmse,
            energy=found.energy_mae,
        )


def outcome_facts(
    history: History, controls: Mapping[str, History]
) -> dict[str, OutcomeFact]:
    """Return error, limits, controls and cost by these names."""
    return {
        "error": _error_fact(history),
        "limits": _limit_fact(history),
        "controls": _control_fact(history, controls),
        "cost": _cost_fact(history),
    }


def _error_fact(history: History) -> OutcomeFact:
    """Return the leading error with its level and frames, and the other one."""
    found = measured_errors(history)
    if not found:
        return _no_error_fact(history)
    lead, *others = found
    text = (
        f"in forces (MAE) against {level_title(history, 'expensive')} on "
        f"{lead.where} (the {lead.name})"
    )
    rest = "; ".join([text, *(_other_text(x) for x in others)])
    return OutcomeFact(f"{milli_text(lead.force_mae)} meV/Å", rest, joint=" ")


def _other_text(found: MeasuredError) -> str:
    frames = plural(found.frames, "frame")
    return f"{milli_text(found.force_mae)} on the {frames} of the {found.name}"


def _no_error_fact(history: History) -> OutcomeFact:
    if not history.generations:
        return OutcomeFact("not known yet", "there is no generation")
    why = "there is neither an examination nor a validation set"
    if last_examination(history) is not None:
        why = "no frame of the examination has a label that counts"
    return OutcomeFact("not known", why)


def leading_coverage(history: History) -> LimitCoverage | None:
    """Return how often limits of errors held, on the examination if it is known."""
    found = limit_coverages(history)
    return found[-1] if found else None


def limits_kept(found: LimitCoverage) -> bool:
    """Return whether limits held as often as promised, up to two standard errors."""
    spread = sqrt(found.coverage * (1.0 - found.coverage) / found.n)
    return found.held / found.n >= found.coverage - 2.0 * spread


def _limit_fact(history: History) -> OutcomeFact:
    """Return whether the limits of force errors held, or why that is not known."""
    found = leading_coverage(history)
    if found is not None:
        return OutcomeFact(
            "kept" if limits_kept(found) else "not kept",
            f"{found.held} of {plural(found.n, found.group)} erred by less than the "
            f"limit promised ({found.coverage:.0%} were to)",
        )
    if newest_limits(history) is None:
        return OutcomeFact("none yet", next(limit_sentences(history), "").rstrip("."))
    examined = last_examination(history)
    why = "there was no examination"
    if examined is not None:
        why = (
            f"none of the {plural(examined.frames, 'frame')} of the examination has a "
            "limit, since all lie beyond those that the limits were made from"
        )
    return OutcomeFact("not measured", why)


def _control_fact(history: History, controls: Mapping[str, History]) -> OutcomeFact:
    """Return the comparisons with the controls on the frames that lead."""
    found = compare_controls(history, controls)
    if not found:
        return OutcomeFact("none were run", _NOT_RUN, joint="; ")
    lead = found[0].pairs[0]
    against = and_list(_control_text(each) for each in found)
    return OutcomeFact(
        _control_verdict(found),
        f"{milli_text(lead.ours)} meV/Å against {against}, at equal label cost on the "
        f"same {plural(lead.n, 'frame')}",
    )


def _control_text(found: ControlComparison) -> str:
    lead = found.pairs[0]
    doubt = "" if lead.certain else " (within the noise)"
    name = TITLES.get(found.name, found.name)
    return f"{milli_text(lead.theirs)} by {name}{doubt}"


def _control_verdict(found: Sequence[ControlComparison]) -> str:
    """Return the verdict on all controls, in two words or three."""
    certain = [x for x in found if x.certain]
    if any(x.gain < 0 for x in certain):
        return "worse than one"
    if len(certain) == len(found):
        return f"better than {'both' if len(found) > 1 else 'one'}"
    return "better than one" if certain else "no difference"


def _cost_fact(history: History) -> OutcomeFact:
    """Return the CPU time and how far the budget went."""
    spent = sum(cpu_seconds_by_part(history).values())
    if not spent:
        return OutcomeFact("no CPU time spent yet")
    rest = f"of CPU time; {budget_text(history)}"
    return OutcomeFact(duration_text(spent), rest, joint=" ")


def budget_text(history: History) -> str:
    """Return the used and the allowed labels of each level, with those that failed."""
    parts = []
    for each in label_totals(history):
        if each.kind in BUDGETED:
            most = "" if each.budget is None else f" of {each.budget}"
            lost = f" ({failure_counts(each.failures)})" if each.failed else ""
            parts.append(f"{each.used}{most} {each.kind} labels{lost}")
    return and_list(parts)
