"""How each kind of source becomes files that the other commands take."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from kdcli.api import Reporter
from kdcli.download.sources import Source
from kdcli.errors import DataError


@dataclass(frozen=True)
class File:
    """A file that was had.

    Attributes:
        path: Where it is in its folder.
        size: Its bytes.
        rows: Its rows, where it has any.
        holds: What it is, where that is no matter of course.
    """

    path: str
    size: int
    rows: int | None = None
    holds: str = ""


@dataclass(frozen=True)
class Made:
    """What a source has become.

    Attributes:
        files: What is there.
        next: Commands that take it.
        notes: What was done to it.
    """

    files: list[File]
    next: list[str]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Work:
    """Where a source is made, and how.

    Attributes:
        temporary: The folder to write.
        folder: What it will be called.
        reporter: Shows the progress.
    """

    temporary: Path
    folder: Path
    reporter: Reporter


def make_task(source: Source, work: Work, *, offline: bool) -> Made:
    """Write the tables of a task.

    Args:
        source: The task.
        work: Where to.
        offline: Download nothing.

    Raises:
        MissingError: The dataset cannot be had, or the extra ``data`` is missing.
        DataError: It is not of the form that is known.
    """
    from kdcli.download import glue, imdb
    from kdcli.download.hub import open_splits
    from kdcli.download.split_files import write_splits

    layout = glue.TASKS.get(source.name)
    files = layout.files(source.name) if layout else imdb.FILES
    with open_splits(source.address, files, work.reporter, offline=offline) as splits:
        tables = glue.glue_tables(source.name, splits) if layout else imdb.imdb_tables(splits)
        written = write_splits(work.temporary, tables, no_header=layout.no_header if layout else ())
    notes = []
    if layout is None:
        notes.append(f"dev is {tables['dev'].num_rows:,} of the training reviews, drawn with seed {imdb.SEED}")
    elif layout.leaves_out:
        notes.append(f"columns of GLUE's that the Hub leaves out hold {glue.UNKNOWN!r}")
    if any(path.suffix == ".parquet" for path in written):
        notes.append("a text holds a tab or a line end, which TSV has no place for: the tables are .parquet")
    found = [File(path.name, path.stat().st_size, rows) for path, rows in written.items()]
    return Made(found, _after_task(source.name, work, found), notes)


def _after_task(name: str, work: Work, files: list[File]) -> list[str]:
    if name == "ax":
        table = quote(str(work.folder / files[0].path))
        return [f"kd predict --student runs/mnli/student --profile ax --input {table} --output AX.tsv"]
    start = f"--profile {name} --data-dir {quote(str(work.folder))}"
    texts = [quote(str(work.folder / file.path)) for file in files if file.path.startswith("unsupervised")]
    return [f"kd run-all {start}", *(f"kd transfer corpus {start} --input {path}" for path in texts)]


def make_vectors(source: Source, archive: Path, work: Work) -> Made:
    """Convert word vectors into one file, ``NAME.safetensors``.

    Args:
        source: The word vectors.
        archive: The file they are in, packed or not.
        work: Where to.

    Raises:
        DataError: It is damaged, or holds no word vectors.
    """
    from safetensors import safe_open

    from kdcli.download.archive_forms import form_of_archive
    from kdcli.download.archives import unpack
    from kdcli.student.converted import convert

    output = work.temporary / f"{source.name}.safetensors"
    plain, unpacked = archive, work.temporary / "unpacked"
    if form_of_archive(archive) in ("zip", "tar"):
        plain, *more = unpack(archive, unpacked, only=source.member, reporter=work.reporter)
        if more:
            names = ", ".join(path.name for path in (plain, *more))
            raise DataError("the archive holds several files, not one of word vectors", file=archive, hint=names)
    convert(plain, output, work.reporter)
    if unpacked.exists():
        shutil.rmtree(unpacked)
    with safe_open(output, "numpy") as tensors:
        words = tensors.get_slice("hashes").get_shape()[0]
    vectors = quote(str(work.folder / output.name))
    command = f"kd run-all --profile sst2 --data-dir data/sst2 --set student.vectors={vectors}"
    return Made([File(output.name, output.stat().st_size, words)], [command])


def make_texts(source: Source, archive: Path, work: Work) -> Made:
    """Unpack transfer sets.

    Args:
        source: The transfer sets.
        archive: The file they are in.
        work: Where to.

    Raises:
        DataError: It is no archive, or a damaged or malicious one.
    """
    from kdcli.download.archives import unpack
    from kdcli.download.transfer_sets import look, next_commands

    unpacked = unpack(archive, work.temporary, reporter=work.reporter)
    found = look(work.temporary, unpacked)
    renamed = [file.path.as_posix() for file in found if work.temporary / file.path not in unpacked]
    notes = [f"names that told no form of a table: now it is {', '.join(renamed)}"] if renamed else []
    files = [File(file.path.as_posix(), file.size, file.rows, file.holds) for file in found]
    return Made(files, list(next_commands(work.folder, found)), notes)
