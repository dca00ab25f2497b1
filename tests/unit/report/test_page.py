import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import polars as pl
import pytest
from made_run import HOSTILE, entry, write_lock, write_run
from made_student import SINGLE, make_student
from raising import raising

from kdcli.errors import DataError, UsageError
from kdcli.evaluate.bench import BenchReport, Latency, Measurement, keep
from kdcli.report.page import NAME, write_report

ALL = ["results", "curves", "transfer", "samples", "confusion", "disagreements", "errors", "profile", "provenance"]


class Seen(HTMLParser):
    VOID = ("meta", "use", "path", "rect", "br", "img")

    def __init__(self, path):
        super().__init__()
        self.elements = []
        self.open = []
        self.ids = []
        self.addresses = []
        self.text = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if attributes.get("id") else []
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "xlink:href")]
        assert not [name for name in attributes if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if self.open and self.open[-1] not in ("script", "style") else ""


def page(root):
    report = write_report(root)
    assert report.output == root / NAME and report.bytes == report.output.stat().st_size
    return Seen(report.output)


def test_a_whole_run_has_all_sections_and_nothing_is_loaded(tmp_path):
    root = write_run(tmp_path / "run")
    report = write_report(root)
    assert (report.sections, report.left_out) == (ALL, [])
    seen = Seen(report.output)
    assert seen.open == [] and len(seen.ids) == len(set(seen.ids)) and set(ALL) <= set(seen.ids)
    expected = ["85.0 accuracy on dev", "75\u00a0% of the gap", "10.0 times as fast", "10.0 times fewer parameters"]
    expected += ["101 (10.1\u00a0%)", "rejected: broken characters", "1.750", "2.13.0", "seed 7"]
    assert [part for part in expected if part not in seen.text] == []
    assert "The teacher's learning rate" in seen.text and "The generator's learning rate" not in seen.text
    assert all(re.fullmatch(r"#\w+", address) and address[1:] in seen.ids for address in seen.addresses)
    text = (root / NAME).read_text()
    assert "default-src 'none'" in text and "@import" not in text and not re.search(r"url\((?!#)", text)


def test_intervals_stand_beside_scores_and_shares(tmp_path):
    root = write_run(tmp_path / "run", tables=("dev", "test"))
    assert "84.0 to 86.0" not in page(root).text  # a run of an earlier version has none
    results = json.loads((root / "results.json").read_text())
    for row in results["rows"]:
        row["intervals"] = {table: {"accuracy": [0.84, 0.86]} for table in ("dev", "test")}
    results["gap_closed"]["test"]["accuracy"] = None
    results["gap_intervals"] = {"dev": {"accuracy": [0.61, 0.92]}, "test": {"accuracy": None}}
    (root / "results.json").write_text(json.dumps(results))
    text = page(root).text
    assert text.count("84.0 to 86.0") >= 6 and "61\u00a0% to 92\u00a0%" in text and "not defined" in text
    assert "75\u00a0% of the gap between the two is closed (95\u00a0% interval: 61 to 92)." in text
    del results["gap_closed"]["dev"]
    (root / "results.json").write_text(json.dumps(results))
    assert "These texts do not show a gap between the two" in page(root).text


def test_a_teacher_of_unknown_size(tmp_path):
    root = write_run(tmp_path / "run")
    results = json.loads((root / "results.json").read_text())
    results["rows"][0] |= {"parameters": 0, "parameters_without_embeddings": 0, "megabytes": 0.0}
    (root / "results.json").write_text(json.dumps(results))
    text = page(root).text
    assert "10.0 times as fast as the teacher." in text and "fewer parameters" not in text


def test_what_kd_bench_measured_is_a_section(tmp_path):
    latency = Latency(1.23, 4.56, 7.89, 100)
    rates = {1: 2000.0, 32: 6000.0}
    student = Measurement("<script>student", "numpy", "", "cpu", rates, latency, 10, 5, 1.5, 90, None, 0.1)
    teacher = replace(student, name="teacher", kind="teacher", per_second={1: 20.0, 32: 40.0})
    machine = {"processor": "some processor", "cores": "2"}
    measured = BenchReport("made", 60, 7.5, "dev", machine, 3.0, [student, teacher])
    root = write_run(tmp_path / "run")
    assert keep(measured, root / "student") is None and "speed" not in write_report(root).sections
    assert keep(measured, root) == root / "bench.json"
    seen = page(root)
    assert "speed" in seen.ids and "<script>student" in seen.text and seen.elements.count("script") == 1
    assert "6,000 150.0\u00d7" in seen.text and "4.56" in seen.text and "some processor, 2 cores" in seen.text
    (root / "bench.json").write_text('{"models": []}')
    with raising(DataError, "not a BenchReport", hint="`kd bench` makes it again"):
        write_report(root)


def test_every_text_is_text(tmp_path):
    seen = page(write_run(tmp_path / HOSTILE.partition("/")[0], labels=("no", HOSTILE)))
    assert seen.elements.count("script") == 1 and "img" not in seen.elements and seen.open == []
    assert seen.text.count(HOSTILE) > 60


def test_words_of_disagreements_are_coloured(tmp_path, monkeypatch):
    root = write_run(tmp_path / "run")
    assert "<mark" not in write_report(root).output.read_text()
    make_student(root / "student", SINGLE)
    predictions = pl.read_parquet(root / "predictions.parquet")
    predictions.with_columns(sentence=pl.lit("a <i>good</i> film")).write_parquet(root / "predictions.parquet")
    seen = page(root)
    rows = int(re.search(r"differ on (\d+) of 60", seen.text)[1])
    assert seen.elements.count("mark") >= 3 * rows > 0 and "i" not in seen.elements
    assert "words in blue" in seen.text and seen.text.count("a <i>good</i> film") >= rows
    monkeypatch.setattr("kdcli.report.page.MOST_MASKED", 20)
    assert 0 < page(root).elements.count("mark") < 20
    (root / "student" / "model.safetensors").unlink()
    assert "mark" not in page(root).elements


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("labels", [(), ("0", "1", "2")])
def test_all_kinds_of_tasks(tmp_path, labels, pairs):
    root = write_run(tmp_path / "run", labels=labels, pairs=pairs, tables=("dev_matched", "dev_mismatched"), seeds=3)
    seen = page(root)
    assert set(ALL) <= set(seen.ids) and seen.open == []
    assert "dev_mismatched" in seen.text and "neither" in seen.text if labels else "correlate with r = " in seen.text
    assert "86.0 ± 1.0" in seen.text and "those of the first seed" in seen.text


def test_a_half_done_run_says_what_is_left_out_and_one_that_has_only_begun(tmp_path):
    root = write_run(tmp_path / "run", half=True)
    report = write_report(root)
    assert report.sections == ["transfer", "samples", "profile", "provenance"]
    assert report.left_out == ["results", "curves", "confusion", "disagreements", "errors"]
    seen = Seen(report.output)
    assert "has not come to it: results, learning curves, predictions, disagreements, shared errors" in seen.text
    assert "The teacher has not labelled these texts yet." in seen.text
    (root / "kd.lock").unlink()
    (root / "transfer" / "transfer.parquet").unlink()
    assert write_report(root).sections == ["profile"]


def test_counts_of_a_corpus_and_a_long_text_that_is_cut(tmp_path):
    root = write_run(tmp_path / "run", half=True)
    (root / "profile.toml").write_text((root / "profile.toml").read_text().replace("lite+heavy", "corpus"))
    write_lock(root, {"corpus": entry("corpus"), "lite": entry("lite")})
    text = page(root).text
    assert "too long" in text and "99" in text and "texts fabricated" not in text
    texts = {"sentence": ["word " * 100_000, ""], "source": ["original"] * 2, "label": ["0", "1"]}
    pl.DataFrame(texts).write_parquet(root / "transfer" / "transfer.parquet")
    seen = page(root)
    assert f"{('word ' * 200)}… (500,000 characters)" in seen.text
    assert len((root / NAME).read_bytes()) < 100_000


def test_only_a_page_of_kds_own_is_written_again(tmp_path):
    root = write_run(tmp_path / "run")
    write_report(root)
    write_report(root)
    (root / NAME).write_text("mine")
    with raising(DataError, "exists already"):
        write_report(root)
    assert (root / NAME).read_text() == "mine"
    write_report(root, force=True)
    assert (root / NAME).read_text().startswith("<!doctype html>")
    (root / "student").mkdir()
    for output in (tmp_path, root / "metrics.jsonl", root / "student" / "report.html"):
        with pytest.raises(UsageError):
            write_report(root, output=output, force=True)
