"""Out of memory: run again with half the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from kdcli.api import KdError, Reporter

Result = TypeVar("Result")


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
