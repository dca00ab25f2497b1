"""A dataset of the Hugging Face Hub, or a copy of it in a folder."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow as pa
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

from kdcli.api import Reporter
from kdcli.errors import DataError, MissingError, first_line


@dataclass(frozen=True)
class Split:
    """A part of a dataset.

    Attributes:
        rows: Its columns as the dataset has them; a label is the number of its class.
        names: What the dataset calls the classes, in the order of their numbers; empty where it does not say.
    """

    rows: pa.Table
    names: tuple[str, ...]


@contextmanager
def open_splits(
    where: str, files: Mapping[str, str], reporter: Reporter, *, offline: bool = False
) -> Iterator[dict[str, Split]]:
    """Open the splits of a dataset, fetched unless they are in the Hub's cache or in a folder.

    Args:
        where: The dataset's name on the Hub (``nyu-mll/glue``), or a folder that holds the same files.
        files: The Parquet files of each split, as a pattern: ``{"train": "sst2/train-*.parquet"}``.
        reporter: Shows the progress.
        offline: Fetch nothing.

    Raises:
        MissingError: The extra ``data`` is not installed, or the dataset cannot be had.
        DataError: The folder lacks a file, or holds one that is no such table.
    """
    datasets = _library()
    folder = Path(where).expanduser()
    with tempfile.TemporaryDirectory() as scratch, _quiet(datasets):
        if not folder.is_dir():
            folder = _cached(where, files) or _fetched(where, files, reporter, offline)
        elif missing := _missing(folder, files):
            hint = f"it is a copy of the dataset's folder on the Hub, with {', '.join(files.values())}"
            raise DataError(f"the folder has no {missing}", file=folder, hint=hint)
        try:
            # The library copies what it reads; there is a copy already.
            loaded = datasets.load_dataset(str(folder), data_files=dict(files), cache_dir=scratch)
            splits = {name: _split(loaded[name]) for name in files}
        except Exception as error:
            raise DataError(f"the copy of the dataset cannot be read: {first_line(error)}", file=folder) from error
        yield splits


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        hint = "pip install 'kdcli[data]'"
        raise MissingError("datasets of the Hub need the library datasets", hint=hint) from error
    return datasets


def _missing(folder: Path, files: Mapping[str, str]) -> str | None:
    """Return a pattern that not all files are there of: their names say of how many each is one."""
    for pattern in files.values():
        found = list(folder.glob(pattern))
        counts = [re.search(r"-of-(\d+)\.", path.name) for path in found]
        if not found or any(count and int(count[1]) != len(found) for count in counts):
            return pattern
    return None


def _cached(where: str, files: Mapping[str, str]) -> Path | None:
    try:
        folder = Path(snapshot_download(where, repo_type="dataset", local_files_only=True))
    except Exception:  # not cached, or no valid name: the Hub will tell
        return None
    return None if _missing(folder, files) else folder


def _fetched(where: str, files: Mapping[str, str], reporter: Reporter, offline: bool) -> Path:
    if offline:
        raise _not_here(where, "it is not in the cache, and nothing is to be downloaded")
    try:
        dataset = HfApi().dataset_info(where, files_metadata=True, timeout=10)
        wanted = [
            file for file in dataset.siblings or () if any(fnmatch(file.rfilename, name) for name in files.values())
        ]
        sizes = sum(file.size or 0 for file in wanted)
        with reporter.progress(f"fetching {where}", sizes, "bytes") as progress:
            for file in wanted:
                hf_hub_download(where, file.rfilename, repo_type="dataset")
                progress.advance(file.size or 0)
        folder = Path(snapshot_download(where, repo_type="dataset", local_files_only=True))
    except Exception as error:
        raise _not_here(where, first_line(error)) from error
    if missing := _missing(folder, files):
        raise _not_here(where, f"it has no {missing}")
    return folder


def _not_here(where: str, why: str) -> MissingError:
    hint = "check the network and HTTPS_PROXY, or name a folder that holds a copy of the dataset: --url FOLDER"
    return MissingError(f"the dataset {where!r} cannot be had from the Hugging Face Hub: {why}", hint=hint)


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Keep the libraries from writing to the terminal, which is the reporter's alone."""
    hub = logging.getLogger("huggingface_hub")
    before = datasets.utils.logging.get_verbosity(), hub.level
    had_bars = not datasets.are_progress_bars_disabled()
    datasets.utils.logging.set_verbosity(logging.CRITICAL)
    hub.setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    disable_progress_bars()
    try:
        yield
    finally:
        datasets.utils.logging.set_verbosity(before[0])
        hub.setLevel(before[1])
        if had_bars:
            datasets.enable_progress_bars()
            enable_progress_bars()


def _split(loaded: Any) -> Split:
    names = [feature.names for feature in loaded.features.values() if hasattr(feature, "names")]
    return Split(loaded.with_format("arrow")[:], tuple(names[0]) if names else ())
