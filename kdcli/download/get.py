"""``kd data get``: a source from the Hub or from an address, as files that the other commands take."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter

from kdcli import __version__
from kdcli.api import QuietReporter, Reporter
from kdcli.download import SOURCES, Source, SourceFile, find
from kdcli.errors import DataError, MissingError, UsageError
from kdcli.files import atomic, sha256

DATA = Path("data")
"""The folder for all sources, each in a folder of its own name."""
CARD = "source.json"
"""The file in such a folder that says where its files are from, and which they are."""
FORMAT = "kd.data/1"
_HUB = "https://huggingface.co/datasets/"
_BLOCK = 1 << 20
_BESIDE = re.compile(r"readme|licen[cs]e|^\.|\.(md|py|sh|json|jsonl|parquet|pt|pkl|bin|html|pdf)$", re.IGNORECASE)
_TASKS = {"sst": "sst2", "cola": "cola", "mrpc": "mrpc", "sts": "stsb", "qqp": "qqp", "mnli": "mnli", "qnli": "qnli"}


@dataclass(frozen=True)
class GetResult:
    """A source on this machine; ``notes`` say how it differs from its origin, ``next`` are commands that take it.

    ``sha256`` is of the file that was downloaded, if it was one. ``done`` is False if all was there already.
    """

    name: str
    kind: str
    folder: Path
    address: str
    sha256: str | None
    cite: str
    files: list[SourceFile]
    notes: list[str]
    next: list[str]
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
) -> GetResult:
    """Get a source: a task's tables, word vectors, or transfer sets.

    ``output`` is ``data/NAME`` by default. ``url`` is another place: a URL, a dataset's name on the Hub, or a file or
    folder of this machine; ``digest`` the SHA-256 that the file must have. ``force`` replaces what an earlier call has
    written.

    Raises:
        UsageError: No source has this name, or the address does not fit it.
        MissingError: The source cannot be downloaded, or must not be.
        DataError: Something stands at ``output``, or the source is damaged or another one.
        KdError: The disk is full, or the download breaks off; its part stays for the next call.
    """
    source = _at_address(find(name), url, digest)
    folder = output or DATA / name
    found = _read_card(folder)
    if found and not force and _is_whole(found, source):
        return found
    if not folder.name or (folder.exists() and not (found and force)):
        hint = "--force overwrites it" if found else "name another folder with --output"
        raise DataError("the output exists already", file=folder, hint=hint)
    reporter = reporter or QuietReporter()
    if source.is_dataset:
        with atomic(folder) as temporary:
            temporary.mkdir()
            files, notes = _write_task(source, temporary, reporter, offline)
            return _write_card(temporary, folder, source, files, notes)
    with _downloaded(source, folder.parent, offline, reporter) as path, atomic(folder) as temporary:
        temporary.mkdir()
        source = replace(source, sha256=source.sha256 or sha256(path))
        return _write_card(temporary, folder, source, _write_files(source, path, temporary, reporter), [])


def available() -> list[dict[str, Any]]:
    """Describe all sources; ``here`` is the folder of one that is on this machine."""
    return [{**asdict(source), "here": _here(source)} for source in SOURCES]


def _here(source: Source) -> Path | None:
    found = _read_card(DATA / source.name)
    return found.folder if found and _is_whole(found, replace(source, address=found.address, sha256=None)) else None


def _at_address(source: Source, url: str | None, digest: str | None) -> Source:
    """Return the source at another address, where its known hash does not hold."""
    if url and url != source.address:
        source = replace(source, address=url, size=None, sha256=None)
    if source.is_dataset:
        source = replace(source, address=source.address.removeprefix(_HUB).rstrip("/"))
        if digest or source.is_url:
            what = "a task is a dataset of the Hub or a folder, not one file"
            raise UsageError(what, hint="--url takes OWNER/DATASET or a folder here, and --sha256 is for other sources")
    if digest and not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise UsageError(f"a SHA-256 has 64 hex digits, unlike {digest!r}", hint="sha256sum FILE prints it")
    return replace(source, sha256=digest.lower()) if digest else source


@contextmanager
def _downloaded(source: Source, beside: Path, offline: bool, reporter: Reporter) -> Iterator[Path]:
    """Give the file of a source.

    A file that is there is used as it is, and stays. A download lies in a folder of its own, which is removed when the
    block ends well; if other sources are in the file, too, it is moved out of there and kept. It stays for the next
    call when the block fails, unless the file itself is damaged.
    """
    from kdcli.download.fetch import BadArchive, fetch

    path = Path(source.address).expanduser()
    if source.is_url:
        name = Path(unquote(urlsplit(source.address).path)).name
        path = beside / (name if name not in ("", "..") else source.name)
    if path.is_file():
        reporter.info(f"{path} is here: nothing is downloaded")
        if source.sha256 not in (None, found := sha256(path)):
            what = f"the file is not the expected one: its SHA-256 is {found}, not {source.sha256}"
            raise DataError(what, file=path, hint="remove it, and it is downloaded")
        yield path
        return
    if not source.is_url:
        hint = "--url takes the address of a file, or a file of this machine"
        raise MissingError("the file does not exist", file=path, hint=hint)
    own = beside / f".kd-download-{hashlib.sha256(source.address.encode()).hexdigest()[:16]}"
    loaded = own / path.name
    if not loaded.is_file() or source.sha256 not in (None, sha256(loaded)):
        if offline:
            hint = f"fetch it elsewhere and put it at {path}, or name a copy with --url FILE"
            raise MissingError("the file is not here, and --offline is set", file=source.address, hint=hint)
        try:
            by_hand, size = path.absolute(), source.size
            fetch(source.address, loaded, digest=source.sha256, size=size, by_hand=by_hand, reporter=reporter)
        except BaseException:
            with suppress(OSError):  # another kd may be downloading the same
                own.rmdir()
            raise
    try:
        yield loaded
    except BadArchive:
        shutil.rmtree(own)
        raise
    others = [other.name for other in SOURCES if other.address == source.address and other.name != source.name]
    if others:
        loaded.rename(path)
        reporter.info(f"{path} is kept for {', '.join(others)}: remove it if you need none of them")
    shutil.rmtree(own)


def _write_task(source: Source, folder: Path, reporter: Reporter, offline: bool) -> tuple[list[SourceFile], list[str]]:
    """Write the tables of a task, and note how they differ from its authors'."""
    from kdcli.download import hub
    from kdcli.tasks.glue import TASKS, UNKNOWN

    layout = TASKS.get(source.name)
    patterns = layout.files(source.name) if layout else hub.IMDB_FILES
    splits = hub.read_splits(source.address, patterns, reporter, offline=offline)
    tables = hub.glue_tables(source.name, splits) if layout else hub.imdb_tables(splits)
    written = hub.write_splits(folder, tables, no_header=layout.no_header if layout else ())
    notes = []
    if layout is None:
        notes.append(f"dev is {len(tables['dev']):,} of the training reviews, drawn with seed {hub.IMDB_SEED}")
    elif layout.leaves_out:
        notes.append(f"columns of GLUE that the Hub leaves out hold {UNKNOWN!r}")
    if any(path.suffix == ".parquet" for path in written):
        notes.append("a text holds a tab or a line end, which TSV cannot hold: the tables are .parquet")
    return [SourceFile(path.name, path.stat().st_size, rows) for path, rows in written.items()], notes


