"""``kd data get``: the sources, which ``sources.toml`` lists, and how one becomes files that other commands take."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import tomli
from pydantic import TypeAdapter

from kdcli import __version__
from kdcli.api import QuietReporter, Reporter
from kdcli.config.table import nearest
from kdcli.errors import DataError, MissingError, UsageError
from kdcli.files import atomic, sha256

DATA = Path("data")  # the folder for all sources, each in a folder of its own name
CARD = "source.json"  # the file in such a folder that says where its files are from, and which they are
FORMAT = "kd.data/1"
IMDB_SEED = 1
_IMDB_DEV = 10  # one training review in so many goes to the dev set: 2,500 of the 25,000
_HUB = "https://huggingface.co/datasets/"


@dataclass(frozen=True)
class Source:
    """A task, word vectors or transfer sets that ``kd data get`` gets.

    ``address`` is the URL of a file, or of a task the name of a dataset on the Hub. ``size`` and ``sha256`` are given
    where they are known for sure. ``member`` is the one file that is wanted of an archive.
    """

    name: str
    kind: Literal["task", "vectors", "texts"]
    about: str
    address: str
    cite: str
    size: int | None = None
    sha256: str | None = None
    member: str = ""

    @property
    def is_url(self) -> bool:
        """Whether the address is a URL, and not a dataset's name or a path."""
        return "://" in self.address

    @property
    def file_name(self) -> str:
        """The name of its file, as the address ends."""
        name = Path(unquote(urlsplit(self.address).path) if self.is_url else self.address).name
        return name if name not in ("", "..") else self.name


@dataclass(frozen=True)
class SourceFile:
    """A file in the folder of a source; ``rows`` where they are counted."""

    path: str
    size: int
    rows: int | None = None


_TABLE = tomli.loads(Path(__file__).with_name("sources.toml").read_text("utf-8"))
SOURCES = tuple(Source(**source) for source in _TABLE["sources"])


def find(name: str) -> Source:
    """Return the source of this name; where there is none, a ``UsageError`` suggests the nearest."""
    by_name = {source.name: source for source in SOURCES}
    if name not in by_name:
        close = nearest(name, by_name)
        hint = f"did you mean {close}?" if close else "`kd data list` names what there is"
        raise UsageError(f"nothing is named {name}", hint=hint)
    return by_name[name]


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
    offline: bool = False,
    force: bool = False,
    reporter: Reporter = QuietReporter(),
) -> GetResult:
    """Get a source: a task's tables, word vectors, or transfer sets.

    ``output`` is ``data/NAME`` by default. ``url`` is another place: a URL, a dataset's name on the Hub, or a file or
    folder of this machine. ``force`` replaces what an earlier call has written.
    """
    source = _at_address(find(name), url)
    folder = output or DATA / name
    found = _read_card(folder)
    if found and not force and _is_whole(found, source):
        return found
    if not folder.name or (folder.exists() and not (found and force)):
        hint = "--force overwrites it" if found else "name another folder with --output"
        raise DataError("the output exists already", file=folder, hint=hint)
    if source.kind == "task":  # a dataset
        with atomic(folder) as temporary:
            temporary.mkdir()
            files, notes = _write_task(source, temporary, reporter, offline)
            return _write_card(temporary, folder, source, files, notes)
    with _file_of(source, folder.parent, offline, reporter) as path, atomic(folder) as temporary:
        temporary.mkdir()
        source = replace(source, sha256=source.sha256 or sha256(path))
        return _write_card(temporary, folder, source, _write_files(source, path, temporary), [])


def available() -> list[dict[str, Any]]:
    """Describe all sources; ``here`` is the folder of one that is on this machine."""
    return [{**asdict(source), "here": _here(source)} for source in SOURCES]


def _here(source: Source) -> Path | None:
    found = _read_card(DATA / source.name)
    return found.folder if found and _is_whole(found, replace(source, address=found.address, sha256=None)) else None


def _at_address(source: Source, url: str | None) -> Source:
    """Return the source at another address, where its known hash does not hold."""
    if url and url != source.address:
        source = replace(source, address=url, size=None, sha256=None)
    if source.kind == "task":
        source = replace(source, address=source.address.removeprefix(_HUB).rstrip("/"))
        if source.is_url:
            what = "a task is a dataset of the Hub or a folder, not one file"
            raise UsageError(what, hint="--url takes OWNER/DATASET or a folder here")
    return source


@contextmanager
def _file_of(source: Source, beside: Path, offline: bool, reporter: Reporter) -> Iterator[Path]:
    """Give the file of a source: one that is there, or a download.

    A download has a hidden name. It is removed when the block ends well, or kept for the other sources that are in it.
    It stays for the next call when the block fails, unless the file itself is damaged.
    """
    from kdcli.download.fetch import BadArchive, fetch

    path = beside / source.file_name if source.is_url else Path(source.address).expanduser()
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
    loaded = beside / f".kd-download-{hashlib.sha256(source.address.encode()).hexdigest()[:8]}.{path.name}"
    if not loaded.is_file():
        if offline:
            hint = f"fetch it elsewhere and put it at {path}, or name a copy with --url FILE"
            raise MissingError("the file is not here, and --offline is set", file=source.address, hint=hint)
        fetch(source.address, loaded, digest=source.sha256, size=source.size, by_hand=path, reporter=reporter)
    try:
        yield loaded
    except BadArchive:
        loaded.unlink()
        raise
    if others := [one.name for one in SOURCES if one.address == source.address and one.name != source.name]:
        loaded.rename(path)
        reporter.info(f"{path} is kept for {', '.join(others)}: remove it if you need none of them")
    else:
        loaded.unlink()


