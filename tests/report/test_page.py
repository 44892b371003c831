"""The report: one file that needs nothing else, right numbers, any state."""

import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from ase.units import fs
from markupsafe import Markup
from scipy.spatial.distance import pdist

from alloop.core.atoms import to_atoms
from alloop.core.errors import InputError
from alloop.core.frame import Frame
from alloop.core.records import Failure, Unlabelled, Walker
from alloop.history.label_entries import label_entries
from alloop.history.measured_costs import cpu_seconds_by_part, worker_utilisation
from alloop.history.reader import CODEC, JournalEntry
from alloop.loop import events as e
from alloop.loop.rules import Budget, SeedRules
from alloop.md.integrate import maxwell_boltzmann
from alloop.report.analysis.explorations import _walker_temperatures, read_explorations
from alloop.report.sections import page as page_module
from alloop.report.sections.descriptor_map import (
    MAP_GROUPS,
    descriptor_map,
    descriptor_section,
    principal_plane,
)
from alloop.report.sections.error_sections import error_groups, learning_section
from alloop.report.sections.markup import (
    PointGroup,
    PointPlace,
    colour_swatch,
    page_resource,
    svg_element,
)
from alloop.report.sections.methods_sections import (
    about_test_sets,
    citations,
    reading_snippet,
)
from alloop.report.sections.page import render_report, write_report
from alloop.report.sections.summary_sections import first_screen
from alloop.report.sections.surprise_sections import GROUPS
from alloop.report.text.formatting import duration_text
from alloop.report.text.frame_history import describe_frame
from alloop.store.archive import Archive
from alloop.store.columns import fill_columns
from tests.history.all_tables import tables

SECTIONS = ("examination", "learning", "cpu", "errors", "parity", "surprise", "map")
SECTIONS += ("walkers", "bias", "labels", "noise", "timeline", "methods", "store")
VOID = {"meta", "br", "path", "use", "image"}
VIEWER = page_resource("3Dmol/3Dmol-min.js")


