"""The contract of every student, and the promises of this one."""

import torch
from kdcli.api import Batch
from kdcli.testing import check_student, tiny_task

import kd_example


def test_the_contract():
    check_student(kd_example, options={"hidden": 8})


def test_the_order_of_words_makes_no_difference():
    options = kd_example.Options(hidden=8)
    model = kd_example.build(options, tiny_task(), 20, None, 4).eval()
    lengths = (torch.tensor([3]),)
    there, back = (model(Batch((torch.tensor([words]),), lengths)) for words in ([5, 6, 7], [7, 6, 5]))
    torch.testing.assert_close(there, back)
