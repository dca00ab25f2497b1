"""Devices: choose one, check what it can do, and run again with half the batch where its memory is too small."""

import os
import timeit
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from kdcli.api import Reporter
from kdcli.errors import KdError, MissingError, UsageError

Result = TypeVar("Result")
_TRIAL = 768  # rows of the matrices of a trial: as wide as an encoder


def resolve(device: str) -> str:
    """Turn ``auto`` into the best device of this machine; under ``torchrun`` each local rank gets its own GPU.

    A device that the machine has not is a ``MissingError``.
    """
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
    if device == "auto":
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = device.partition(":")
    exists = {"cuda": int(number or 0) < torch.cuda.device_count(), "mps": torch.backends.mps.is_available()}
    if not exists.get(kind, True):
        hint = "`kd doctor` shows the devices; --device auto takes the best"
        raise MissingError(f"this machine has no {device}", key="device", hint=hint)
    return device


def at_hand(device: str) -> str:
    """Return the device if this machine has it, else ``cpu``: parts may be made on another machine."""
    try:
        return resolve(device)
    except MissingError:
        return "cpu"


def check_device(device: str, precision: str, what: str) -> None:
    """Make sure that ``what`` (a teacher, a generator) can be trained on a device in a precision.

    A precision in which it cannot compute is a ``UsageError``.
    """
    kind = torch.device(resolve(device)).type
    able = {"cpu": {"fp32", "bf16"}, "cuda": {"fp32", "bf16", "fp16"}}.get(kind, {"fp32"})
    if kind == "cuda" and not torch.cuda.is_bf16_supported():
        able.remove("bf16")
    if precision not in able:
        problem = f"a {what} cannot be trained in {precision} on this {kind} device"
        raise UsageError(problem, hint=f"use --precision {' or '.join(sorted(able))}", key="precision")


def fastest_precision(device: str) -> str:
    """Return ``bf16`` where the device multiplies matrices faster in it, by half at least, else ``fp32``."""
    kind = torch.device(device).type
    if kind != "cpu":
        return "bf16" if kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    plain = torch.ones(_TRIAL, _TRIAL)
    short = plain.bfloat16()
    seconds = [min(timeit.repeat(partial(torch.mm, one, one), number=1, repeat=5)) for one in (plain, short)]
    return "bf16" if seconds[0] > 1.5 * seconds[1] else "fp32"


def halve_until_it_fits(
    run: Callable[[int], Result],
    batch: int,
    *,
    reporter: Reporter,
    count: int | None = None,
    auto: bool = True,
    hint: str = "a smaller model, a shorter max_length or bf16 take less memory",
    key: str | None = None,
) -> tuple[Result, int]:
    """Call ``run(batch)``, and again with half the batch for as long as memory runs out.

    Without ``auto``, running out of memory is an error with this hint and key. ``count`` is the number of texts
    in all, if that may be less than ``batch``.

    Returns:
        The result, and the batch that fitted.

    Raises:
        KdError: There is not enough memory for one text, or for ``batch`` without ``auto``.
    """
    from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size  # takes a second

    while True:
        try:
            return run(batch), batch
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            tried = min(batch, count or batch)
            if tried == 1 or not auto:
                what = f"not enough memory for {tried} text{'s' * (tried > 1)} at once"
                raise KdError(what, hint=hint, key=key) from error
        # Outside the handler, whose traceback keeps the tensors of the failed batch alive.
        clear_device_cache(garbage_collection=True)
        batch = tried // 2
        reporter.warn(f"memory ran out with {tried} texts at once: {batch} from here on")
