"""What a campaign reached, in four facts: error, limits, controls and cost.

The command line and the report tell these in the same words. Pure functions.
"""

from collections.abc import Iterator, Mapping
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
from alloop.report.analysis.comparison import compare_controls
from alloop.report.analysis.examination import last_examination, where_measured
from alloop.report.analysis.label_facts import BUDGETED, label_totals
from alloop.report.analysis.limit_coverage import (
    LimitCoverage,
    limit_coverages,
    limit_sentences,
)
from alloop.report.text.formatting import (
    and_list,
    duration_text,
    failure_counts,
    milli_text,
    plural,
)

NOT_RUN = "none were run; `alloop run FILE --controls` runs two at the same label cost"


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
            where=where_measured(found),
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


def outcome_facts(history: History, controls: Mapping[str, History]) -> dict[str, str]:
    """Return error, limits, controls and cost, a sentence each, by these names."""
    return {
        "error": error_fact(history),
        "limits": limit_fact(history),
        "controls": control_fact(history, controls),
        "cost": cost_fact(history),
    }


def error_fact(history: History) -> str:
    """Return the leading error with its level and frames, and the other one."""
    found = measured_errors(history)
    if not found:
        return "not known yet" if not history.generations else _no_error_text(history)
    lead, *others = found
    text = (
        f"{milli_text(lead.force_mae)} meV/Å in forces (MAE) against "
        f"{level_title(history, 'expensive')} on {lead.where} (the {lead.name})"
    )
    return "; ".join([text, *(_other_text(x) for x in others)])


def _other_text(found: MeasuredError) -> str:
    frames = plural(found.frames, "frame")
    return f"{milli_text(found.force_mae)} on the {frames} of the {found.name}"


def _no_error_text(history: History) -> str:
    found = last_examination(history)
    if found is not None:
        return "not known: no frame of the examination has a label that counts"
    return "not known: there is neither an examination nor a validation set"


def leading_coverage(history: History) -> LimitCoverage | None:
    """Return how often limits of errors held, on the examination if it is known."""
    found = limit_coverages(history)
    return found[-1] if found else None


def limits_kept(found: LimitCoverage) -> bool:
    """Return whether limits held as often as promised, up to two standard errors."""
    spread = sqrt(found.coverage * (1.0 - found.coverage) / found.n)
    return found.held / found.n >= found.coverage - 2.0 * spread


def limit_fact(history: History) -> str:
    """Return whether the limits of force errors held, or why there are none."""
    found = leading_coverage(history)
    if found is None:
        return next(limit_sentences(history), "none yet")
    verdict = "kept" if limits_kept(found) else "not kept"
    return (
        f"{verdict}: {found.held} of {plural(found.n, found.group)} erred by less than "
        f"the limit promised ({found.coverage:.0%} were to)"
    )


def control_fact(history: History, controls: Mapping[str, History]) -> str:
    """Return the comparisons with the controls, in sentences."""
    found = [each.sentence for each in compare_controls(history, controls)]
    return " ".join(found) or NOT_RUN


def cost_fact(history: History) -> str:
    """Return the CPU time and how far the budget went."""
    spent = sum(cpu_seconds_by_part(history).values())
    if not spent:
        return "no CPU time spent yet"
    return f"{duration_text(spent)} of CPU time; {budget_text(history)}"


def budget_text(history: History) -> str:
    """Return the used and the allowed labels of each level, with those that failed."""
    parts = []
    for each in label_totals(history):
        if each.kind in BUDGETED:
            most = "" if each.budget is None else f" of {each.budget}"
            lost = f" ({failure_counts(each.failures)})" if each.failed else ""
            parts.append(f"{each.used}{most} {each.kind} labels{lost}")
    return and_list(parts)
