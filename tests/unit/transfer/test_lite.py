from collections import Counter

import polars as pl
import pytest
from raising import raising
from written import rows_of

from kdcli.api import QuietReporter, Task
from kdcli.config.transfer import LiteSettings
from kdcli.errors import DataError, MissingError
from kdcli.parts import LocalEngine
from kdcli.transfer import lite
from kdcli.transfer.lite import fabricate

SINGLE = Task("films", "single", ("0", "1"))
STEM = ["the film is good", "a  long , dull plot", "nobody laughs", "it 's not bad at all", "", "why ?", "the end ."]
TEXTS = [f"{text} number {i}" if text else "" for i, text in enumerate(STEM * 6)]
HELD_OUT = ["the film", "dull plot", " a  long", "unseen words"]


def table(**columns):
    rows = len(next(iter(columns.values())))
    columns.setdefault("label", [str(i % 2) for i in range(rows)])
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


TRAIN, DEV = table(sentence=TEXTS), table(sentence=HELD_OUT)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(lite, "ROWS", 8)
    monkeypatch.setattr(lite, "TEXTS", 30)


def run(output, **changes):
    settings = {"n_iter": 10, "workers": 1, "p_mask": 0.2, "ngram": "1:3"} | changes.pop("settings", {})
    arguments = {"train": TRAIN, "held_out": [DEV], "task": SINGLE, "seed": 1} | changes
    return fabricate(settings=LiteSettings(**settings), output=output, **arguments)


def texts_of(path):
    return [row[0] for row in rows_of(path)]


def test_originals_come_first_as_they_are_then_new_texts_alone(tmp_path):
    train = table(sentence=[*TEXTS, TEXTS[0], "the film", " odd  space\t"], label=["1"] * 45)
    result = run(tmp_path / "set.parquet", train=train)
    frame = pl.read_parquet(tmp_path / "set.parquet")
    assert frame.schema == {"sentence": pl.String, "source": pl.String, "label": pl.String}
    # Repeated texts, and those that dev holds too, stay: they are the training set.
    originals, made = frame[:45], frame[45:]
    assert originals.equals(train.select("sentence", pl.lit("original").alias("source"), "label"))
    assert set(made.select("source", "label").rows()) == {("lite", None)}
    normal = {" ".join(text.split()) for text in made["sentence"]}
    assert len(normal) == len(made) and not normal & {" ".join(text.split()) for text in [*TEXTS, *HELD_OUT]}
    assert made["sentence"].to_list() == [text.strip() for text in made["sentence"]]
    assert (result.originals, result.fabricated, result.rows) == (45, len(made), len(frame))


def test_counts_add_up_and_held_out_copies_are_those_of_an_independent_run(tmp_path):
    result = run(tmp_path / "set.tsv")
    made = texts_of(tmp_path / "set.tsv")[42:]
    dropped = result.duplicates + result.held_out_copies
    assert result.fabricated + dropped == 420 and result.drop_rate == pytest.approx(dropped / 420)
    assert set(result.counts) == {"words", "words_masked", "words_replaced", "texts_cut"}
    assert result.counts["words_masked"] >= Counter(" ".join(made).split())["[MASK]"] > 0
    assert {rule for example in result.examples for rule in example["rules"]} == {"masked", "replaced", "cut"}
    assert all(example["after"] in made and example["before"] in TEXTS for example in result.examples)
    assert [path.name for path in tmp_path.iterdir()] == ["set.tsv"]
    run(tmp_path / "free.tsv", held_out=[])
    result = run(tmp_path / "set.tsv", held_out=[DEV, DEV])
    free, held = (texts_of(tmp_path / name) for name in ("free.tsv", "set.tsv"))
    normal = {" ".join(text.split()) for text in HELD_OUT}
    assert held == [text for text in free if text in TEXTS or " ".join(text.split()) not in normal]
    assert result.held_out_copies == len(free) - len(held) > 0


def test_processes_change_nothing_and_the_seed_decides(tmp_path):
    made = []
    for seed, workers in ((5, 1), (5, 2), (6, 1), (2**80, 1)):
        run(tmp_path / "set.tsv", seed=seed, settings={"workers": workers})
        made.append((tmp_path / "set.tsv").read_bytes())
    assert made[0] == made[1] and len(set(made)) == 3


def stop(monkeypatch, where, after):
    """Let the parts of a kind stop after some; return the numbers of those made."""
    done = []
    kind = getattr(lite, where)
    call = kind.__call__

    def stop_in_the_middle(self, part, path, data):
        if part == after and len(done) == after:
            path.write_bytes(b"half a part")
            raise KeyboardInterrupt
        done.append(part)
        call(self, part, path, data)

    monkeypatch.setattr(kind, "__call__", stop_in_the_middle)
    return done