class Page(HTMLParser):
    """Collects what the tests ask of a page, and checks that tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.text = [], [], [], []
        self.figures, self.leads, self.scripts = 0, set(), []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href")]
        self.figures += tag == "figure"
        self.leads |= {found["data-f"]} if "data-f" in found else set()
        self.scripts += [""] if tag == "script" else []
        if tag not in VOID or tag == "path":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID or tag == "path":
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data
        elif self.open[-1:] != ["style"]:
            self.text.append(data)

    @property
    def frames(self):
        return json.loads(self.scripts[0])

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def page(finished, control):
    return render_report(finished, {"random": control, "standard": control})


@pytest.fixture(scope="module")
def read(page):
    return Page(page)


@pytest.mark.usefixtures("figures")
def test_the_page_needs_nothing_from_elsewhere(page, read):
    assert all(link.startswith("#") for link in read.links)
    assert page.count(VIEWER) == 1
    own = page.replace(VIEWER, "")
    addresses = set(re.findall(r"https?://[^\s\"'<]+", own))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|<script src", own)


def test_a_browser_runs_the_two_scripts_of_the_page_and_fetches_nothing(page, read):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in unescape(policy).split(";"))
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    _, *scripts = read.scripts
    assert len(scripts) == 2
    assert rules["script-src"].split() == [
        f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    ]


def test_the_viewer_is_the_one_of_its_package_with_its_licence():
    assert sha256(VIEWER.encode()).hexdigest() in page_resource("3Dmol/README.md")
    assert "Redistribution and use in source and binary" in page_resource(
        "3Dmol/LICENSE"
    )
    assert "</script" not in VIEWER.lower()


def test_points_lead_to_frames_that_the_page_carries(finished, read):
    assert len(read.leads) >= 40
    assert read.leads <= read.frames.keys()
    for frame in finished.state.labels.validation_frames():
        card = read.frames[frame[:12]]
        assert card["w"] == describe_frame(finished, frame)
        known = finished.label_index.frames[frame]
        assert card["s"] == ["O", "H", "H"]
        places = np.array(card["x"]).reshape(-1, 3) / 1000.0
        assert np.abs(places - known.positions).max() <= 5.01e-4
    chosen = next(x for x in label_entries(finished) if x.purpose == "bias").frame.id
    assert read.frames[chosen[:12]]["w"] == describe_frame(finished, chosen)


@pytest.mark.usefixtures("figures")
def test_text_of_a_store_breaks_out_of_nothing(finished, remade):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u2028'\""
    bad = next(x for x in label_entries(finished) if isinstance(x.record, Unlabelled))
    entries = list(finished.entries)
    turn = entries[bad.answered].turn
    said = replace(bad.record, message=evil)
    turn = replace(turn, event=replace(turn.event, unlabelled=said))
    entries[bad.answered] = replace(entries[bad.answered], turn=turn)
    broken = remade(entries)
    page = render_report(replace(broken, attrs={**broken.attrs, "name": evil}))
    assert "<img" not in page
    assert page.count("<script") == page.count("</script>") == 3
    read = Page(page)
    assert any(evil in line for line in read.frames[bad.frame.id[:12]]["w"])
    assert evil.split("\u2028")[0] in read.words


def test_control_characters_of_a_store_are_written_out(finished, remade, tmp_path):
    young = remade(list(finished.entries[:1]))
    named = replace(young, attrs={**young.attrs, "name": "\x1b[31m\u202eevil\ud800"})
    page = write_report(named, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "\\x1b[31m\\u202eevil\\ud800" in page
    assert not re.search("[\x1b\u202e]", page)


def test_the_page_stays_small(page):
    assert len(page.encode()) < len(VIEWER) + 400_000


def test_more_frames_than_fit_are_left_out_and_the_page_says_so(finished, monkeypatch):
    monkeypatch.setattr(page_module, "MOST_FRAMES", 20)
    read = Page(render_report(finished))
    assert len(read.frames) == 20
    assert re.search(r"carries 20 of the \d+ frames", read.words)


def test_errors_by_molecule_and_element_add_up(finished):
    found, test = error_groups(finished), finished.trained()[-1].evaluation
    (molecule,) = found.molecules
    assert (molecule.name, molecule.count) == ("H2O", 12)
    assert molecule.mae == pytest.approx(test.force_mae)
    assert molecule.rmse == pytest.approx(test.force_rmse)
    assert molecule.energy_mae == pytest.approx(test.energy_mae)
    assert {x.name: x.count for x in found.elements} == {"O": 12, "H": 24}
    mean = sum(x.count * x.mae for x in found.elements) / 36
    assert mean == pytest.approx(test.force_mae)
    level = finished.opened.levels["expensive"]
    at = test.frames.index(molecule.worst)
    label = finished.label_index.labels[level, molecule.worst].forces
    apart = np.linalg.norm(test.forces[3 * at : 3 * at + 3] - label, axis=1)
    assert apart.max() == pytest.approx(molecule.largest)


def test_walkers_have_their_temperature_and_the_guard_that_stopped_them(finished):
    brought = read_explorations(finished)
    stopped = [x for x in brought.moments if x.stopped]
    assert {(x.walker, x.stopped) for x in stopped} == {(1, "force")}
    assert {x.round for x in stopped} == {1, 2}
    rng = np.random.default_rng(5)
    frame = Frame(np.array([8, 1, 1]), rng.standard_normal((3, 3)))
    velocities = maxwell_boltzmann(frame, 300.0, rng)
    walker = Walker(0, 0, frame, velocities, 10)
    atoms = to_atoms(frame)
    atoms.set_velocities(velocities / fs)
    event = e.Explored(1, 0, 0, (walker,), (), (), 1)
    (kelvin,) = _walker_temperatures(event)
    assert kelvin == pytest.approx(atoms.get_temperature() * 9 / 6, rel=1e-6)


def test_the_plane_of_a_map_is_that_of_the_largest_variance():
    rng = np.random.default_rng(2)
    flat = rng.standard_normal((200, 2)) * [5.0, 2.0]
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0][:2]
    xy, explained = principal_plane(flat @ turn + 7.0)
    assert sum(explained) == pytest.approx(1.0)
    assert explained[0] > explained[1]
    assert pdist(xy) == pytest.approx(pdist(flat))


def test_the_map_shows_what_the_journal_holds_where_no_model_opens(finished):
    found = descriptor_map(finished)
    assert not found.complete
    assert {"control", "flagged"} <= set(found.groups)
    assert "drawn are the frames that it proposed" in descriptor_section(found).body


def test_ids_are_unique_and_links_lead_somewhere(read):
    assert len(read.ids) == len(set(read.ids))
    assert {link[1:] for link in read.links} <= set(read.ids)


def test_the_page_has_every_shape_of_its_points(read):
    groups = [*GROUPS.values(), *MAP_GROUPS.values()]
    assert {f"shape-{shape}" for _, shape, _ in groups} <= set(read.ids)


def test_every_section_is_there_with_its_figure(page, read):
    assert [x for x in read.ids if x in SECTIONS] == list(SECTIONS)
    assert read.figures == 11
    assert page.count("<figcaption>") == 11
    assert page.count('role="img"') == 15


def test_the_numbers_of_the_campaign_are_on_the_page(finished, read):
    error = 1e3 * finished.state.generations.errors[-1]
    assert f"error {error:.1f} meV/Å in forces (MAE) against CCSD(T)" in read.words
    assert "on 12 frames of MD at the cheap level (HF/STO-3G) at 500 K" in read.words
    assert f"errs by {error:.1f} meV/Å in forces (MAE; RMSE" in read.words
    assert "The campaign beat random selection: 12.1 against 24.2" in read.words
    assert "12.1 meV/Å against 24.2 by random selection" in read.words
    spent = sum(cpu_seconds_by_part(finished).values())
    assert f"cost {duration_text(spent)} of CPU time; 60 of 60 cheap" in read.words
    assert "n = 16, median" in read.words
    total = sum(cpu_seconds_by_part(finished).values())
    labels = cpu_seconds_by_part(finished)["expensive labels"]
    assert f"{duration_text(labels)} · {labels / total:.0%}" in read.words
    assert (
        f"their tasks used {worker_utilisation(finished):.0%} of that CPU" in read.words
    )
    assert "On 4 random control frames" in read.words


def test_no_backtick_is_on_the_page_or_in_its_cards_tips(page, troubled):
    """They are marked as code, in text, in tables and in the cards of frames."""
    for text in (page, render_report(troubled)):
        assert "`" not in " ".join(Page(text).text)
    assert "<code>alloop run FILE --controls</code>" in render_report(troubled)
    assert '.split("`")' in page_resource("page.js")


def test_every_point_has_its_values_under_the_names_of_its_axes(page):
    points = re.findall(r'<use href="#shape[^>]*>', page)
    assert len(points) > 100
    assert all(re.search(r'data-v="[^|"]+\|[^|"]+"', point) for point in points)
    axes = re.findall(r'data-axes="([^"]*)"', page)
    assert "expensive labels learned from|force MAE, meV/Å" in axes
    assert all(all(name for name in pair.split("|")) for pair in axes)


def test_figures_with_points_are_stops_of_the_tab_key(page):
    drawings = re.findall(r"<svg role=.*?</svg>", page, re.DOTALL)
    with_points = ['class="marks"' in x for x in drawings]
    assert ['tabindex="0"' in x for x in drawings] == with_points
    assert any(with_points)


def test_the_first_screen_is_outcome_curve_molecule_and_what_to_do(page):
    order = ('class="tiles"', "Learning curve: force error on the validation set")
    order += ("The molecule H2O", "What to do next", "<section")
    places = [page.index(x) for x in order]
    assert places == sorted(places)
    assert page.count('<dd class="head">') == 4
    assert page.count('<span class="cost">') <= 3
    assert "html:not(.whole) .details" in page  # print: the first screen alone


def test_failures_stand_there_with_reason_level_and_advice(read):
    assert re.search(r"not converged\s+cheap\s+the SCF did not converge", read.words)


def test_frames_in_quarantine_are_listed_with_what_a_retry_would_do(
    finished, remade, read
):
    bad = [x for x in label_entries(finished) if isinstance(x.record, Unlabelled)]
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
    words = Page(render_report(remade(entries))).words
    assert f"{lost.frame[:8]} H2O cheap timeout after 4 rungs yes" in words
    assert "alloop resume STORE --retry tries 1 label again." in words


def test_noise_rescues_doubts_and_prices_are_on_the_page(troubled):
    words = Page(render_report(troubled)).words
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


def test_the_papers_of_what_was_used_are_cited(read, finished):
    for words in ("PySCF: Sun et al.", "STO-3G: Hehre", "CCSD(T): Raghavachari"):
        assert words in read.words
    assert "CITATION.cff" in read.words
    assert not {x.split(":")[0] for x in citations(finished)} & {"Libxc", "SOAP", "D4"}


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ("potential: {kind: painn}", {"PaiNN", "Muon"}),
        ("potential: {kind: chgnet}", {"CHGNet"}),
        (
            "potential: {kind: visnet}\ntraining: {kind: asteroid, optimiser: adamw}",
            {"ViSNet", "PyTorch Geometric", "ASTEROID"},
        ),
        ("flag: {kind: q-residual, descriptors: soap}", {"Q-residual", "SOAP"}),
        ("flag: {selection: {kind: clusters}}", {"LCMD"}),
        ("explore: {pressure: 1.0}", {"constant pressure", "shapes of cells"}),
        ("refine: {kind: test-time}", {"test-time training and connectivity"}),
        ("refine: null\nexplore: {pressure: null, protocol: periodic}", set()),
    ],
)
def test_a_method_is_cited_where_it_was_used(finished, config, names):
    levels = {
        "cheap": {"kind": "xtb", "settings": {"method": "gfn2-xtb"}},
        "expensive": {
            "kind": "pyscf",
            "settings": {"method": "pbe0", "basis": "def2-svp", "dispersion": "d3bj"},
        },
    }
    given = {"config": config, "attrs": {"levels": levels}, "state": finished.state}
    history = SimpleNamespace(**given)
    found = {paper.split(":")[0] for paper in citations(history)}
    usual = {"calibration of thresholds and limits", "Langevin MD", "GFN2-xTB", "PBE0"}
    usual |= {"PySCF", "Libxc", "def2 basis sets", "D3", "Becke-Johnson damping"}
    assert found == names | usual


def test_what_is_weak_is_said(read):
    assert "n = 4 is too few for a rate" in read.words
    assert "There was no examination: the only error known is that on" in read.words
    assert "5 of 60 cheap labels failed, most by not converged" in read.words
    assert "One seed (7)" in read.words


def test_a_lost_comparison_stands_beside_the_curve_and_among_what_is_weak(
    finished, control
):
    lost = "The campaign did not beat random selection"
    assert lost in learning_section(control, {"random": finished}).body
    said = first_screen(control, {"random": finished})
    assert "Random selection did better for the same label cost" in said
    assert "flag: {selection: random}" in said


def test_figures_follow_the_page_in_ink_and_font(page):
    assert "#010203" not in page
    assert "#040506" not in page
    assert "currentColor" in page
    assert "DejaVu" not in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


@pytest.mark.usefixtures("figures")
def test_the_same_history_gives_the_same_page(finished, control, page):
    assert render_report(finished, {"random": control, "standard": control}) == page


def test_names_are_escaped(finished, remade):
    young = remade(list(finished.entries[:1]))
    text = render_report(replace(young, attrs={**young.attrs, "name": "<b>&"}))
    assert "<b>&" not in text
    assert "<b>" not in text.replace(VIEWER, "")
    assert "&lt;b&gt;&amp;" in text


def test_text_in_drawings_and_swatches_is_escaped():
    points = [PointGroup("dot", "#000", [PointPlace("1.0", "2.0", "1|2", '"><b>')])]
    drawn = svg_element("<b>", "0 0 1 1", Markup("<g></g>"), points)
    assert "<b>" not in drawn + colour_swatch("red", "<b>")
    assert "<g></g>" in drawn


def test_the_lines_that_read_the_store_run(finished, tmp_path, capsys):
    path = tmp_path / "springs.zarr"
    attrs = {"name": "springs", "seed": 7, "config": finished.config}
    with Archive.create(path, attrs=attrs, codec=CODEC) as archive:
        for entry in finished.entries:
            archive.append(entry.turn)
        last = len(finished.entries) - 1
        fill_columns(archive, lambda _: tables(finished), last)
    lines = reading_snippet(replace(finished, path=path))
    assert len(lines.splitlines()) == 5
    exec(lines, {})
    assert capsys.readouterr().out.startswith("-1999.9")


@pytest.mark.parametrize("turns", [1, 44, 45])
@pytest.mark.usefixtures("figures")
def test_a_campaign_under_way_has_a_page(finished, remade, turns):
    read = Page(render_report(remade(list(finished.entries[:turns]))))
    assert [x for x in read.ids if x in SECTIONS] == list(SECTIONS)
    assert "springs is not finished" in read.words
    if turns < 45:
        assert "There is no generation yet" in read.words


@pytest.mark.usefixtures("figures")
def test_a_single_fidelity_has_a_page(synthetic, rules, opened):
    budget = Budget(cheap=0, expensive=16)
    single = replace(rules, budget=budget, seeding=replace(rules.seeding, cheap=0))
    history = synthetic(rules=single).history(opened)
    words = Page(render_report(history)).words
    assert "one fidelity only" in words
    assert (
        "cheap labels" not in words.split("Learning curve")[1].split("Methods")[0][:0]
    )
    assert history.state.finished in words


@pytest.mark.usefixtures("figures")
def test_a_campaign_without_test_set_has_a_page_that_says_so(synthetic, rules, opened):
    untested = replace(rules, seeding=SeedRules(cheap=20, expensive=6, validation=0))
    words = Page(render_report(synthetic(rules=untested).history(opened))).words
    assert "No error is known" in words
    assert "was not tested" in words


@pytest.mark.usefixtures("figures")
def test_a_campaign_whose_labels_all_failed_has_a_page(synthetic, opened):
    words = Page(render_report(synthetic(fail=lambda _: True).history(opened))).words
    assert "no expensive label succeeded" in words
    assert re.search(r"(\d+) of \1 cheap labels failed, most by not", words)


@pytest.mark.usefixtures("figures")
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
    words = Page(render_report(remade(entries))).words
    assert "No frame has both a surprise and a true error of its forces yet" in words
    assert "not calibrated" in words


def test_a_supplied_test_set_is_described_as_such(finished, synthetic):
    frame = finished.state.labels.validation_frames()[0]
    level = finished.opened.levels["expensive"]
    label = finished.label_index.labels[level, frame]
    given = e.Given(
        finished.label_index.frames[frame], 0, "expensive", label, test=True
    )
    opened = replace(finished.opened, given=(given,))
    said = about_test_sets(synthetic().history(opened, turns=1))
    assert said.startswith("Validation set: 1 frame supplied by the user")


def test_a_store_without_a_campaign_is_refused_in_a_sentence(remade, tmp_path):
    with pytest.raises(InputError, match="holds no campaign yet"):
        write_report(remade([]), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_page_replaces_the_one_before_as_a_whole(finished, remade, tmp_path):
    out = tmp_path / "report.html"
    out.write_text("old")
    assert write_report(remade(list(finished.entries[:2])), out) == out
    assert out.read_text().startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [out]


def test_a_place_that_cannot_be_written_is_said_in_a_sentence(
    finished, remade, tmp_path
):
    young = remade(list(finished.entries[:1]))
    with pytest.raises(InputError, match="a file that can be written"):
        write_report(young, tmp_path / "nowhere" / "report.html")


@pytest.mark.usefixtures("figures")
def test_lost_tasks_and_hands_do_not_upset_the_page(finished, remade):
    lost = e.TaskLost("explore/1/0/0", 1, "the worker died")
    late = finished.entries[-1].time
    out = e.Excluded(finished.state.labels.validation_frames()[0], None, "twin")
    extra = [JournalEntry(999 + i, late, e.Turn(x)) for i, x in enumerate((lost, out))]
    assert Page(render_report(remade([*finished.entries, *extra]))).figures == 11
