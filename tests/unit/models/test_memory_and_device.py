import pytest
import torch

from kdcli.api import KdError, QuietReporter
from kdcli.errors import MissingError, UsageError
from kdcli.models.device import check_device, fastest_precision, halve_until_it_fits, resolve

FULL = "CUDA out of memory. Tried to allocate 20.00 MiB."


def fits(limit, error=torch.OutOfMemoryError):
    def run(batch):
        if batch > limit:
            raise error(FULL)
        return batch * 10

    return run


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_batch_is_halved_until_it_fits(error):
    warnings, reporter = [], QuietReporter()
    reporter.warn = warnings.append
    assert halve_until_it_fits(fits(8, error), 48, reporter=reporter) == (60, 6)
    assert len(warnings) == 3
    assert halve_until_it_fits(fits(8, error), 4096, count=30, reporter=reporter) == (70, 7)
    assert halve_until_it_fits(fits(99), 48, count=3, reporter=reporter) == (480, 48), "a small part changes nothing"


def test_what_cannot_be_halved():
    for run, options in ((fits(0), {}), (fits(8), {"auto": False})):
        with pytest.raises(KdError, match="not enough memory") as error:
            halve_until_it_fits(run, 16, reporter=QuietReporter(), key="a.b", hint="do this", **options)
        assert (error.value.key, error.value.hint) == ("a.b", "do this")

    def broken(batch):
        raise RuntimeError("the model is broken")

    with pytest.raises(RuntimeError, match="broken"):
        halve_until_it_fits(broken, 16, reporter=QuietReporter())


def test_precisions_of_a_device():
    check_device("cpu", "bf16", "generator")
    with pytest.raises(UsageError) as error:
        check_device("cpu", "fp16", "generator")
    assert error.value.hint == "use --precision bf16 or fp32"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there():
    assert resolve("cpu") == "cpu"
    for device in ("cuda", "cuda:1"):
        with pytest.raises(MissingError) as error:
            check_device(device, "fp32", "teacher")
        assert error.value.key == "device"


def test_the_fastest_precision_is_found_by_a_trial(monkeypatch):
    taken = {torch.float32: 3.0, torch.bfloat16: 1.0}

    def repeat(trial, number, repeat):
        return [taken[trial().dtype]] * repeat

    monkeypatch.setattr("timeit.repeat", repeat)
    assert fastest_precision("cpu") == "bf16"
    taken[torch.bfloat16] = 2.5  # not worth the rounding
    assert fastest_precision("cpu") == "fp32"
    assert fastest_precision("mps") == "fp32"