def _write_files(source: Source, path: Path, folder: Path, reporter: Reporter) -> list[SourceFile]:
    """Unpack word vectors or transfer sets, or copy a file of word vectors that is not packed."""
    from kdcli.download.fetch import is_archive, unpack
    from kdcli.student.vector_file import VectorFile

    if source.kind == "texts":
        return [_describe(folder, file) for file in unpack(path, folder, reporter=reporter)]
    if is_archive(path):
        files = unpack(path, folder / "unpacked", only=source.member, reporter=reporter)
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise DataError("the archive holds several files, not one of word vectors", file=path, hint=names)
        plain = files[0].rename(folder / files[0].name)
        shutil.rmtree(folder / "unpacked")
    else:
        plain = folder / path.name
        shutil.copyfile(path, plain)
    return [SourceFile(plain.name, plain.stat().st_size, VectorFile(plain).count)]


def _next_commands(source: Source, folder: Path, files: list[SourceFile]) -> list[str]:
    first = quote(str(folder / files[0].path))
    if source.kind == "vectors":
        return [f"kd run-all --profile sst2 --data-dir data/sst2 --set student.vectors={first}"]
    if source.name == "ax":
        return [f"kd predict --student runs/mnli/student --profile ax --input {first} --output AX.tsv"]
    if source.kind == "task":
        start = f"--profile {source.name} --data-dir {quote(str(folder))}"
        texts = [quote(str(folder / file.path)) for file in files if file.path.startswith("unsupervised")]
        return [f"kd run-all {start}", *(f"kd transfer corpus {start} --input {path}" for path in texts)]
    largest = {file.holds: file for file in sorted(files, key=lambda file: file.size) if file.holds != "other"}
    commands = []
    for holds, file in sorted(largest.items(), reverse=True):
        task = next((task for part, task in _TASKS.items() if part in file.path.lower()), "sst2")
        start, path = f"--profile {task} --data-dir data/{task}", folder / file.path
        corpus = f"kd run-all {start} --set transfer.method=corpus --set 'transfer.corpus.files=[\"{path}\"]'"
        commands.append(corpus if holds == "texts" else f"kd student {start} --input {path}")
    return commands


