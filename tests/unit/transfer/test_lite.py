import dataclasses
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from kdcli.api import QuietReporter, Task
from kdcli.config.schema import LiteSettings
from kdcli.errors import DataError, KdError, MissingError, PluginError
from kdcli.parts.parts import Shard
from kdcli.tables.read import read_table
from kdcli.transfer import lite, making
from kdcli.transfer.gathering import report_of
from kdcli.transfer.lite import fabricate

SINGLE = Task("films", "single", ("0", "1"))
PAIR = Task("pairs", "pair", ("0", "1"))
STEM = ["the film is good", "a  long , dull plot", "nobody laughs", "it 's not bad at all", "", "why ?", "the end ."]
TEXTS = [f"{text} number {i}" if text else "" for i, text in enumerate(STEM * 6)]
HELD_OUT = ["the film", "dull plot", " a  long", "unseen words"]


def table(**columns) -> pa.Table:
    rows = len(next(iter(columns.values())))
    labels = columns.pop("label", [str(i % 2) for i in range(rows)])
    return pa.table({name: pa.array(c, pa.string()) for name, c in columns.items()} | {"label": labels})


TRAIN, DEV = table(sentence=TEXTS), table(sentence=HELD_OUT)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Cut 42 rows into 6 parts of tagging and 18 of making."""
    monkeypatch.setattr(lite, "ROWS", 8)
    monkeypatch.setattr(making, "ROWS", 8)
    monkeypatch.setattr(making, "TEXTS", 30)


def run(output: Path, **changes):
    settings = {"n_iter": 10, "workers": 1, "p_mask": 0.2, "ngram": "1:3"} | changes.pop("settings", {})
    arguments = {"train": TRAIN, "held_out": [DEV], "task": SINGLE, "seed": 1} | changes
    return fabricate(settings=LiteSettings(**settings), output=output, **arguments)


def rows_of(path: Path) -> list[dict[str, str]]:
    return read_table(path).table().to_pylist()


def test_originals_come_first_as_they_are_then_new_texts_alone(tmp_path):
    train = table(sentence=[*TEXTS, TEXTS[0], "the film", " odd  space\t"], label=["1"] * 45)
    result = run(tmp_path / "set.parquet", train=train)
    rows = rows_of(tmp_path / "set.parquet")
    assert list(rows[0]) == ["sentence", "source", "label"]
    originals, made = rows[:45], rows[45:]
    # Repeated texts, and those that dev holds too, stay: they are the training set.
    assert originals == [
        {"sentence": text, "source": "original", "label": "1"} for text in train["sentence"].to_pylist()
    ]
    assert {(row["source"], row["label"]) for row in made} == {("lite", None)}
    normal = [" ".join(row["sentence"].split()) for row in made]
    assert len(set(normal)) == len(normal)
    assert not set(normal) & {" ".join(text.split()) for text in [*TEXTS, *HELD_OUT]}
    assert all(row["sentence"] == row["sentence"].strip() for row in made)
    assert (result.originals, result.fabricated, result.rows) == (45, len(made), len(rows))


def test_counts_add_up_and_are_stored_beside_the_table(tmp_path):
    result = run(tmp_path / "set.tsv")
    assert result.fabricated + result.duplicates + result.held_out_copies == 420
    assert result.held_out_copies > 0
    assert result.drop_rate == pytest.approx((result.duplicates + result.held_out_copies) / 420)
    assert set(result.counts) == {"words", "words_masked", "words_replaced", "texts_cut"}
    kept = Counter(word for row in rows_of(tmp_path / "set.tsv")[42:] for word in row["sentence"].split())
    assert result.counts["words_masked"] >= kept["[MASK]"] > 0
    assert json.loads(report_of(tmp_path / "set.tsv").read_text("utf-8")) == dataclasses.asdict(result)
    made = {row["sentence"] for row in rows_of(tmp_path / "set.tsv")[42:]}
    assert result.examples
    assert all(example["after"] in made and example["before"] in TEXTS for example in result.examples)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set.tsv", "set.tsv.report.json"]


def test_held_out_copies_are_counted_by_an_independent_run(tmp_path):
    run(tmp_path / "free.tsv", held_out=[])
    result = run(tmp_path / "set.tsv", held_out=[DEV, DEV])
    free, held = ([row["sentence"] for row in rows_of(tmp_path / name)] for name in ("free.tsv", "set.tsv"))
    normal = {" ".join(text.split()) for text in HELD_OUT}
    assert held == [text for text in free if text in TEXTS or " ".join(text.split()) not in normal]
    assert result.held_out_copies == len(free) - len(held)


def test_pairs(tmp_path):
    train = table(sentence1=TEXTS, sentence2=TEXTS[::-1])
    dev = table(sentence1=["the film"], sentence2=["dull plot"])
    result = run(tmp_path / "set.tsv", task=PAIR, train=train, held_out=[dev])
    rows = rows_of(tmp_path / "set.tsv")
    assert list(rows[0]) == ["sentence1", "sentence2", "source", "label"]
    pairs = [(row["sentence1"], row["sentence2"]) for row in rows]
    assert pairs[:42] == list(zip(TEXTS, TEXTS[::-1], strict=True))
    assert len(set(pairs[42:])) == result.fabricated


def test_processes_and_shards_change_nothing(tmp_path):
    run(tmp_path / "one.tsv")
    whole = (tmp_path / "one.tsv").read_bytes()
    run(tmp_path / "two.tsv", settings={"workers": 2})
    assert (tmp_path / "two.tsv").read_bytes() == whole
    assert run(tmp_path / "shards.tsv", shard=Shard(0, 2)) is None
    assert not (tmp_path / "shards.tsv").exists()
    result = run(tmp_path / "shards.tsv", shard=Shard(1, 2))
    assert (tmp_path / "shards.tsv").read_bytes() == whole
    assert result.rows == whole.count(b"\n") - 1
    assert report_of(tmp_path / "shards.tsv").read_bytes() == report_of(tmp_path / "one.tsv").read_bytes()


@pytest.mark.parametrize("where", ["TagPart", "MakePart"])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch, where):
    run(tmp_path / "one.tsv")
    done: list[int] = []
    kind = getattr(lite, where)
    call = kind.__call__

    def stop_in_the_middle(self, part, path):
        if part == 3 and len(done) == 3:
            path.write_bytes(b"half a part")
            raise KeyboardInterrupt
        done.append(part)
        call(self, part, path)

    monkeypatch.setattr(kind, "__call__", stop_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "set.tsv")
    assert done == [0, 1, 2]
    assert not (tmp_path / "set.tsv").exists()
    done.append(-1)
    run(tmp_path / "set.tsv")
    assert done[4:] == list(range(3, 3 + len(done) - 4))  # nothing was made twice
    assert (tmp_path / "set.tsv").read_bytes() == (tmp_path / "one.tsv").read_bytes()
    assert report_of(tmp_path / "set.tsv").read_bytes() == report_of(tmp_path / "one.tsv").read_bytes()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"settings": {"p_mask": 0.3}}, "p_mask changed (0.2 -> 0.3)"),
        ({"settings": {"words": "whitespace"}}, "words changed (treebank -> whitespace)"),
        ({"seed": 2}, "seed changed (1 -> 2)"),
        ({"train": table(sentence=TEXTS[::-1])}, "training texts changed ("),
        ({"settings": {"workers": 2}}, ""),
        ({"held_out": []}, ""),
    ],
)
def test_parts_of_other_settings_are_not_used(tmp_path, monkeypatch, changes, why):
    run(tmp_path / "set.tsv", shard=Shard(0, 2))
    said: list[str] = []
    reporter = QuietReporter()
    monkeypatch.setattr(reporter, "warn", said.append)
    result = run(tmp_path / "set.tsv", shard=Shard(1, 2), reporter=reporter, **changes)
    assert [message[: len(why)] for message in said] == ([why] if why else [])
    assert (result is None) == bool(why)  # the parts of the first shard are gone, or they were used


def test_seed_decides(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6), ("d", 2**80)):
        run(tmp_path / f"{name}.tsv", seed=seed)
    made = {name: (tmp_path / f"{name}.tsv").read_bytes() for name in "abcd"}
    assert made["a"] == made["b"]
    assert len(set(made.values())) == 3


def test_texts_of_no_and_of_very_many_words(tmp_path):
    train = table(sentence=["", "word , " * 50_000, "short text"])
    result = run(tmp_path / "set.tsv", train=train, held_out=[], settings={"n_iter": 20})
    rows = rows_of(tmp_path / "set.tsv")
    assert [row["sentence"] for row in rows[:3]] == train["sentence"].to_pylist()
    assert max(len(row["sentence"].split()) for row in rows[3:]) == 100_000
    assert result.counts["words"] > 1_000_000
    assert "" not in [row["sentence"] for row in rows[3:]]


def test_nulls_are_empty_texts(tmp_path):
    run(tmp_path / "set.jsonl", train=table(sentence=["a film", None], label=[None, "1"]))
    assert [tuple(row.values()) for row in rows_of(tmp_path / "set.jsonl")[:2]] == [
        ("a film", "original", None),
        ("", "original", "1"),
    ]


def test_no_iterations_give_the_originals(tmp_path):
    result = run(tmp_path / "set.tsv", settings={"n_iter": 0})
    assert [row["sentence"] for row in rows_of(tmp_path / "set.tsv")] == TEXTS
    assert (result.fabricated, result.drop_rate, result.examples) == (0, 0.0, [])


def test_rules_that_do_nothing_make_nothing_new(tmp_path):
    result = run(tmp_path / "set.tsv", settings={"p_mask": 0, "p_pos": 0, "p_ngram": 0})
    assert (result.fabricated, result.duplicates, result.held_out_copies, result.drop_rate) == (0, 420, 0, 1)


@pytest.mark.parametrize(
    ("name", "text", "what"), [("set.tsv", "a\tb", "tab or a line end"), ("set.txt", "a", "one column")]
)
def test_what_the_table_cannot_hold_is_an_error_before_the_work_and_the_old_table_stays(
    tmp_path, monkeypatch, name, text, what
):
    monkeypatch.setattr(lite, "_tag", None)
    (tmp_path / name).write_text("old\n")
    with pytest.raises(DataError, match=what):
        run(tmp_path / name, train=table(sentence=[text, "c d"]))
    assert (tmp_path / name).read_text() == "old\n"


def test_twice_at_once_is_an_error(tmp_path, monkeypatch):
    gather = lite.gather

    def run_again(*args, **kwargs):
        with pytest.raises(KdError, match="running already"):
            run(tmp_path / "set.tsv")
        return gather(*args, **kwargs)

    monkeypatch.setattr(lite, "gather", run_again)
    assert run(tmp_path / "set.tsv").originals == 42


def test_unknown_tagger_is_a_plugin_error(tmp_path):
    with pytest.raises(PluginError, match="no tagger plugin is named patern"):
        run(tmp_path / "set.tsv", settings={"tagger": "patern"})


def test_missing_data_of_a_tagger_comes_through_the_processes(tmp_path, make_plugin):
    code = "from kdcli.api import MissingError\napi_version = 2\n"
    code += "def tag(texts):\n    raise MissingError('no data', hint='get it')\n"
    make_plugin("kd-lost", "[kdcli.taggers]\nlost = kd_lost\n", code, module="kd_lost")
    with pytest.raises(MissingError, match="no data") as error:
        run(tmp_path / "set.tsv", settings={"tagger": "lost", "workers": 2})
    assert (error.value.exit_code, error.value.hint) == (6, "get it")
