"""Several campaigns on one page: curves and costs equal the journal's sums."""

import re
from dataclasses import replace

import pytest

from alloop.cli.app import run_command
from alloop.core.errors import InputError
from alloop.history.measured_costs import cpu_seconds_by_part
from alloop.history.reader import CODEC
from alloop.report.analysis.campaign_facts import generation_facts
from alloop.report.analysis.examination import last_examination
from alloop.report.sections.side_by_side import (
    ComparedCampaign,
    campaign_names,
    comparison_page,
    costed_generations,
    differing_settings,
)
from alloop.store.archive import Archive


@pytest.fixture(scope="module")
def hotter(control):
    """A campaign of the same name in another store, with one setting changed."""
    config = control.config.replace("temperature: 450.0", "temperature: 900.0")
    return replace(control, attrs={**control.attrs, "config": config})


@pytest.fixture(scope="module")
def page(finished, hotter):
    return comparison_page(
        [ComparedCampaign(finished, {"random": hotter}), ComparedCampaign(hotter, {})]
    )


def test_all_that_was_spent_is_in_the_last_point_of_a_curve(finished):
    stands, costed = generation_facts(finished), costed_generations(finished)
    assert [x.force_mae for x in costed] == [x.force_mae for x in stands]
    assert [x.label_cost for x in costed] == [x.label_cost for x in stands]
    parts = cpu_seconds_by_part(finished)
    labels = ("cheap labels", "expensive labels", "validation set")
    others = sum(spent for part, spent in parts.items() if part not in labels)
    assert costed[-1].all_cost == pytest.approx(costed[-1].label_cost + others)
    assert sorted(x.all_cost for x in costed) == [x.all_cost for x in costed]


def test_only_settings_that_differ_are_listed(finished, hotter):
    assert differing_settings([finished, hotter]) == {
        "explore.temperature": ["450.0", "900.0"],
    }


def test_the_page_has_three_curves_the_ends_and_the_settings(page, finished):
    assert page.count('role="img"') == 3
    for what in ("expensive labels learned from", "of all labels", "of everything"):
        assert what in page
    assert f"{1e3 * finished.state.generations.errors[-1]:.1f}" in page
    assert re.search(r"explore\.temperature</td><td[^>]*>450\.0</td><td[^>]*>900", page)
    assert "random selection" in page
    assert "dotted" in page


def test_the_final_examination_stands_beside_the_errors(finished, examined):
    page = comparison_page(
        [
            ComparedCampaign(examined, {"random": finished}),
            ComparedCampaign(finished, {}),
        ]
    )
    found = last_examination(examined)
    cells = re.findall(r'data-label="examination[^"]*">([^<]*)<', page)
    error = f"{1e3 * found.errors.force_mae:.3g}"
    shown = f"{error} (generation {found.generation}, {found.frames} frames)"
    assert cells == [shown, "–", "–"]


def test_the_page_may_run_no_script_and_opens_no_connection(page):
    assert "default-src &#39;none&#39;; script-src &#39;none&#39;" in page
    assert "<script" not in page
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_names_of_stores_are_escaped_and_told_apart(finished, hotter):
    evil = replace(hotter, attrs={**hotter.attrs, "name": "<script>alert(1)</script>"})
    page = comparison_page([ComparedCampaign(finished, {}), ComparedCampaign(evil, {})])
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert campaign_names([finished, evil]) == ["springs", evil.attrs["name"]]
    assert len(set(campaign_names([finished, replace(hotter, path="b.zarr")]))) == 2


def test_campaigns_that_cannot_be_compared_say_so(finished, synthetic, rules, opened):
    seeding = replace(rules.seeding, validation=8)
    other = synthetic(rules=replace(rules, seeding=seeding)).history(opened)
    page = comparison_page(
        [ComparedCampaign(finished, {}), ComparedCampaign(other, {})]
    )
    sizes = f"(n = 12 and {len(other.state.labels.validation_frames())})"
    assert f"tested on different frames {sizes}" in page


def test_one_campaign_is_not_compared(finished):
    with pytest.raises(InputError, match="two stores or more"):
        comparison_page([ComparedCampaign(finished, {})])


def test_the_command_compares_stores_on_disk(finished, tmp_path, capsys):
    paths = []
    for name in ("one", "two"):
        paths.append(str(tmp_path / f"{name}.zarr"))
        attrs = {**finished.attrs, "name": name}
        with Archive.create(tmp_path / f"{name}.zarr", attrs=attrs, codec=CODEC) as it:
            for entry in finished.entries[:45]:
                it.append(entry.turn)
    assert run_command(["report", *paths]) == 2
    assert "--compare" in capsys.readouterr().err
    assert run_command(["report", "--compare", *paths]) == 0
    page = (tmp_path / "comparison.html").read_text()
    assert "<title>one · two: campaigns compared</title>" in page
    assert "All settings are the same" in page
