"""Archives from elsewhere, unpacked without believing them."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path, PureWindowsPath

from kdcli.api import Progress, QuietReporter, Reporter
from kdcli.download.archive_forms import AGAIN, BadArchive, Budget, Member, members, readable
from kdcli.errors import KdError
from kdcli.files import atomic

_CHUNK = 1 << 20
_LONGEST_PART = 255
_LONGEST_NAME = 4096


def unpack(archive: Path, folder: Path, *, only: str = "", reporter: Reporter | None = None) -> list[Path]:
    """Unpack an archive into a folder, which appears when all is there.

    Args:
        archive: A zip, tar, tar.gz or gz, told by its bytes.
        folder: The folder to write; one that is there gives way.
        only: Unpack the file of this name alone, in whatever folder of the archive it is.
        reporter: Shows the progress.

    Returns:
        The files, in the archive's order, as paths in ``folder``.

    Raises:
        BadArchive: The archive is damaged, encrypted or of another form, holds a name that leads out of the folder, the
            same name twice, or anything but files and folders, unpacks to an absurd size, or lacks ``only``.
        KdError: The disk is full, or has too little room.
    """
    places, found = _Places(archive), []
    title = f"unpacking {archive.name}"
    with (
        readable(archive),
        atomic(folder) as temporary,
        (reporter or QuietReporter()).progress(title, unit="bytes") as progress,
    ):
        temporary.mkdir()
        budget = Budget(archive)
        for member in members(archive):
            place = places.take(member)
            if place is not None and only in ("", place.name):
                _check_room(member, folder, budget)
                _copy(member, temporary / place, budget, progress)
                found.append(folder / place)
        if not found:
            raise BadArchive(f"the archive holds no {only or 'files'}", file=archive, hint=places.listed())
    return found


def _check_room(member: Member, folder: Path, budget: Budget) -> None:
    """Refuse a size that is absurd, or for which there is no room, before anything is written."""
    if member.size is None:
        return
    if member.size > budget.left:
        raise budget.absurd()
    free = shutil.disk_usage(folder.parent).free
    if member.size > free:
        what = f"the disk has too little room: {member.name} has {member.size:,} bytes, and {free:,} are free"
        raise KdError(what, file=folder, hint="free some space, or name another place with --output")


def _copy(member: Member, path: Path, budget: Budget, progress: Progress) -> None:
    """Write a file, counting what comes and not what was announced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert member.open is not None
    with member.open() as source, path.open("xb") as sink:
        while chunk := source.read(_CHUNK):
            budget.spend(len(chunk))
            sink.write(chunk)
            progress.advance(len(chunk))
        if member.size not in (None, sink.tell()):
            what = f"{member.name} has {sink.tell():,} bytes where {member.size:,} were announced"
            raise BadArchive(f"the archive is damaged: {what}", file=budget.archive, hint=AGAIN)


class _Places:
    """The names taken so far in the folder that an archive is unpacked into."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.files: dict[str, Path] = {}
        self.folders: set[str] = set()

    def take(self, member: Member) -> Path | None:
        """Return where in the folder a file goes; None for a folder, which comes with its files.

        Raises:
            BadArchive: The name leads out of the folder, or is taken.
        """
        path = Path(*self._parts(member.name))
        if member.open is None:
            return None
        # Some file systems take names for the same that differ in case, or in how an accent is written.
        own, *above = [unicodedata.normalize("NFC", str(step)).casefold() for step in (path, *path.parents)]
        if own in self.files or own in self.folders or not path.name or not self.files.keys().isdisjoint(above):
            what = f"the archive holds {member.name!r} twice, or as a file and a folder"
            raise BadArchive(what, file=self.archive, hint=AGAIN)
        self.files[own] = path
        self.folders.update(above)
        return path

    def listed(self) -> str:
        """Return a hint that names the first files."""
        names = [path.as_posix() for path in self.files.values()]
        return f"it holds {', '.join(names[:10])}" if names else AGAIN

    def _parts(self, name: str) -> tuple[str, ...]:
        """Return the steps of a name, which must stay in the folder on every system."""
        path = PureWindowsPath(name)  # knows both kinds of slash, and drives
        too_long = len(name) > _LONGEST_NAME or any(
            len(part.encode("utf-8", "replace")) > _LONGEST_PART for part in path.parts
        )
        if path.anchor or ".." in path.parts or too_long or not name.isprintable():
            what = f"the archive holds a name that leads out of its folder: {name!r}"
            raise BadArchive(what, file=self.archive, hint="it is not what it pretends to be: remove it")
        return path.parts
