"""The contract of every generator, and the promises of this one."""

from itertools import pairwise
from pathlib import Path

from kdcli.api import GeneratorSettings, Part, QuietReporter
from kdcli.testing import check_generator, tiny_corpus

import kd_example

TRAIN = tiny_corpus().train


def test_the_contract():
    check_generator(kd_example)


def drawn(folder: Path, **options: float) -> list[str]:
    chosen = kd_example.Options(**options)
    settings = GeneratorSettings(chosen, "single", seed=1, device="cpu", precision="fp32")
    kd_example.fine_tune(tiny_corpus(), folder, settings, QuietReporter())
    sampler = kd_example.load(folder, settings, QuietReporter())
    return sampler.sample(sampler.prefixes(tiny_corpus()), Part(0, 200, seed=1)).texts


def test_long_n_grams_repeat_the_training_texts(tmp_path):
    assert set(drawn(tmp_path, order=99, back_off=0)) <= set(TRAIN)


def test_bigrams_put_known_neighbours_together_anew(tmp_path):
    neighbours = {two for text in TRAIN for two in pairwise(text.split())}
    texts = drawn(tmp_path, order=2, back_off=0)
    assert {two for text in texts for two in pairwise(text.split())} <= neighbours
    assert set(texts) - set(TRAIN)


def test_too_long_is_rejected(tmp_path):
    assert all(len(text.split()) < 5 for text in drawn(tmp_path, order=1, max_words=5))
