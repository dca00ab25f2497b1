"""``kd report`` as a user runs it, and its page in a real browser.

The browser's tests are slow. Without a Chromium they are skipped, unless CHROMIUM names one, as ``.ci/run`` does.
"""

import json

import polars as pl
import pytest
from e2e.conftest import opened, refused, succeeded
from made_run import HOSTILE, write_run

from kdcli.report.page import NAME, write_report

browser = pytest.mark.slow


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of a run with two dev tables of pairs and three classes."""
    root = tmp_path_factory.mktemp("runs") / "made"
    write_run(root, labels=("no", "maybe", "yes"), pairs=True, tables=("dev_matched", "dev_mismatched"), seeds=2)
    return write_report(root).output.as_uri()


def shown(page, what):
    return [element for element in page.query_selector_all(what) if element.is_visible()]


def gaps(page):
    return [float(cell.get_attribute("data-value")) for cell in shown(page, "#disagreements [data-label=gap]")]


def test_run_all_writes_the_page_and_says_where(done):
    page = done.run_dir / NAME
    before = page.stat().st_mtime_ns
    assert f"report: {page}" in done.stage("run-all").out and page.stat().st_mtime_ns == before
    again = done.kd("report", done.run_dir, "--json").result
    assert again["output"] == str(page) and again["left_out"] == [] and page.stat().st_mtime_ns > before
    assert len(again["sections"]) == 9 and again["bytes"] == page.stat().st_size
    page.write_text("mine")
    refused(done.kd("report", done.run_dir), 4, "--force")
    spared = done.stage("run-all", "--only", "results", "--force")
    assert spared.code == 0 and page.read_text() == "mine" and "report:" not in spared.out
    assert done.kd("report", done.run_dir, "--force").code == 0 and page.read_text().startswith("<!doctype")


def test_the_predictions_are_the_scored_ones_and_eval_agrees_with_the_results(done):
    rows = pl.read_parquet(done.run_dir / "predictions.parquet").to_dicts()
    assert [row["table"] for row in rows] == ["dev"] * 20 + ["test"] * 16
    assert [row["sentence"] for row in rows[:20]] == [row[0] for row in done.rows("dev")]
    for model in json.loads((done.run_dir / "results.json").read_text())["rows"]:
        for table, scores in model["scores"].items():
            own = [row for row in rows if row["table"] == table]
            right = [(row[f"{model['model']}_1"] > row[f"{model['model']}_0"]) == (row["label"] == "1") for row in own]
            assert scores["accuracy"][0] == pytest.approx(sum(right) / len(own))
    results = json.loads((done.run_dir / "results.json").read_text("utf-8"))
    evaluated = succeeded(done.kd("eval", "--student", done.run_dir, "--against", done.run_dir / "baseline", "--json"))
    models = evaluated.result["tables"]["dev"]["models"]
    roles = {"student": "student", "teacher": "teacher", "baseline": "against"}
    for row in results["rows"]:
        found = models[roles[row["model"]]]["metrics"]
        assert {name: [found[name]["value"]] for name in row["scores"]["dev"]} == row["scores"]["dev"]
    pairs = [(one["first"], one["second"]) for one in evaluated.result["tables"]["dev"]["comparisons"]]
    assert pairs == [("student", "teacher"), ("student", "against")]
    assert 0 <= models["student"]["agreement"] <= 1 and models["teacher"]["agreement"] is None


@browser
def test_a_real_run_in_the_browser(tiny, chromium):
    tiny.write("dev", [(f"{HOSTILE} {place} good" if place % 2 else f"{place} bad", place % 2) for place in range(20)])
    assert tiny.stage("run-all").code == 0
    with opened(chromium, (tiny.run_dir / NAME).as_uri()) as page:
        assert page.title() == "run: a run of kd"
        for tab in page.query_selector_all("[role=tab]"):
            tab.click()
            assert shown(page, "main > section")[0].inner_text()


@browser
def test_tabs(chromium, written):
    with opened(chromium, written) as page:
        tabs = page.query_selector_all("[role=tab]")
        assert len(tabs) == 9 and len(shown(page, "[role=tabpanel]")) == 1
        page.click("#tab-confusion")
        assert [panel.get_attribute("id") for panel in shown(page, "[role=tabpanel]")] == ["confusion"]
        assert [tab.get_attribute("aria-selected") for tab in tabs].count("true") == 1
        for key, there in (("ArrowRight", "disagreements"), ("Home", "results"), ("ArrowLeft", "provenance")):
            page.keyboard.press(key)
            assert page.evaluate("document.activeElement.id") == f"tab-{there}"
            assert shown(page, "[role=tabpanel]")[0].get_attribute("id") == there
        page.goto(f"{written}#curves")  # the same page: no request
        assert shown(page, "[role=tabpanel]")[0].get_attribute("id") == "curves"


@browser
def test_sorting_and_pages(chromium, written):
    with opened(chromium, written) as page:
        page.click("#tab-disagreements")
        first = gaps(page)
        assert len(first) == 20 and page.inner_text("#disagreements [role=status]").startswith("1\u201320 of ")
        head = page.query_selector("#disagreements th:last-child")
        assert head.get_attribute("aria-sort") == "descending"
        head.query_selector("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        low = gaps(page)
        assert low == sorted(low) and max(low) < max(first)
        head.query_selector("button").click()
        high = gaps(page)
        assert high == sorted(high, reverse=True) and high[0] == max(first)
        page.click("#disagreements .pager button:last-child")
        assert page.inner_text("#disagreements [role=status]").startswith("21\u201340 of ")
        assert len(gaps(page)) == 20 and max(gaps(page)) <= min(high)
        page.click("#disagreements th:has-text('gold') button")
        answers = [cell.inner_text() for cell in shown(page, "#disagreements [data-label=gold]")]
        assert answers == sorted(answers) and page.query_selector_all("#disagreements [aria-sort]") != [head]


@browser
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_flows_over(chromium, written, width):
    with opened(chromium, written, viewport={"width": width, "height": 800}) as page:
        for tab in page.query_selector_all("[role=tab]"):
            tab.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, tab.inner_text()


@browser
def test_a_table_that_is_cut_has_a_shade(chromium, written):
    with opened(chromium, written, viewport={"width": 320, "height": 800}) as page:
        table = page.query_selector("#results .scroll")
        assert table.evaluate("box => box.scrollWidth > box.clientWidth")
        style = "box => getComputedStyle(box).backgroundAttachment"
        assert table.evaluate(style) == "local, local, scroll, scroll"
        page.emulate_media(media="print")
        assert table.evaluate("box => getComputedStyle(box).backgroundImage") == "none"


@browser
def test_light_and_dark(chromium, written):
    def paper(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    with opened(chromium, written, color_scheme="light") as page:
        light = paper(page)
        axis = "getComputedStyle(document.querySelector('#results svg text')).fill"
        ink = page.evaluate(axis)
        for name, same in (("light", True), ("dark", False), ("auto", True)):
            page.click("#theme")
            assert page.inner_text("#theme") == f"theme: {name}" and (paper(page) == light) is same
            assert (page.evaluate(axis) == ink) is same
    with opened(chromium, written, color_scheme="dark") as page:
        assert paper(page) != light


@browser
def test_on_paper_and_without_scripts_all_sections_show(chromium, written):
    with opened(chromium, written) as page:
        page.emulate_media(media="print")
        assert len(shown(page, "main > section > h2")) == 9 and not shown(page, "[role=tab], #theme, .pager button")
    with opened(chromium, written, java_script_enabled=False) as page:
        assert len(shown(page, "main > section > h2")) == 9 and not shown(page, "[role=tab], #theme")
