"""First screen of the report: what was reached, and what to do next."""

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from ase.visualize.plot import plot_atoms
from markupsafe import Markup
from matplotlib.axes import Axes

from alloop.core.atoms import hill_formula, to_atoms
from alloop.core.frame import Frame
from alloop.history.reader import History
from alloop.report.analysis.campaign_facts import generation_facts, level_title
from alloop.report.analysis.outcome import outcome_facts
from alloop.report.analysis.weaknesses import weaknesses
from alloop.report.sections.error_figures import label_curve
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
from alloop.report.text.formatting import and_list
from alloop.report.text.summary import stage_sentence, warning_sentences

_MOST_DRAWN = 400  # atoms of the picture, at most


def first_screen(history: History, controls: Mapping[str, History]) -> Markup:
    """Return stage, outcome, learning curve, molecule and what to do next."""
    facts = outcome_facts(history, controls)
    tiles = [(name, fact.head, fact.rest) for name, fact in facts.items()]
    return join_pieces(
        (
            paragraph(stage_sentence(history), "lead"),
            outcome_tiles(tiles),
            summary_block(_curve(history, controls), _molecule(history)),
            *(paragraph(text) for text in warning_sentences(history)),
            _next_steps(history, controls),
        )
    )


def _curve(history: History, controls: Mapping[str, History]) -> Markup:
    own = {"this campaign": generation_facts(history)}
    curves = own | {name: generation_facts(each) for name, each in controls.items()}
    if not any(x.force_mae is not None for x in own["this campaign"]):
        return missing_note("There is no learning curve: no generation was tested yet.")
    caption = "Error on the validation set by generation; lower is better."
    return figure_block(label_curve(curves), caption)


def _molecule(history: History) -> Markup:
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
    atoms = _turned(to_atoms(frame))

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


def _turned(atoms: Atoms) -> Atoms:
    """Return a molecule in its principal axes, the longest first; a cell unchanged."""
    if any(atoms.pbc):
        return atoms
    centred = atoms.positions - atoms.positions.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=True)
    axes[2] *= np.sign(np.linalg.det(axes))  # a rotation, no mirror image
    return Atoms(atoms.numbers, centred @ axes.T)


def _next_steps(history: History, controls: Mapping[str, History]) -> Markup:
    found = weaknesses(history, controls)
    if not found:
        return subtitle("What to do next") + paragraph(_nothing(history))
    intro = (
        "The costliest weaknesses, each with the lines of the campaign file that would "
        "mend it."
    )
    rows = [(x.text, x.cost_text, x.mend) for x in found]
    return subtitle("What to do next") + paragraph(intro) + advice_list(rows)


def _nothing(history: History) -> str:
    if not history.state.finished:
        return "Nothing yet: the campaign is not finished."
    return "Nothing stands out: no weakness that a change of the campaign file mends."


def notebook_page(history: History, controls: Mapping[str, History]) -> Markup:
    """Return the outcome as a table above the learning curve, for notebooks."""
    facts = outcome_facts(history, controls)
    texts = {"stage": stage_sentence(history)}
    texts |= {name: str(fact) for name, fact in facts.items()}
    table = table_page(str(history.attrs["name"]), texts)
    return notebook_block(table, _curve(history, controls))


def table_page(title: str, facts: Mapping[str, str]) -> Markup:
    """Return named texts as a table, for notebooks."""
    return table_html((title, ""), list(facts.items()), words=2)
