"""Where a training is done: its processes, its device, its folder, and what comes out of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import PartialState
from filelock import FileLock, Timeout

from kdcli.api import QuietReporter, Reporter
from kdcli.errors import KdError, MissingError, UsageError
from kdcli.files import atomic


def check_device(device: str, precision: str, what: str) -> None:
    """Make sure that this machine can train ``what`` on a device in a precision.

    Raises:
        MissingError: The device is not there.
        UsageError: The device cannot compute in this precision.
    """
    kind = torch.device(device).type
    if kind == "cuda" and not torch.cuda.is_available():
        raise MissingError("this machine has no CUDA device", hint="use --device cpu", key="device")
    able = {"cpu": {"fp32", "bf16"}, "cuda": {"fp32", "bf16", "fp16"}}.get(kind, {"fp32"})
    if kind == "cuda" and not torch.cuda.is_bf16_supported():
        able.remove("bf16")
    if precision not in able:
        problem = f"a {what} cannot be trained in {precision} on this {kind} device"
        raise UsageError(problem, hint=f"use --precision {' or '.join(sorted(able))}", key="precision")


def join_processes(device: str, reporter: Reporter | None) -> Reporter:
    """Join the processes of ``torchrun``, if there are any, before all else; only the main one's reporter speaks."""
    main = PartialState(cpu=torch.device(device).type == "cpu").is_main_process
    return reporter if reporter and main else QuietReporter()


@contextmanager
def one_training(
    work: Path, fingerprint: Mapping[str, Any], resume: bool, reporter: Reporter, what: str
) -> Iterator[None]:
    """Train in a folder that this training has for itself, and that is removed when it ends well.

    What a killed training left there stays if its fingerprint was the same: inputs, settings, seed, and the number
    of processes and the versions of the libraries, which are added here. All processes enter.

    Args:
        work: The folder, beside the output.
        fingerprint: JSON values that the outcome depends on, by a name that the user knows.
        resume: Go on with what is there; False starts again.
        reporter: Told whether it goes on, and why not.
        what: What is trained, for errors: ``teacher`` or ``generator``.

    Raises:
        KdError: Another process trains here.
    """
    state = PartialState()
    with _alone(work, what):
        if state.is_main_process:
            versions = {"torch": torch.__version__, "transformers": transformers.__version__}
            _take(work, {**fingerprint, "processes": state.num_processes, **versions}, resume, reporter)
        state.wait_for_everyone()
        yield
        state.wait_for_everyone()  # another process may still read what is about to go
        if state.is_main_process:
            shutil.rmtree(work)
    state.wait_for_everyone()


def publish(model: Path, output: Path, metrics: Mapping[str, Any]) -> None:
    """Copy a model's folder to where the user wants it, with ``metrics.json``, whole or not at all."""
    if not PartialState().is_main_process:
        return
    with atomic(output) as temporary:
        shutil.copytree(model, temporary)
        (temporary / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", "utf-8")


@contextmanager
def _alone(work: Path, what: str) -> Iterator[None]:
    if not PartialState().is_main_process:
        yield
        return
    work.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work.with_name(f".{work.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        hint = "wait for it, or stop it first"
        raise KdError(f"this {what} is being trained already", file=work, hint=hint) from None
    try:
        yield
    finally:
        lock.release()


def _take(work: Path, fingerprint: Mapping[str, Any], resume: bool, reporter: Reporter) -> None:
    fingerprint = json.loads(json.dumps(fingerprint))
    record = work / "fingerprint.json"
    found = json.loads(record.read_text("utf-8")) if record.exists() else None
    if found == fingerprint and resume:
        reporter.info("going on with the training that was interrupted")
        return
    if found is not None and resume:
        changed = [key for key in {**found, **fingerprint} if found.get(key) != fingerprint.get(key)]
        reporter.warn(f"the interrupted training is not gone on with: {', '.join(changed)} changed")
    if work.exists():
        shutil.rmtree(work)
    work.mkdir()
    with atomic(record) as temporary:
        temporary.write_text(json.dumps(fingerprint), "utf-8")
