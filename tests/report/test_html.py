"""The report: one file that needs nothing else, right numbers, any state."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from alloop.core.errors import InputError
from alloop.core.records import Failure, Unlabelled
from alloop.loop import events as e
from alloop.loop.history import CODEC, Entry
from alloop.loop.prices import by_part, utilisation
from alloop.loop.rules import Budget, Seeding
from alloop.loop.tables import tables
from alloop.loop.told import told
from alloop.report.html import render, write
from alloop.report.methods import about_test_set, snippet, weak
from alloop.report.sections import learning
from alloop.report.words import duration
from alloop.store.archive import Archive
from alloop.store.columns import write as write_columns

SECTIONS = ("learning", "parity", "surprise", "bias", "labels", "noise", "cpu")
SECTIONS += ("timeline", "weak", "methods", "store")
VOID = {"meta", "br", "path", "use", "image"}


class Page(HTMLParser):
    """Collects what the tests ask of a page, and checks that tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.text = [], [], [], []
        self.figures = 0
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href")]
        self.figures += tag == "figure"
        if tag not in VOID or tag == "path":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID or tag == "path":
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def page(finished, control):
    return render(finished, {"random": control, "standard": control})


@pytest.fixture(scope="module")
def read(page):
    return Page(page)


def test_the_page_needs_nothing_from_elsewhere(page, read):
    assert all(link.startswith("#") for link in read.links)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"<script|@import|url\((?!#)", page)


def test_ids_are_unique_and_links_lead_somewhere(read):
    assert len(read.ids) == len(set(read.ids))
    assert {link[1:] for link in read.links} <= set(read.ids)


def test_every_section_is_there_with_its_figure(page, read):
    assert [x for x in read.ids if x in SECTIONS] == list(SECTIONS)
    assert read.figures == 6
    assert page.count("<figcaption>") == 6
    assert page.count('role="img"') == 6


def test_the_numbers_of_the_campaign_are_on_the_page(finished, read):
    error = 1e3 * finished.state.errors[-1]
    assert f"Generation 3 errs by {error:.1f} meV/Å in forces" in read.words
    assert "The campaign beat random selection: 12.1 against 24.2" in read.words
    assert "n = 16, median" in read.words
    total = sum(by_part(finished).values())
    labels = by_part(finished)["expensive labels"]
    assert f"{duration(labels)} · {labels / total:.0%}" in read.words
    assert f"their tasks used {utilisation(finished):.0%} of that CPU" in read.words
    assert "On 4 random control frames" in read.words


def test_failures_stand_there_with_reason_level_and_advice(read):
    assert re.search(r"not converged\s+cheap\s+the SCF did not converge", read.words)


def test_frames_in_quarantine_are_listed_with_what_a_retry_would_do(
    finished, remade, read
):
    bad = [x for x in told(finished) if isinstance(x.record, Unlabelled)]
    for label in bad:
        assert f"{label.frame.id[:8]} H2O cheap not converged after 4 rungs" in (
            read.words
        )
    assert "--retry" not in read.words
    entries = list(finished.entries)
    turn = entries[bad[0].answered].turn
    lost = replace(bad[0].record, failure=Failure.TIMEOUT)
    turn = replace(turn, event=replace(turn.event, unlabelled=lost))
    entries[bad[0].answered] = replace(entries[bad[0].answered], turn=turn)
    words = Page(render(remade(entries))).words
    assert f"{lost.frame[:8]} H2O cheap timeout after 4 rungs yes" in words
    assert "`alloop resume STORE --retry` tries 1 label again." in words


def test_noise_rescues_doubts_and_prices_are_on_the_page(troubled):
    words = Page(render(troubled)).words
    assert "8 expensive labels did not converge at once: 8 by damping in" in words
    assert "6 expensive labels in doubt: externally unstable: a solution with" in words
    assert "T1 diagnostic external stability, hartree" in words
    assert "CCSD(T)/cc-pVDZ 3 0.3 (0.45) 0.714 (2.7)" in words
    assert "The expensive labels' own noise is 1/22 of the model's error" in words
    assert re.search(r"HF/STO-3G H2O 55 0.5 s 0.5 s 140 1 \(n = 35\)", words)
    assert "noise floor" in words
    assert "6 of HF/STO-3G and 3 of CCSD(T)/cc-pVDZ" in words


def test_the_methods_name_every_setting(read):
    for words in ("CCSD(T)/cc-pVDZ", "sto-3g", "Seed 7", "at 500 K", "pyscf 2.14"):
        assert words in read.words
    assert "12 frames from 4 trajectories of Langevin MD at the cheap" in read.words
    assert "every: 5" in read.words


def test_what_is_weak_is_said(read):
    assert "The test set has n = 12 frames" in read.words
    assert "Hits and misses rest on 4 control frames" in read.words
    assert "One seed (7)" in read.words