def _describe(folder: Path, path: Path) -> SourceFile:
    """Describe a file of transfer sets; one of lines without the suffix of a table gets ``.tsv`` or ``.txt``."""
    from kdcli.tables.text import form_of, open_bytes

    rows, holds = None, "other"
    if not _BESIDE.search(path.name) and "__MACOSX" not in path.parts:
        with suppress(DataError, UnicodeDecodeError), open_bytes(path) as stream:
            first = stream.readline(_BLOCK).decode()
            if first.endswith("\n") and "\0" not in first:
                rows = 1 + sum(1 for _ in stream)
                holds = "logits" if re.search(r"(^|\t)logits_0(\t|\r?\n)", first) else "texts"
    if rows:
        try:
            form_of(path)
        except DataError:
            path = path.rename(path.with_name(path.name + (".tsv" if "\t" in first else ".txt")))
    return SourceFile(path.relative_to(folder).as_posix(), path.stat().st_size, rows, holds)


def _read_card(folder: Path) -> GetResult | None:
    """Return what an earlier call has noted of this folder."""
    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
        if card.pop("format") != FORMAT or not card.pop("kd"):
            return None
        return TypeAdapter(GetResult).validate_python({**card, "folder": folder, "done": False})
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None


def _write_card(temporary: Path, folder: Path, source: Source, files: list[SourceFile], notes: list[str]) -> GetResult:
    known = {key: getattr(source, key) for key in ("name", "kind", "address", "sha256", "cite")}
    result = GetResult(folder=folder, files=files, notes=notes, next=_next_commands(source, folder, files), **known)
    card = {"format": FORMAT, "kd": __version__, **asdict(result)}
    del card["folder"], card["done"]
    (temporary / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return result


def _is_whole(found: GetResult, source: Source) -> bool:
    """Return whether all files of a source are there."""
    sizes = {found.folder / file.path: file.size for file in found.files}
    same = (found.name, found.address) == (source.name, source.address) and source.sha256 in (None, found.sha256)
    return same and all(path.is_file() and path.stat().st_size == size for path, size in sizes.items())
