"""Where to compute."""

from __future__ import annotations

import os

import torch

from kdcli.errors import MissingError


def resolve(device: str) -> str:
    """Turn ``auto`` into the best device of this machine; under ``torchrun`` each local rank has a GPU of its own.

    Raises:
        MissingError: The device asked for is not there.
    """
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
    if device == "auto":
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = device.partition(":")
    there = {"cuda": int(number or 0) < torch.cuda.device_count(), "mps": torch.backends.mps.is_available()}
    if not there.get(kind, True):
        hint = "`kd doctor` shows what it has; --device auto takes the best"
        raise MissingError(f"this machine has no {device}", key="device", hint=hint)
    return device