def test_a_lost_comparison_stands_beside_the_curve_and_among_what_is_weak(
    finished, control
):
    lost = "The campaign did not beat random selection"
    assert lost in learning(control, {"random": finished}).body
    assert lost in weak(control, {"random": finished}, ()).body


def test_figures_follow_the_page_in_ink_and_font(page):
    assert "#010203" not in page
    assert "#040506" not in page
    assert "currentColor" in page
    assert "DejaVu" not in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_the_same_history_gives_the_same_page(finished, control, page):
    assert render(finished, {"random": control, "standard": control}) == page


def test_names_are_escaped(finished, remade):
    young = remade(list(finished.entries[:1]))
    text = render(replace(young, attrs={**young.attrs, "name": "<b>&"}))
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;" in text


def test_the_lines_that_read_the_store_run(finished, tmp_path, capsys):
    path = tmp_path / "springs.zarr"
    attrs = {"name": "springs", "seed": 7, "config": finished.config}
    with Archive.create(path, attrs=attrs, codec=CODEC) as archive:
        for entry in finished.entries:
            archive.append(entry.turn)
        write_columns(archive, tables(finished), len(finished.entries) - 1)
    lines = snippet(replace(finished, path=path))
    assert len(lines.splitlines()) == 5
    exec(lines, {})
    assert capsys.readouterr().out.startswith("-1999.9")


@pytest.mark.parametrize("turns", [1, 44, 45])
def test_a_campaign_under_way_has_a_page(finished, remade, turns):
    read = Page(render(remade(list(finished.entries[:turns]))))
    assert [x for x in read.ids if x in SECTIONS] == list(SECTIONS)
    assert "springs is not finished" in read.words
    if turns < 45:
        assert "There is no generation yet" in read.words


def test_a_single_fidelity_has_a_page(synthetic, rules, opened):
    budget = Budget(cheap=0, expensive=16)
    single = replace(rules, budget=budget, seeding=replace(rules.seeding, cheap=0))
    history = synthetic(rules=single).history(opened)
    words = Page(render(history)).words
    assert "one fidelity only" in words
    assert (
        "cheap labels" not in words.split("Learning curve")[1].split("Methods")[0][:0]
    )
    assert history.state.finished in words


def test_a_campaign_without_test_set_has_a_page_that_says_so(synthetic, rules, opened):
    untested = replace(rules, seeding=Seeding(cheap=20, expensive=6, test=0))
    words = Page(render(synthetic(rules=untested).history(opened))).words
    assert "no error in this report is measured" in words
    assert "was not tested" in words


def test_a_campaign_whose_labels_all_failed_has_a_page(synthetic, opened):
    words = Page(render(synthetic(fail=lambda _: True).history(opened))).words
    assert "no expensive label succeeded" in words
    assert "100% of the labels failed" in words


def test_generations_without_scorer_or_threshold_have_a_page(finished, remade):
    def blind(event):
        if not isinstance(event, e.Trained) or event.evaluation is None:
            return event
        none = np.full(len(event.evaluation.frames), np.nan)
        test = replace(event.evaluation, surprise=none)
        return replace(event, evaluation=test, threshold=None)

    entries = [
        replace(x, turn=replace(x.turn, event=blind(x.turn.event)))
        for x in finished.entries[:45]
    ]
    words = Page(render(remade(entries))).words
    assert "No frame has both a surprise and a true error yet" in words
    assert "not calibrated" in words


def test_a_brought_test_set_is_described_as_such(finished, synthetic):
    frame = finished.state.test()[0]
    level = finished.opened.levels["expensive"]
    label = finished.ledger.labels[level, frame]
    given = e.Given(finished.ledger.frames[frame], 0, "expensive", label, test=True)
    opened = replace(finished.opened, given=(given,))
    said = about_test_set(synthetic().history(opened, turns=1))
    assert said.startswith("Test set: 1 frame brought by the user, frozen")


def test_a_store_without_a_campaign_is_refused_in_a_sentence(remade, tmp_path):
    with pytest.raises(InputError, match="holds no campaign yet"):
        write(remade([]), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_page_replaces_the_one_before_as_a_whole(finished, remade, tmp_path):
    out = tmp_path / "report.html"
    out.write_text("old")
    assert write(remade(list(finished.entries[:2])), out) == out
    assert out.read_text().startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [out]


def test_a_place_that_cannot_be_written_is_said_in_a_sentence(
    finished, remade, tmp_path
):
    young = remade(list(finished.entries[:1]))
    with pytest.raises(InputError, match="a file that can be written"):
        write(young, tmp_path / "nowhere" / "report.html")


def test_lost_tasks_and_hands_do_not_upset_the_page(finished, remade):
    lost = e.TaskLost("explore/1/0/0", 1, "the worker died")
    late = finished.entries[-1].time
    out = e.Excluded(finished.state.test()[0], None, "twin")
    extra = [Entry(999 + i, late, e.Turn(x)) for i, x in enumerate((lost, out))]
    assert Page(render(remade([*finished.entries, *extra]))).figures == 6
