"""``kd transfer heavy --generator mlm`` as a user runs it; what the road itself promises is in test_heavy."""

from difflib import SequenceMatcher
from pathlib import Path

OPTIONS = """
[generators.mlm]
model = "tiny"
vocab_size = 300
max_length = 48
lr = 1e-2
batch_size = 16
epochs = 8
"""


def table(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text("utf-8").split("\n")[:-1]]


def heavy(tiny, *arguments):
    ended = tiny.stage("transfer", "heavy", "--generator", "mlm", *arguments)
    assert ended.code == 0, ended.err
    return ended


def test_pairs_with_some_words_drawn_anew(tiny):
    tiny.make_pairs()
    tiny.profile.write_text(tiny.profile.read_text() + OPTIONS)
    pair = ["--set", "task.kind=pair"]
    result = heavy(tiny, *pair, "--json").result["result"]
    assert (result["originals"], result["samples"], result["rejected"]) == (60, 100, {})
    assert result["novelty"]["bits_per_character"] is None, "a masked model knows no bits of a text"
    tuned = tiny.lock["fine-tune"]["result"]["metrics"]
    assert tuned["dev_bits_per_masked_token"] > 0 and tuned["test_bits_per_masked_token"] > 0

    rows = table(tiny.run_dir / "transfer" / "transfer.tsv")
    assert rows[0] == ["sentence1", "sentence2", "source", "label"]
    originals, samples = [row[:2] for row in rows[1:61]], [row[:2] for row in rows[61:]]
    assert {row[2] for row in rows[61:]} == {"heavy"} and len(samples) == 100
    for sample in samples:
        words = " \t ".join(sample).split(" ")
        shared = max(_shared(words, " \t ".join(original).split(" ")) for original in originals)
        assert 0.6 < shared < 1, "a fifth of the words may be new"

    made = (tiny.run_dir / "transfer" / "heavy.tsv").read_bytes()
    again = heavy(tiny, *pair, "--json").result
    assert not any(stage["reasons"] for stage in again["stages"])
    heavy(tiny, *pair, "--only", "sample", "--force")
    assert (tiny.run_dir / "transfer" / "heavy.tsv").read_bytes() == made
    warmer = heavy(tiny, *pair, "--sample-temperature", 2.0, "--json").result
    assert [stage["stage"] for stage in warmer["stages"] if stage["reasons"]] == ["sample", "mix"]


def _shared(words: list[str], others: list[str]) -> float:
    """Return the share of the words that are also in the other text, in order."""
    blocks = SequenceMatcher(None, words, others, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / max(len(words), len(others))
