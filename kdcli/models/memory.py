"""Sampling as many texts at once as memory suffices for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from kdcli.api import KdError, Reporter

Drawn = TypeVar("Drawn")


def fitting(draw: Callable[[int], Drawn], rows: int, texts: int, reporter: Reporter) -> tuple[Drawn, int]:
    """Draw texts, and begin again with half as many at once where memory does not suffice.

    Args:
        draw: Draws all of them, given how many go at once.
        rows: How many go at once to begin with.
        texts: How many there are.
        reporter: Told when memory does not suffice.

    Returns:
        What was drawn, and how many went at once.

    Raises:
        KdError: Memory does not suffice for one.
    """
    while True:
        try:
            return draw(rows), rows
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            rows = min(rows, texts) // 2
            if not rows:
                hint = "a smaller model, a shorter max_length or bf16 take less"
                raise KdError("memory does not suffice to sample one text", hint=hint) from error
        # Beyond the handler, whose traceback keeps the tensors of the failed batch alive.
        clear_device_cache(garbage_collection=True)
        reporter.warn(f"memory did not suffice: {rows} texts at once from here on")
