"""What the folders that ``kd export`` writes have in common: where they may stand."""

from __future__ import annotations

import json
from pathlib import Path

from kdcli.errors import DataError, UsageError


def refuse_output(output: Path, student: Path, *, force: bool) -> None:
    """Refuse an output that stands there already, or that would take the student's own place.

    Even by force only an empty folder or an earlier export is replaced: what else a folder holds would be gone.

    Raises:
        DataError: It exists.
        UsageError: It is the student's folder, lies in it, or holds it.
    """
    here, source = output.resolve(), student.resolve()
    if here == source or here in source.parents or source in here.parents:
        hint = "name a folder of its own with --output"
        raise UsageError("the output and the student's folder overlap", key="--output", hint=hint)
    if not output.exists():
        return
    if not force:
        raise DataError("the output exists already", file=output, hint="--force overwrites it")
    if not output.is_dir() or (any(output.iterdir()) and not _is_export(output)):
        raise DataError("this is no earlier export, so it is not replaced", file=output, hint="name another --output")


def _is_export(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and str(config.get("format")).startswith("kd.")
