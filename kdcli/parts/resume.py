"""The one resume rule: what lies in a folder is used only if all that it depends on is the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdcli.api import Reporter
from kdcli.files import atomic


def claim_folder(folder: Path, fingerprint: Mapping[str, Any], *, resume: bool, reporter: Reporter) -> bool:
    """Prepare the folder of a piece of work: keep what is there, or empty it and record the fingerprint.

    Args:
        folder: The folder, which may be missing.
        fingerprint: All that the work depends on, as JSON values.
        resume: Whether what is there may be used.
        reporter: Gets the reason why it is not used.

    Returns:
        Whether the work goes on with what is there.
    """
    record, now = folder / "fingerprint.json", json.loads(json.dumps(fingerprint))
    found = _read(record)
    if found == now and resume:
        return True
    if resume and found is not None:
        for key in {**found, **now}:
            if found.get(key) != now.get(key):
                reporter.warn(f"{key} changed ({found.get(key)} -> {now.get(key)}): starting again")
    elif resume and record.exists():
        reporter.warn("the record of what the work depends on is damaged: starting again")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    with atomic(record) as temporary:
        temporary.write_text(json.dumps(now), "utf-8")
    return False


def _read(record: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(record.read_text("utf-8")))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None
