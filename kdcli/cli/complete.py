"""What the shell completes: names that are known without importing what they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdcli.registry import Group


def profile(incomplete: str) -> list[str]:
    """Complete the name of a profile."""
    from kdcli.config.files import names

    return [name for name in names() if name.startswith(incomplete)]


def plugin(incomplete: str) -> list[str]:
    """Complete the name of a plugin of any group."""
    from kdcli.registry import GROUPS, plugins

    names = [plugin.name for group in GROUPS for plugin in plugins(group)]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def tagger(incomplete: str) -> list[str]:
    """Complete the name of a tagger."""
    return _of_group("taggers", incomplete)


def generator(incomplete: str) -> list[str]:
    """Complete the name of a generator."""
    return _of_group("generators", incomplete)


def _of_group(group: Group, incomplete: str) -> list[str]:
    from kdcli.registry import plugins

    return [plugin.name for plugin in plugins(group) if plugin.name.startswith(incomplete)]
