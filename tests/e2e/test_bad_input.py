from e2e.conftest import refused


def lite(tiny, *arguments):
    return tiny.stage("transfer", "lite", *arguments)


def heavy(tiny, *arguments):
    return tiny.stage("transfer", "heavy", *arguments)


def test_a_text_of_100_000_words_and_an_empty_one(tiny):
    tiny.write("train", [*map(tuple, tiny.rows("train")), ("word " * 100_000, 1), ("", 0)])
    ended = tiny.stage("run-all", "--until", "student")
    assert ended.code == 0, ended.err
    ended = heavy(tiny, "--only", "cache")
    assert ended.code == 0, ended.err
    ended = heavy(tiny, "--only", "fine-tune", "--max-steps", 2)
    assert ended.code == 0 and "longer than 32 tokens" in ended.err


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
