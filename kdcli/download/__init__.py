"""The sources of ``kd data get``, which ``sources.toml`` lists: their addresses, and what is known of their files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import tomli

from kdcli.config.table import nearest
from kdcli.errors import UsageError

Kind = Literal["task", "vectors", "texts"]


@dataclass(frozen=True)
class Source:
    """A task, word vectors or transfer sets that ``kd data get`` gets.

    ``address`` is the URL of a file or the name of a dataset on the Hub. ``size`` and ``sha256`` are given where they
    are known for sure. ``member`` is the one file that is wanted of an archive.
    """

    name: str
    kind: Kind
    about: str
    address: str
    cite: str
    size: int | None = None
    sha256: str | None = None
    member: str = ""

    @property
    def is_dataset(self) -> bool:
        """Whether it is a dataset, and not a file."""
        return self.kind == "task"

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
