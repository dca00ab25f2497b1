import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from kdcli.api import Corpus
from kdcli.testing import tiny_corpus, tiny_teacher


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


def test_a_teacher_knows_the_words_and_leaves_the_random_state_alone(tmp_path, capfd):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    folder = tiny_teacher(tmp_path / "one")
    assert torch.equal(torch.random.get_rng_state(), before) and capfd.readouterr() == ("", "")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.unk_token_id not in tokenizer(" ".join(tiny_corpus().train))["input_ids"]
    assert AutoConfig.from_pretrained(folder).id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    names = AutoConfig.from_pretrained(tiny_teacher(tmp_path / "two", ("no", "yes"))).id2label
    assert names == {0: "no", 1: "yes"}
    again = tiny_teacher(tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_importing_it_costs_nothing_and_needs_no_pytest():
    code = "import sys, kdcli.testing; print(*{'pytest', '_pytest', 'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
