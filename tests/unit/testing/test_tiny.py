import subprocess
import sys

import pytest

from kdcli.api import Corpus
from kdcli.testing import tiny_corpus, tiny_task


@pytest.mark.parametrize("kind", ["single", "pair"])
def test_the_corpus_is_what_generators_get(kind):
    corpus = tiny_corpus(kind)
    texts = [*corpus.train, *corpus.dev, *corpus.test]
    assert isinstance(corpus, Corpus) and corpus.kind == kind
    assert [len(part) for part in (corpus.train, corpus.dev, corpus.test)] == [40, 10, 10]
    assert len(set(texts)) == 60
    assert {text.count("\t") for text in texts} == {int(kind == "pair")}
    assert all(
        side.strip() == side and side and len(side.splitlines()) == 1 for text in texts for side in text.split("\t")
    )
    known = {word for text in corpus.train for word in text.split()}
    assert {word for text in (*corpus.dev, *corpus.test) for word in text.split()} <= known


def test_tasks():
    assert (tiny_task().kind, tiny_task().outputs, tiny_task().is_score) == ("single", 2, False)
    assert (tiny_task("pair").columns, tiny_task("pair").outputs) == (("sentence1", "sentence2"), 3)
    for kind in ("single", "pair"):
        scores = tiny_task(kind, scores=True)
        assert (scores.kind, scores.outputs, scores.is_score, scores.score_range) == (kind, 1, True, (0.0, 5.0))
        assert scores.metric == "pearson"


def test_importing_it_costs_nothing_and_needs_no_pytest():
    code = "import sys, kdcli.testing; print(*{'pytest', '_pytest', 'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
