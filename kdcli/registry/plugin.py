"""What is known about a plugin without running it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from kdcli.registry.code_files import CodeFile

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from pathlib import Path

Group = Literal["generators", "students", "taggers"]
GROUPS: tuple[Group, ...] = get_args(Group)
KEYS: Mapping[Group, str] = {
    "generators": "transfer.generator",
    "students": "student.model",
    "taggers": "transfer.lite.tagger",
}
"""The setting that chooses a plugin of a group."""
OURS = "kdcli"
"""The distribution whose plugins are always seen, and come before others of the same name."""


@dataclass(frozen=True)
class Plugin:
    """What is known about a plugin without running it.

    Attributes:
        group: Its group.
        name: Its name.
        distribution: The distribution it comes with, or the name of its file.
        version: The version of that, or the beginning of the file's SHA-256.
        module: What its entry point names, or the path of its file.
        source: Loads it.
    """

    group: Group
    name: str
    distribution: str
    version: str
    module: str
    source: EntryPoint | CodeFile = field(repr=False, compare=False)

    @property
    def full_name(self) -> str:
        """The name that is never ambiguous: ``DISTRIBUTION:NAME``."""
        return f"{self.distribution}:{self.name}"

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"the {self.group.removesuffix('s')} plugin {self.full_name}"

    @property
    def file(self) -> Path | None:
        """The file of ``--code`` that it is, or None where it is installed."""
        return self.source.path if isinstance(self.source, CodeFile) else None

    @property
    def is_ours(self) -> bool:
        """Whether it comes with ``kd``."""
        return normal(self.distribution) == OURS

    @property
    def summary(self) -> str:
        """The line that its distribution says about itself, where it says one."""
        return next(iter(self._said("Summary")), "")

    @property
    def home_page(self) -> str:
        """The URL of its distribution's home, or of the next best thing that it names."""
        urls = [url.partition(",") for url in self._said("Project-URL")]
        homes = [url.strip() for label, _, url in urls if normal(label.strip()) in ("homepage", "home-page", "home")]
        return next(iter([*homes, *self._said("Home-page"), *(url.strip() for _, _, url in urls)]), "")

    def _said(self, field: str) -> list[str]:
        """Return what the metadata of its distribution say in a field, each time that it is there."""
        distribution = getattr(self.source, "dist", None)
        return [str(value) for value in distribution.metadata.get_all(field) or ()] if distribution else []

    def is_called(self, name: str) -> bool:
        """Return whether a name, with or without a distribution, is this plugin's."""
        distribution, _, short = name.rpartition(":")
        return short == self.name and same(distribution, self.distribution)

    @property
    def remedy(self) -> str:
        """What to do where it is broken."""
        if self.file:
            return f"mend {self.file}"
        if self.is_ours:
            return f"install kd again: pip install --force-reinstall {OURS}"
        return f"update or remove it: pip install -U {self.distribution}, or pip uninstall {self.distribution}"


def normal(distribution: str) -> str:
    """Return the name of a distribution as it is compared: ``Kd_Own`` is ``kd-own``."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def table_name(name: str) -> str:
    """Return what a plugin's table of a profile is called: its name, without the distribution before it."""
    return name.rpartition(":")[2]


def same(wanted: str, distribution: str) -> bool:
    """Return whether a distribution is the one that is wanted; an empty text wants any."""
    return not wanted or normal(wanted) == normal(distribution)
