from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[4] / "shared"


@pytest.fixture
def shared_nltk(monkeypatch):
    import nltk

    if not (SHARED / "nltk_data").exists():
        pytest.skip("shared data is not there")
    monkeypatch.setattr(nltk.data, "path", [str(SHARED / "nltk_data"), *nltk.data.path])


@pytest.fixture
def sst2():
    path = SHARED / "data" / "glue" / "SST-2" / "train.tsv"
    if not path.exists():
        pytest.skip("shared data is not there")

    def first(count):
        with path.open(encoding="utf-8", newline="\n") as file:
            return [line.split("\t")[0] for line, _ in zip(file, range(count + 1), strict=False)][1:]

    return first
