"""The Parquet files of a dataset of the Hugging Face Hub, or of a copy of it in a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from kdcli.api import Reporter
from kdcli.errors import DataError, MissingError, first_line
from kdcli.tables.read import read_table
from kdcli.tasks.labels import class_names


@dataclass(frozen=True)
class HubSplit:
    """A split of a dataset.

    Attributes:
        rows: Its columns as the dataset has them; a label is the number of its class.
        names: The names of the classes in the order of their numbers; empty where the dataset has none.
    """

    rows: pl.DataFrame
    names: tuple[str, ...]


def read_splits(
    where: str, files: Mapping[str, str], reporter: Reporter, *, offline: bool = False
) -> dict[str, HubSplit]:
    """Read the splits of a dataset, downloaded unless they are in the Hub's cache or in a folder.

    Args:
        where: The dataset's name on the Hub (``nyu-mll/glue``), or a folder that holds the same files.
        files: The Parquet files of each split, as a pattern: ``{"train": "sst2/train-*.parquet"}``.
        reporter: Shows the progress.
        offline: Download nothing.

    Raises:
        MissingError: The dataset cannot be downloaded.
        DataError: The folder lacks a file, or a file is damaged.
    """
    folder = Path(where).expanduser()
    if not folder.is_dir():
        folder = _cached(where, files) or _downloaded(where, files, reporter, offline)
    elif missing := _missing(folder, files):
        hint = f"it must be a copy of the dataset's folder on the Hub, with {', '.join(files.values())}"
        raise DataError(f"the folder has no {missing}", file=folder, hint=hint)
    return {name: _read(sorted(folder.glob(pattern))) for name, pattern in files.items()}


def _read(paths: list[Path]) -> HubSplit:
    frames = [read_table(path) for path in paths]
    rows = pl.concat(frame.frame().select(frame.columns) for frame in frames)
    return HubSplit(rows, tuple(class_names(paths[0], "label") or ()))


def _missing(folder: Path, files: Mapping[str, str]) -> str | None:
    """Return a pattern whose files are not all there; ``-of-00003`` in a name says how many there must be."""
    for pattern in files.values():
        found = list(folder.glob(pattern))
        counts = [re.search(r"-of-(\d+)\.", path.name) for path in found]
        if not found or any(count and int(count[1]) != len(found) for count in counts):
            return pattern
    return None


def _snapshot(where: str, files: Mapping[str, str], *, local: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = list(files.values())
    return Path(snapshot_download(where, repo_type="dataset", allow_patterns=patterns, local_files_only=local))


def _cached(where: str, files: Mapping[str, str]) -> Path | None:
    try:
        folder = _snapshot(where, files, local=True)
    except Exception:  # not cached, or not a valid name: the Hub will say
        return None
    return None if _missing(folder, files) else folder


def _downloaded(where: str, files: Mapping[str, str], reporter: Reporter, offline: bool) -> Path:
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if offline:
        raise _unavailable(where, "it is not in the cache, and --offline is set")
    disable_progress_bars()  # the terminal is the reporter's
    reporter.info(f"downloading the dataset {where} from the Hugging Face Hub")
    try:
        folder = _snapshot(where, files, local=False)
    except Exception as error:
        raise _unavailable(where, first_line(error)) from error
    if missing := _missing(folder, files):
        raise _unavailable(where, f"it has no {missing}")
    return folder


def _unavailable(where: str, why: str) -> MissingError:
    hint = "check the network and HTTPS_PROXY, or name a folder that holds a copy of the dataset: --url FOLDER"
    return MissingError(f"the dataset {where!r} cannot be downloaded: {why}", hint=hint)