def _write_task(source: Source, folder: Path, reporter: Reporter, offline: bool) -> tuple[list[SourceFile], list[str]]:
    """Copy the Parquet files of a task, which kd reads as they are; a dev set is drawn from IMDB's training reviews."""
    from kdcli.tables.parquet import row_count

    imdb = source.name == "imdb"
    for file in _parquet_files(source.address, "plain_text" if imdb else source.name, reporter, offline):
        shutil.copyfile(file, folder / file.name)
    notes = []
    if imdb:
        held_out = _divide_imdb(folder)
        notes.append(f"dev is {held_out:,} of the training reviews, drawn with seed {IMDB_SEED}")
    return [SourceFile(path.name, path.stat().st_size, row_count(path)) for path in sorted(folder.iterdir())], notes


def _parquet_files(where: str, task: str, reporter: Reporter, offline: bool) -> list[Path]:
    """Return the files of a task: ``where`` is a dataset on the Hub, or a folder that holds the same files."""
    from kdcli.download.fetch import fetch_dataset
    from kdcli.tables.read import files_of

    found, hint = Path(where).expanduser(), "name a folder that holds a copy of the dataset: --url FOLDER"
    if not found.is_dir():
        reporter.info(f"the dataset {where} of the Hugging Face Hub" + (", from its cache" if offline else ""))
        hint = f"check the network and HTTPS_PROXY, or {hint}"
        found = fetch_dataset(where, [f"{task}/*.parquet"], offline=offline, hint=hint)
    files = sorted((found / task).glob("*.parquet"))
    if not files:
        raise DataError(f"there are no tables {task}/*.parquet", file=where, hint=hint)
    for file in files:  # a shard that is missing is an error
        files_of(file.with_name(re.sub(r"-\d+-of-", "-*-of-", file.name)))
    return files


def _divide_imdb(folder: Path) -> int:
    """Draw a dev set from the training reviews, which are shuffled: the Hub has all negative ones first."""
    import numpy as np
    import polars as pl

    from kdcli.tables.write import write_table

    tables = {}
    for split in ("train", "test", "unsupervised"):
        files = sorted(folder.glob(f"{split}-*.parquet"))
        if not files:
            raise DataError(f"the dataset has no {split} table", hint="name a copy of the dataset: --url FOLDER")
        tables[split] = pl.read_parquet(files).rename({"text": "sentence"})
        for file in files:
            file.unlink()
    train = tables["train"]
    order = np.random.default_rng(IMDB_SEED).permutation(len(train))
    held_out = len(train) // _IMDB_DEV
    tables |= {"train": train[order[held_out:]], "dev": train[order[:held_out]]}
    tables["unsupervised"] = tables["unsupervised"].select("sentence")
    for name, table in tables.items():
        write_table(folder / f"{name}.parquet", table)
    return held_out


def _write_files(source: Source, path: Path, folder: Path) -> list[SourceFile]:
    """Unpack word vectors or transfer sets, or copy a file of word vectors that is not packed."""
    from kdcli.download.fetch import is_archive, unpack
    from kdcli.student.vectors import VectorFile

    if source.kind == "texts":
        files = unpack(path, folder / "texts")
        return [SourceFile(file.relative_to(folder).as_posix(), file.stat().st_size) for file in files]
    if is_archive(path):
        files = unpack(path, folder / "unpacked", only=source.member)
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise DataError("the archive holds several files, not one of word vectors", file=path, hint=names)
        plain = files[0].rename(folder / files[0].name)
        shutil.rmtree(folder / "unpacked")
    else:
        plain = folder / source.file_name
        shutil.copyfile(path, plain)
    return [SourceFile(plain.name, plain.stat().st_size, VectorFile(plain).count)]


def _next_commands(source: Source, folder: Path, files: list[SourceFile]) -> list[str]:
    first = quote(str(folder / files[0].path))
    if source.kind == "vectors":
        return [f"kd run-all --profile sst2 --data-dir data/sst2 --set student.vectors={first}"]
    if source.kind == "texts":
        return ["kd transfer corpus --profile sst2 --data-dir data/sst2 --input FILE"]
    if source.name == "ax":
        return [f"kd predict --student runs/mnli/student --profile ax --input {first} --output AX.tsv"]
    start = f"--profile {source.name} --data-dir {quote(str(folder))}"
    texts = [quote(str(folder / file.path)) for file in files if file.path.startswith("unsupervised")]
    return [f"kd run-all {start}", *(f"kd transfer corpus {start} --input {path}" for path in texts)]


def _read_card(folder: Path) -> GetResult | None:
    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
        found = TypeAdapter(GetResult).validate_python({**card, "folder": folder, "done": False})
        return found if card["format"] == FORMAT else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write_card(temporary: Path, folder: Path, source: Source, files: list[SourceFile], notes: list[str]) -> GetResult:
    known = {key: getattr(source, key) for key in ("name", "kind", "address", "sha256", "cite")}
    result = GetResult(folder=folder, files=files, notes=notes, next=_next_commands(source, folder, files), **known)
    card = {"format": FORMAT, "kd": __version__, **asdict(result), "folder": str(folder)}
    (temporary / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return result


def _is_whole(found: GetResult, source: Source) -> bool:
    sizes = {found.folder / file.path: file.size for file in found.files}
    same = (found.name, found.address) == (source.name, source.address) and source.sha256 in (None, found.sha256)
    return same and all(path.is_file() and path.stat().st_size == size for path, size in sizes.items())
