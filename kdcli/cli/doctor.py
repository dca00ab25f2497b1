"""``kd doctor``: the state of this machine: packages, devices, plugins."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import psutil
import typer
from rich.filesize import decimal

from kdcli import registry
from kdcli.cli import ui
from kdcli.cli.options import Request, command
from kdcli.errors import KdError, MissingError, PluginError, each, shown

NEEDED = (
    *("torch", "transformers", "tokenizers", "safetensors", "accelerate"),
    *("polars", "numpy", "scipy", "sklearn", "nltk", "textblob", "pydantic"),
)
"""Modules without which commands fail; the rest of the dependencies come with these or are in use by now."""
LITTLE_DISK = 5e9
LITTLE_MEMORY = 2e9
Status = Literal["fine", "look", "broken"]


@dataclass(frozen=True)
class Diagnosis:
    """The state of one thing; ``look`` means that something optional is missing or scarce."""

    name: str
    status: Status
    found: str
    hint: str | None = None
    exit_code: int = 1


@command("kd doctor")
def doctor(request: Request) -> None:
    ui.spin("kd doctor")
    with ui.reporting("kd doctor"):
        checks = [*_python(), *_machine(), *_plugins()]
    broken = [check for check in checks if check.status == "broken"]
    rows = [{"what": one.name, "status": one.status, "found": one.found} for one in checks]
    for row, check in zip(rows, checks, strict=True):
        if check.hint and check.status != "fine":
            row["found"] += f"; {check.hint}"
    ui.show({"fine": not broken, "checks": checks}, lambda _: ui.records(rows, numbers=False))
    if broken:
        raise typer.Exit(broken[0].exit_code)


def _python() -> Iterator[Diagnosis]:
    yield Diagnosis("python", "fine", f"{sys.version.split()[0]} ({sys.executable})")
    yield Diagnosis("kd", "fine", f"{version('kdcli')} ({Path(__file__).resolve().parent.parent})")
    for name in NEEDED:
        try:
            yield Diagnosis(name, "fine", getattr(import_module(name), "__version__", "there"))
        except Exception as error:
            hint = "install kd again: pip install --force-reinstall kdcli"
            yield _fault(name, MissingError(f"cannot be imported: {shown(error)}", hint=hint))


def _machine() -> Iterator[Diagnosis]:
    from kdcli.parts import usable_cores

    yield Diagnosis("cores", "fine", str(usable_cores()))
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(Path.cwd()).free
    hint = "a smaller student.batch_size and teacher.export.batch_size need less"
    yield Diagnosis("memory free", "look" if memory < LITTLE_MEMORY else "fine", decimal(memory), hint)
    hint = "runs are written to --run-dir: name a place with more"
    yield Diagnosis("disk free", "look" if disk < LITTLE_DISK else "fine", f"{decimal(disk)} here", hint)
    try:
        import torch
    except Exception:
        return  # reported by _python
    for number in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(number)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: use fp16"
        yield Diagnosis(f"cuda:{number}", "fine", f"{gpu.name}, {decimal(gpu.total_memory)}, {bf16}")
    if torch.backends.mps.is_available():
        yield Diagnosis("mps", "fine", "Apple GPU")
    elif not torch.cuda.device_count():
        found = f"only the CPU, {torch.get_num_threads()} threads; a small teacher fine-tunes in half an hour"
        yield Diagnosis("devices", "fine", found)


def _plugins() -> Iterator[Diagnosis]:
    from kdcli.config.transfer import LiteSettings

    for plugin in (plugin for group in registry.GROUPS for plugin in registry.plugins(group)):
        name = f"{plugin.group.removesuffix('s')} {plugin.full_name}"
        try:
            loaded = plugin.load()
            if plugin.group == "taggers":
                loaded.tag([["films"]])  # needs the tagger's data
            yield Diagnosis(name, "fine", f"{plugin.distribution} {plugin.version}")
        except Exception as error:
            known = error if isinstance(error, KdError) else PluginError(shown(error), hint=plugin.remedy)
            optional = isinstance(error, MissingError) and plugin.name != LiteSettings().tagger
            yield _fault(name, known, "broken" if plugin.is_ours and not optional else "look")


def _fault(name: str, error: KdError, status: Status = "broken") -> Diagnosis:
    return Diagnosis(name, status, "; ".join(map(str, each(error))), each(error)[0].hint, error.exit_code)