@pytest.mark.parametrize("where", ["TagPart", "MakePart"])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch, where):
    whole = run(tmp_path / "one.tsv")
    done = stop(monkeypatch, where, 3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "set.tsv")
    assert done == [0, 1, 2]
    assert not (tmp_path / "set.tsv").exists()
    done.append(-1)
    assert run(tmp_path / "set.tsv") == whole
    assert done[4:] == list(range(3, 3 + len(done) - 4))  # nothing was made twice
    assert (tmp_path / "set.tsv").read_bytes() == (tmp_path / "one.tsv").read_bytes()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"settings": {"p_mask": 0.3}}, "p_mask changed"),
        ({"settings": {"words": "whitespace"}}, "words changed"),
        ({"seed": 2}, "seed changed"),
        ({"train": table(sentence=TEXTS[::-1])}, "training texts changed"),
        ({"settings": {"workers": 2}}, ""),
        ({"held_out": []}, ""),
    ],
)
def test_parts_of_other_settings_are_not_used(tmp_path, monkeypatch, changes, why, notes):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop(patch, "MakePart", 3)
        run(tmp_path / "set.tsv")
    run(tmp_path / "set.tsv", reporter=notes, **changes)
    assert len(notes.warnings) == bool(why) and all(message.startswith(why) for message in notes.warnings)
    run(tmp_path / "other.tsv", **changes)
    assert (tmp_path / "set.tsv").read_bytes() == (tmp_path / "other.tsv").read_bytes()


def test_texts_of_no_and_of_very_many_words_and_no_iterations(tmp_path):
    train = table(sentence=["", "word , " * 50_000, "short text"])
    result = run(tmp_path / "set.tsv", train=train, held_out=[], settings={"n_iter": 20})
    texts = texts_of(tmp_path / "set.tsv")
    assert texts[:3] == train["sentence"].to_list()
    assert max(len(text.split()) for text in texts[3:]) == 100_000
    assert result.counts["words"] > 1_000_000
    assert "" not in texts[3:]
    result = run(tmp_path / "set.tsv", settings={"n_iter": 0})
    assert texts_of(tmp_path / "set.tsv") == TEXTS
    assert (result.fabricated, result.drop_rate, result.examples) == (0, 0.0, [])


@pytest.mark.parametrize(("name", "text"), [("set.tsv", "a\tb"), ("set.txt", "a")])
def test_what_the_table_cannot_hold_is_an_error_before_the_work(tmp_path, monkeypatch, name, text):
    monkeypatch.setattr(lite, "tag", None)
    (tmp_path / name).write_text("old\n")
    with pytest.raises(DataError):
        run(tmp_path / name, train=table(sentence=[text, "c d"]))
    assert (tmp_path / name).read_text() == "old\n"


def test_missing_data_of_a_tagger_comes_through_the_processes(tmp_path, make_plugin):
    code = "from kdcli.api import MissingError\napi_version = 2\n"
    code += "def tag(texts):\n    raise MissingError('no data', hint='get it')\n"
    make_plugin("kd-lost", "[kdcli.taggers]\nlost = kd_lost\n", code, module="kd_lost")
    with raising(MissingError, "no data", hint="get it"):
        run(tmp_path / "set.tsv", settings={"tagger": "lost", "workers": 2})


def test_unigrams_are_the_words_of_each_tag_in_all_parts_and_columns(tmp_path):
    texts = pl.DataFrame({"sentence1": TEXTS, "sentence2": ["the end"] * 42})
    settings = LiteSettings(tagger="pattern", workers=1)
    words, unigrams = lite.tag(tmp_path, texts, settings, LocalEngine(), QuietReporter())
    tagged, counts = pl.read_parquet(words), pl.read_parquet(unigrams)
    assert Counter(tagged.select("tag", "word").rows()) == {(tag, word): n for tag, word, n in counts.rows()}
    assert counts.select("tag", "word").rows() == sorted(counts.select("tag", "word").rows())
    assert tagged.filter(pl.col("column") == 0)["row"].unique().to_list() == [i for i, text in enumerate(TEXTS) if text]


def test_pairs_cycle_through_first_second_and_both(tmp_path):
    train, task = table(sentence1=["a b"], sentence2=["c d"]), Task("pairs", "pair", ("0", "1"))
    settings = {"n_iter": 6, "p_mask": 1.0, "p_pos": 0.0, "p_ngram": 0.0}
    result = run(tmp_path / "set.parquet", train=train, held_out=[], task=task, settings=settings)
    masked = [tuple("[MASK]" in text for text in row[:2]) for row in rows_of(tmp_path / "set.parquet")[1:]]
    assert masked == [(True, False), (False, True), (True, True)] and result.duplicates == 3
