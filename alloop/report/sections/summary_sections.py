"""First screen of the report: the outcome, and what to do next.

What to do next follows from the weaknesses of the outcome, each with the YAML that
mends it. A weakness has a cost, as a share of the error, of its certainty or of the
work, by which they are ordered. What costs nothing is a fact and stands elsewhere.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from ase import Atoms
from ase.visualize.plot import plot_atoms
from markupsafe import Markup
from matplotlib.axes import Axes

from alloop.core.atoms import hill_formula, to_atoms
from alloop.core.frame import Frame
from alloop.core.records import Failure
from alloop.history.measured_costs import worker_utilisation
from alloop.history.reader import History
from alloop.report.analysis.campaign_facts import (
    best_generation,
    config_number,
    config_value,
    error_unit,
    generation_facts,
    has_forces,
    level_title,
    supplied_validation,
)
from alloop.report.analysis.examination import (
    last_examination,
    newest_limits,
    promised_coverage,
)
from alloop.report.analysis.label_facts import (
    is_excluded,
    label_qualities,
    label_totals,
)
from alloop.report.analysis.outcome import (
    TITLES,
    compare_controls,
    leading_coverage,
    limits_kept,
    measured_errors,
    outcome_facts,
)
from alloop.report.sections.error_sections import learning_curve
from alloop.report.sections.markup import (
    advice_list,
    figure_block,
    join_pieces,
    missing_note,
    notebook_block,
    outcome_tiles,
    paragraph,
    subtitle,
    summary_block,
    table_html,
)
from alloop.report.sections.svg import draw_svg
from alloop.report.status import stage_sentence, warning_sentences
from alloop.report.text.formatting import and_list, failure_text, milli_text, plural
from alloop.scores.error_limits import needed_frames

MOST = 3  # weaknesses that are told
_LEAST = 0.05  # a smaller share is no weakness
_SURE = 0.1  # uncertainty of an error, as a share of it, that is good enough
_MOST_FRAMES = 500  # of an examination that is advised
_EXAMINATION = 30  # frames of an examination, where there was none
_BUSY = 0.5  # share of the workers' time, below which they idle

# Keys of `limits:` that mend a failure, with their defaults.
_LIMITS = {
    Failure.TIMEOUT: ("label_time", 3600.0),
    Failure.MEMORY: ("label_memory", 8000.0),
}
_FORCE = 30.0  # eV/Å: the default of the guard

# Failures of distorted frames, rarer where a guard stops walkers earlier.
_DISTORTED = {
    *(Failure.GEOMETRY, Failure.NOT_CONVERGED, Failure.CC_NOT_CONVERGED),
    *(Failure.GATE, Failure.UNSTABLE),
}


@dataclass(frozen=True, slots=True)
class Weakness:
    """A weakness of the outcome.

    cost: a share, 1 for all; cost_text: of what, in words. mend: lines of the campaign
    file.
    """

    text: str
    mend: str
    cost: float
    cost_text: str


def weaknesses(history: History, controls: Mapping[str, History]) -> list[Weakness]:
    """Return the costliest weaknesses of the campaign, at most three of them.

    Two that one change would mend count once.
    """
    candidates = [
        *_unknown_error(history),
        *_lost_comparisons(history, controls),
        *_falling_curve(history),
        *_stopped_walkers(history),
        *_uncertain_error(history),
        *_broken_limits(history),
        *_failed_labels(history),
        *_doubtful_labels(history),
        *_idle_workers(history),
    ]
    kinds: dict[str, Weakness] = {}
    for weakness in sorted(candidates, key=lambda x: -x.cost):
        if weakness.cost >= _LEAST:
            kinds.setdefault(weakness.mend, weakness)
    return list(kinds.values())[:MOST]


def _unknown_error(history: History) -> Iterator[Weakness]:
    if not history.generations or not history.state.finished:
        return
    if not measured_errors(history):
        yield Weakness(
            "No error is known: there is neither an examination nor a validation set.",
            f"validation: {{frames: 30, examination: {_EXAMINATION}}}",
            cost=1.0,
            cost_text="the whole outcome is uncertain",
        )
    elif last_examination(history) is None and not supplied_validation(history):
        yield Weakness(
            "There was no examination: the only error known is that on the "
            "validation set, which steered the campaign.",
            f"validation: {{examination: {_EXAMINATION}}}",
            cost=1.0,
            cost_text="the error in MD on the model is unknown",
        )


def _lost_comparisons(
    history: History, controls: Mapping[str, History]
) -> Iterator[Weakness]:
    for comparison in compare_controls(history, controls):
        lead = comparison.pairs[0]
        if lead.gain >= 0 or not lead.certain:
            continue
        share = 1.0 - lead.theirs / lead.ours
        mends = {
            "standard": "training: {kind: standard}\n"
            f"budget: {{cheap: 0, expensive: {comparison.theirs.expensive}}}\n"
            "seeds: {cheap: 0}",
            "random": "flag: {selection: random}",
        }
        title = TITLES.get(comparison.name, comparison.name).capitalize()
        yield Weakness(
            f"{title} did better for the same label cost: {milli_text(lead.theirs)} "
            f"against {milli_text(lead.ours)} meV/Å on {lead.where}.",
            mends.get(comparison.name, ""),
            cost=share,
            cost_text=f"{share:.0%} of the error",
        )


def _more_labels(history: History) -> str:
    """Return the line of YAML that doubles the expensive labels."""
    used = next(x.used for x in label_totals(history) if x.kind == "expensive")
    return f"budget: {{expensive: {max(2, 2 * used)}}}"


def _falling_curve(history: History) -> Iterator[Weakness]:
    """Yield a learning curve that still falls, by a power law through its points."""
    tested = [x for x in generation_facts(history) if x.error and x.expensive > 0]
    numbers = {x.expensive for x in tested}
    if len(numbers) < 3 or tested[-1].generation != history.state.generations.best:
        return
    slope = np.polyfit(
        np.log([x.expensive for x in tested]),
        np.log([x.error or 0.0 for x in tested]),
        1,
    )[0]
    share = float(1.0 - 2.0**slope)
    yield Weakness(
        "The learning curve still falls: by its slope, twice the expensive labels "
        f"would take {share:.0%} off the error on the validation set.",
        _more_labels(history),
        cost=share,
        cost_text=f"about {share:.0%} of the error",
    )


def _stopped_walkers(history: History) -> Iterator[Weakness]:
    examination = last_examination(history)
    if examination is None or not examination.stopped or not examination.walkers:
        return
    stopped = sum(examination.stopped.values())
    share = stopped / examination.walkers
    yield Weakness(
        f"Guards stopped {stopped} of {plural(examination.walkers, 'walker')} of the "
        "examination; the frames that they would have reached are in no error.",
        _more_labels(history),
        cost=share,
        cost_text=f"{share:.0%} of the MD is not examined",
    )


def _uncertain_error(history: History) -> Iterator[Weakness]:
    """Yield an examination whose error has a wide error bar (two standard errors)."""
    examination = last_examination(history)
    if examination is None or examination.errors is None or examination.frames < 2:
        return
    errors = np.array(list(examination.by_frame.values()))
    mean = float(errors.mean())
    if mean <= 0.0:
        return
    share = 2.0 * float(errors.std(ddof=1)) / sqrt(len(errors)) / mean
    if share <= _SURE:
        return
    enough = ceil(len(errors) * (share / _SURE) ** 2 / 10.0) * 10
    error = examination.errors.force_mae
    unit = error_unit(history)
    if not has_forces(history):
        error = examination.errors.energy_spread
    yield Weakness(
        f"The error of the examination is {milli_text(error)} ± "
        f"{milli_text(share * error)} {unit} (two standard errors), since it has "
        f"{plural(examination.frames, 'frame')}.",
        f"validation: {{examination: {min(enough, _MOST_FRAMES)}}}",
        cost=min(share, 1.0),
        cost_text=f"±{share:.0%} of the error",
    )


def _broken_limits(history: History) -> Iterator[Weakness]:
    limits = leading_coverage(history)
    if limits is not None and not limits_kept(limits):
        share = limits.coverage - limits.held / limits.n
        yield Weakness(
            f"Limits of errors were kept by {limits.held} of "
            f"{plural(limits.n, limits.group)}, fewer than the {limits.coverage:.0%} "
            "promised.",
            "validation: {frames: 100}\nflag: {control: 0.2}",
            cost=share,
            cost_text=f"{share:.0%} of the frames exceed their limit",
        )
    best = best_generation(history)
    if best is None or best.force_mae is None or newest_limits(history) is not None:
        return
    coverage = promised_coverage(history)
    needed = needed_frames(coverage)
    if best.test < needed:
        yield Weakness(
            f"No limit of errors is promised: {coverage:.0%} takes {needed} validation "
            f"frames, there are {best.test}.",
            f"validation: {{frames: {needed}}}",
            cost=coverage,
            cost_text="no frame has a limit of its error",
        )


def _failed_labels(history: History) -> Iterator[Weakness]:
    for totals in label_totals(history):
        if not totals.failed:
            continue
        failure, _ = max(totals.failures.items(), key=lambda x: (x[1], x[0].name))
        requests = totals.good + totals.failed
        share = totals.failed / requests
        yield Weakness(
            f"{totals.failed} of {requests} {totals.kind} labels failed, most by "
            f"{failure_text(failure)}: {failure}.",
            _mend_of_failure(history, failure),
            cost=share,
            cost_text=f"{share:.0%} of the {totals.kind} labels",
        )


def _mend_of_failure(history: History, failure: Failure) -> str:
    """Return the YAML that makes such failures rarer, or a comment without any."""
    if failure in _LIMITS:
        key, default = _LIMITS[failure]
        value = config_number(history, "limits", key)
        limit = 2.0 * (default if value is None else value)
        return f"limits: {{{key}: {limit:g}}}"
    if failure in _DISTORTED:
        value = config_number(history, "explore", "guards", "force")
        force = 0.5 * (_FORCE if value is None else value)
        return f"explore: {{guards: {{force: {force:g}}}}}"
    if failure.is_transient:
        return "# no key mends this; alloop resume STORE --retry tries again"
    return f"# no key mends this; {failure}"


def _doubtful_labels(history: History) -> Iterator[Weakness]:
    for quality in label_qualities(history):
        frame_ids = {
            frame
            for doubt, frames in quality.doubts.items()
            if not is_excluded(history, quality.fidelity, doubt)
            for frame in frames
        }
        if not frame_ids:
            continue
        share = len(frame_ids) / quality.good
        labels = plural(len(frame_ids), f"{quality.fidelity} label")
        yield Weakness(
            f"{labels} of {quality.good} are in doubt "
            f"({', '.join(map(str, quality.doubts))}) and are used all the same.",
            f"levels: {{{quality.fidelity}: {{doubts: exclude}}}}",
            cost=share,
            cost_text=f"{share:.0%} of the {quality.fidelity} labels",
        )


def _idle_workers(history: History) -> Iterator[Weakness]:
    busy = worker_utilisation(history)
    workers = config_value(history, "cluster", "workers")
    if busy is None or not 0.0 < busy < _BUSY:
        return
    if not isinstance(workers, int) or workers < 2:
        return
    yield Weakness(
        f"The {workers} workers computed {busy:.0%} of the time.",
        f"cluster: {{workers: {max(1, ceil(workers * busy))}}}",
        cost=1.0 - busy,
        cost_text=f"{1.0 - busy:.0%} of the workers' time",
    )


_MOST_DRAWN = 400  # atoms of the picture, at most


def first_screen(history: History, controls: Mapping[str, History]) -> Markup:
    """Return stage, outcome, learning curve, molecule and what to do next."""
    facts = outcome_facts(history, controls)
    tiles = [(name, fact.head, fact.rest) for name, fact in facts.items()]
    return join_pieces(
        (
            paragraph(stage_sentence(history), "lead"),
            outcome_tiles(tiles),
            summary_block(
                _summary_curve(history, controls), _molecule_picture(history)
            ),
            *(paragraph(text) for text in warning_sentences(history)),
            _next_steps(history, controls),
        )
    )


def _summary_curve(history: History, controls: Mapping[str, History]) -> Markup:
    return learning_curve(
        history,
        controls,
        "expensive",
        caption="Error on the validation set by generation; lower is better.",
        without="There is no learning curve: no generation was tested yet.",
    )


def _molecule_picture(history: History) -> Markup:
    """Return a picture of the molecule that the campaign began with, and its levels."""
    start = history.opened.start
    formulas = list(dict.fromkeys(hill_formula(frame) for frame in start))
    shown = next((x for x in start if len(x) <= _MOST_DRAWN), None)
    levels = and_list(
        f"{name}: {level_title(history, name)}" for name in history.opened.levels
    )
    others = len(formulas) - 1
    more = f", the first of {others + 1} molecules" if others else ""
    caption = f"{formulas[0] if formulas else 'No structure'}{more}. Levels: {levels}."
    if shown is None:
        return missing_note(caption)
    return figure_block(molecule_figure(shown), caption)


def molecule_figure(frame: Frame) -> Markup:
    """Draw a frame as spheres, seen along its shortest principal axis."""
    atoms = _principal_axes(to_atoms(frame))

    def paint(axes: list[Axes]) -> None:
        (ax,) = axes
        view = "" if any(frame.pbc) else "25x,15y"  # no atom straight behind another
        cell = 2 * any(frame.pbc)
        plot_atoms(atoms, ax, radii=0.9, rotation=view, show_unit_cell=cell)
        for sphere in ax.patches:
            sphere.set_linewidth(0.6)
        ax.set_axis_off()

    about = f"The molecule {hill_formula(frame)}"
    return draw_svg("molecule", about, 1.7, paint, width=2.6)


def _principal_axes(atoms: Atoms) -> Atoms:
    """Return a molecule in its principal axes, the longest first; a cell unchanged."""
    if any(atoms.pbc):
        return atoms
    centred = atoms.positions - atoms.positions.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=True)
    axes[2] *= np.sign(np.linalg.det(axes))  # a rotation, no mirror image
    return Atoms(atoms.numbers, centred @ axes.T)


def _next_steps(history: History, controls: Mapping[str, History]) -> Markup:
    steps = weaknesses(history, controls)
    if not steps:
        return subtitle("What to do next") + paragraph(_no_advice(history))
    intro = (
        "The costliest weaknesses, each with the lines of the campaign file that would "
        "mend it."
    )
    rows = [(x.text, x.cost_text, x.mend) for x in steps]
    return subtitle("What to do next") + paragraph(intro) + advice_list(rows)


def _no_advice(history: History) -> str:
    if not history.state.finished:
        return "Nothing yet: the campaign is not finished."
    return "Nothing stands out: no weakness that a change of the campaign file mends."


def notebook_page(history: History, controls: Mapping[str, History]) -> Markup:
    """Return the outcome as a table above the learning curve, for notebooks."""
    facts = outcome_facts(history, controls)
    texts = {"stage": stage_sentence(history)}
    texts |= {name: str(fact) for name, fact in facts.items()}
    table = table_page(str(history.attrs["name"]), texts)
    return notebook_block(table, _summary_curve(history, controls))


def table_page(title: str, facts: Mapping[str, str]) -> Markup:
    """Return named texts as a table, for notebooks."""
    return table_html((title, ""), list(facts.items()), words=2)
