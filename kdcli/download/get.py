"""``kd data get``: a source, had from the Hub or from an address, as files that the other commands take."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kdcli import __version__
from kdcli.api import QuietReporter, Reporter
from kdcli.download.kinds import File, Made, Work, make_task, make_texts, make_vectors
from kdcli.download.source_file import source_file
from kdcli.download.sources import SOURCES, Source, find
from kdcli.errors import DataError, UsageError
from kdcli.files import atomic

DATA = Path("data")
"""The folder that everything is put into, each in a folder of its own name."""
CARD = "source.json"
"""What stands in such a folder: where its files are from, and which they are."""
FORMAT = "kd.data/1"
_HUB = "https://huggingface.co/datasets/"


@dataclass(frozen=True)
class Got:
    """What was had.

    Attributes:
        name: The source.
        kind: ``task``, ``vectors`` or ``texts``.
        folder: Where it is.
        address: Where it is from.
        sha256: Of the file that was downloaded, if it was one.
        cite: Who made it.
        files: What is there.
        notes: What was done to it.
        next: Commands that take it.
        done: False if it was there already.
    """

    name: str
    kind: str
    folder: Path
    address: str
    sha256: str | None
    cite: str
    files: list[File]
    notes: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)
    done: bool = True


def get(
    name: str,
    output: Path | None = None,
    *,
    url: str | None = None,
    digest: str | None = None,
    offline: bool = False,
    force: bool = False,
    reporter: Reporter | None = None,
) -> Got:
    """Get a source: a task's tables, word vectors in their converted form, or transfer sets.

    Args:
        name: The source's name.
        output: The folder to write, which appears when all is there; by default ``data/NAME``.
        url: Where to take it from instead: a URL, a dataset's name on the Hub, or a file or folder that lies here.
        digest: The SHA-256 that the file must have.
        offline: Download nothing.
        force: Replace what an earlier call has got.
        reporter: Shows the progress.

    Raises:
        UsageError: Nothing has this name, or the address is none.
        MissingError: It cannot be had, or nothing is to be downloaded, or the extra ``data`` is missing.
        DataError: Something stands at ``output``, or what came is not what it should be.
        KdError: The disk is full, or the download breaks off; what came is kept for the next call.
    """
    source = _addressed(find(name), url, digest)
    folder = output or DATA / name
    card = _card(folder)
    if card and not force and _is_whole(folder, card, source):
        return _got(card, folder, done=False)
    if not folder.name or (folder.exists() and not (card and force)):
        hint = "--force overwrites it" if card else "name another folder with --output"
        raise DataError("the output exists already", file=folder, hint=hint)
    reporter = reporter or QuietReporter()
    if source.is_dataset:
        with atomic(folder) as temporary:
            temporary.mkdir()
            made = make_task(source, Work(temporary, folder, reporter), offline=offline)
            card = _write_card(temporary, source, made, None)
    else:
        make = make_vectors if source.kind == "vectors" else make_texts
        with (
            source_file(source, folder.parent, offline=offline, reporter=reporter) as file,
            atomic(folder) as temporary,
        ):
            temporary.mkdir()
            made = make(source, file.path, Work(temporary, folder, reporter))
            card = _write_card(temporary, source, made, file.sha256)
    return _got(card, folder)


def available() -> list[dict[str, Any]]:
    """Describe what can be had; ``here`` is the folder of what has been."""
    return [{**asdict(source), "here": _here(source)} for source in SOURCES]


def _here(source: Source) -> Path | None:
    folder = DATA / source.name
    card = _card(folder)
    # From wherever it is: what is asked is whether it is there.
    return folder if card and _is_whole(folder, card, replace(source, address=card["address"], sha256=None)) else None


def _addressed(source: Source, url: str | None, digest: str | None) -> Source:
    """Return the source as it is to be had: what is known of a file does not hold for one from elsewhere."""
    if url and url != source.address:
        source = replace(source, address=url, size=None, sha256=None)
    if source.is_dataset:
        source = replace(source, address=source.address.removeprefix(_HUB).rstrip("/"))
        if digest or source.is_url:
            what = "a task comes as a dataset of the Hub or a folder, not as one file"
            raise UsageError(what, hint="--url takes OWNER/DATASET or a folder here, and --sha256 is for other sources")
    if digest and not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise UsageError(f"a SHA-256 has 64 hex digits, unlike {digest!r}", hint="sha256sum FILE prints it")
    return replace(source, sha256=digest.lower()) if digest else source


def _card(folder: Path) -> dict[str, Any] | None:
    """Return what was written here by an earlier call, whole or not."""
    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return card if isinstance(card, dict) and card.get("format") == FORMAT else None


def _write_card(folder: Path, source: Source, made: Made, digest: str | None) -> dict[str, Any]:
    card = {
        "format": FORMAT,
        "kd": __version__,
        "name": source.name,
        "kind": source.kind,
        "address": source.address,
        "sha256": digest,
        "cite": source.cite,
        **asdict(made),
    }
    (folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return card


def _is_whole(folder: Path, card: dict[str, Any], source: Source) -> bool:
    """Tell whether all files of a source are there."""
    try:
        sizes = {folder / file["path"]: file["size"] for file in card["files"]}
        same = (card["name"], card["address"]) == (source.name, source.address)
        same = same and source.sha256 in (None, card["sha256"])
        return same and all(path.is_file() and path.stat().st_size == size for path, size in sizes.items())
    except (KeyError, TypeError):
        return False


def _got(card: dict[str, Any], folder: Path, *, done: bool = True) -> Got:
    shown = {key: card[key] for key in ("name", "kind", "address", "sha256", "cite", "notes", "next")}
    return Got(folder=folder, files=[File(**file) for file in card["files"]], done=done, **shown)
