"""What the shell completes: names that are known without importing what they name."""

from __future__ import annotations


def profile(incomplete: str) -> list[str]:
    """Complete the name of a profile."""
    from kdcli.profile.files import names

    return [name for name in names() if name.startswith(incomplete)]


def plugin(incomplete: str) -> list[str]:
    """Complete the name of a plugin of any group."""
    from kdcli.registry import GROUPS, plugins

    names = [plugin.name for group in GROUPS for plugin in plugins(group)]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def tagger(incomplete: str) -> list[str]:
    """Complete the name of a tagger."""
    from kdcli.registry import plugins

    return [plugin.name for plugin in plugins("taggers") if plugin.name.startswith(incomplete)]


def generator(incomplete: str) -> list[str]:
    """Complete the name of a generator."""
    from kdcli.registry import plugins

    return [plugin.name for plugin in plugins("generators") if plugin.name.startswith(incomplete)]
