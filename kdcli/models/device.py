"""Devices: choose one, and check what it can do."""

from __future__ import annotations

import os

import torch

from kdcli.errors import MissingError, UsageError


def resolve(device: str) -> str:
    """Turn ``auto`` into the best device of this machine; under ``torchrun`` each local rank gets its own GPU.

    Raises:
        MissingError: The machine has no such device.
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


def check_device(device: str, precision: str, what: str) -> None:
    """Make sure that ``what`` (a teacher, a generator) can be trained on a device in a precision.

    Raises:
        MissingError: The machine has no such device.
        UsageError: The device cannot compute in this precision.
    """
    kind = torch.device(resolve(device)).type
    able = {"cpu": {"fp32", "bf16"}, "cuda": {"fp32", "bf16", "fp16"}}.get(kind, {"fp32"})
    if kind == "cuda" and not torch.cuda.is_bf16_supported():
        able.remove("bf16")
    if precision not in able:
        problem = f"a {what} cannot be trained in {precision} on this {kind} device"
        raise UsageError(problem, hint=f"use --precision {' or '.join(sorted(able))}", key="precision")
