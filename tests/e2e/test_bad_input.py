"""What users get wrong, and what breaks: a clear error, and nothing lost."""

import pytest
from e2e.conftest import refused


def lite(tiny, *arguments):
    return tiny.stage("transfer", "lite", *arguments)


def heavy(tiny, *arguments):
    return tiny.stage("transfer", "heavy", *arguments)


def test_wrong_folders_flags_and_settings(tiny):
    refused(tiny.stage("run-all", "--data-dir", tiny.root / "nowhere"), 4, "nowhere")
    refused(tiny.kd("run-all", "--data-dir", tiny.data), 2, "--profile")
    refused(tiny.stage("run-all", "--set", "student.vectors=teacher"), 3, "student.vectors")
    refused(tiny.stage("run-all", "--set", "transfer.method=lite+hevy"), 3, "transfer.method", "hevy")
    refused(tiny.stage("run-all", "--set", "transfer.method=lite+corpus"), 3, "transfer.corpus.files")
    refused(heavy(tiny, "--num-samples", 0), 2, "--num-samples")
    refused(heavy(tiny, "--set", "transfer.heavy.num_samples=0"), 3, "transfer.heavy.num_samples")
    refused(heavy(tiny, "--set", 'transfer.heavy.labels=["good"]'), 3, "transfer.heavy.labels", "'good'", "0, 1")
    refused(tiny.stage("join"), 4, "kd transfer lite")
    assert not (tiny.run_dir / "kd.lock").exists()


def test_a_text_of_100_000_words_and_an_empty_one(tiny):
    tiny.write("train", [*map(tuple, tiny.rows("train")), ("word " * 100_000, 1), ("", 0)])
    ended = tiny.stage("run-all", "--until", "student")
    assert ended.code == 0, ended.err
    ended = heavy(tiny, "--only", "cache")
    assert ended.code == 0, ended.err
    ended = heavy(tiny, "--only", "fine-tune", "--max-steps", 2)
    assert ended.code == 0 and "longer than 32 tokens" in ended.err


def test_logits_of_another_transfer_set_and_damaged_ones(done):
    other = done.root / "other.safetensors"
    (done.run_dir / "join" / "joined.parquet").unlink()
    other.write_bytes((done.run_dir / "export" / "logits.safetensors").read_bytes()[:-100])
    refused(done.stage("join", "--logits", other), 4, "other.safetensors")
    other.unlink()
    done.write("train", [(f"another film number {place} .", place % 2) for place in range(20)])
    assert done.kd("transfer", "lite", "-p", done.profile, "-o", done.root / "other.tsv").code == 0
    export = ["teacher", "export", "-p", done.profile, "--teacher", done.run_dir / "teacher"]
    assert done.kd(*export, "-i", done.root / "other.tsv", "-o", other).code == 0
    ended = done.kd("join", "-p", done.profile, "-i", done.run_dir / "transfer/lite.parquet", "--logits", other,
                    "-o", done.root / "joined.tsv")  # fmt: skip
    refused(ended, 4, "lite.parquet", "row 1")
    assert not (done.root / "joined.tsv").exists()


def test_a_model_whose_samples_never_end(tiny):
    ended = heavy(tiny, "--max-steps", 1, "--max-length", 8)
    refused(ended, 1, "of 1024 draws gave a new text", "no end within max_length tokens", "fine-tune the generator")
    assert not (tiny.run_dir / "transfer" / "heavy.parquet").exists()


def test_damaged_prefixes_cache_and_checkpoint(heavy_done):
    transfer = heavy_done.run_dir / "transfer"
    prefixes = transfer / "prefixes.json"
    prefixes.write_text(prefixes.read_text()[:-9])
    refused(heavy(heavy_done), 4, "prefixes.json", "changed since")
    refused(heavy(heavy_done, "--only", "sample"), 4, "prefixes.json", "--only prefixes --force")
    assert heavy(heavy_done, "--only", "prefixes", "--force").code == 0
    (transfer / "cache.parquet").write_bytes(b"x" * 100)
    refused(heavy(heavy_done, "--only", "fine-tune"), 4, "cache", "--only cache --force")
    assert heavy(heavy_done, "--only", "cache", "--force").code == 0
    (transfer / "generator" / "model.safetensors").write_bytes(b"x" * 100)
    refused(heavy(heavy_done), 4, "generator", "changed since")
    refused(heavy(heavy_done, "--only", "sample", "--top-k", 2), 4, "generator")


@pytest.mark.parametrize("order", ["none", "lm"])
def test_a_missing_corpus_is_an_error_before_the_work(tiny, order):
    refused(tiny.stage("transfer", "corpus", "--input", tiny.root / "no.txt", "--order-by", order), 4, "no.txt")
    refused(tiny.stage("transfer", "corpus", "--order-by", order), 3, "transfer.corpus.files")
    assert not (tiny.run_dir / "transfer").exists()
