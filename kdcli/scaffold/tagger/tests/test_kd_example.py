"""The contract of every tagger, and the promises of this one."""

from kdcli.testing import check_tagger

import kd_example


def test_the_contract():
    check_tagger(kd_example)


def test_tags():
    text = "The 3 actors in Rome slowly said nothing useful .".split()
    tags = ["DT", "CD", "NNS", "IN", "NNP", "RB", "NN", "VBG", "JJ", "."]
    assert kd_example.tag([text, []]) == [tags, []]
