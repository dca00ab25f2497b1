"""The contract of every teacher, and the promises of this one."""

from pathlib import Path

import numpy as np
from kdcli.api import QuietReporter
from kdcli.testing import check_teacher

import kd_example

WORDS = Path(__file__).resolve().parents[1] / "words.toml"


def test_the_contract():
    check_teacher(kd_example, model=WORDS, options={"scale": 2})


def test_the_weights_of_a_texts_words_add_up(tmp_path):
    file = tmp_path / "words.toml"
    file.write_text("[no]\ndull = 2\n[yes]\nwarm = 1.5\nbright = 1\ndull = 0.5\n")
    options = kd_example.Options(scale=2)
    how = {"max_length": 0, "long_texts": "cut", "device": "cpu", "precision": "fp32", "reporter": QuietReporter()}
    teacher = kd_example.load(str(file), options, labels=(), **how)
    logits = teacher.logits([["Warm, bright, warm!", "dull", "nothing known"]], 8)
    assert teacher.labels == ("no", "yes")
    np.testing.assert_allclose(logits, [[0, 8], [4, 1], [0, 0]])
