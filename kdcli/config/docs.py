"""``kd profile show --docs``: every setting of a profile, with what it means, what it takes and where it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from pydantic import BaseModel

from kdcli import registry
from kdcli.config.load import Profile
from kdcli.config.options import Option, options_of
from kdcli.config.schema import Settings
from kdcli.config.toml import inline, quoted
from kdcli.errors import KdError

WIDTH = 110
_OF_PLUGINS: tuple[registry.Group, ...] = ("students", "generators")


@dataclass(frozen=True)
class Explained:
    """A setting of a profile.

    Attributes:
        option: What it is.
        value: Its value, None where it is unset.
        origin: Where that came from.
    """

    option: Option
    value: Any
    origin: str


@dataclass(frozen=True)
class Chapter:
    """A table of a profile.

    Attributes:
        table: Its dotted name, empty for what stands above all tables.
        about: What it is for.
        settings: What stands in it.
    """

    table: str
    about: str
    settings: list[Explained]


@dataclass(frozen=True)
class Docs:
    """A profile explained.

    Attributes:
        chapters: Its tables in order, those of all installed plugins among them.
        warnings: Plugins that cannot be explained.
    """

    chapters: list[Chapter]
    warnings: list[str]

    def to_toml(self, name: str) -> str:
        """Write it as a profile of the same settings, with comments."""
        blocks = [[f"# {name}, every setting explained"]]
        for chapter in self.chapters:
            if chapter.table:
                blocks.append([*_comment(chapter.about), f"[{_header(chapter.table)}]"])
            for setting in chapter.settings:
                blocks.append([*_comment(setting.option.about), f"# {_facts(setting)}", _line(setting)])
        return "\n\n".join("\n".join(lines) for lines in blocks) + "\n"


def explain(profile: Profile) -> Docs:
    """Explain every setting of a profile; plugins that it does not choose have their defaults."""
    values = profile.settings.model_dump(mode="json")
    own = [option for option in options_of(Settings) if option.key not in _OF_PLUGINS]
    chapters = _chapters(own, values, profile.origins, _abouts(Settings))
    warnings: list[str] = []
    for group in _OF_PLUGINS:
        for name, plugin in _plugins(group, profile).items():
            try:
                module: Any = registry.load(group, plugin.full_name)
            except KdError as error:
                if name not in values[group]:  # of one that the profile has a table for, its loading has warned
                    warnings.append(f"{group}.{name} is not explained: {error.what}")
                continue
            about = " ".join(registry.about(module).split())
            abouts = {f"{group}.{name}": f"{about} ({plugin.distribution} {plugin.version})".strip()}
            chapters += _chapters(options_of(module.Options, f"{group}.{name}."), values, profile.origins, abouts)
    return Docs(chapters, warnings)


def _plugins(group: registry.Group, profile: Profile) -> dict[str, registry.Plugin]:
    """Return the plugins of a group by the name of their tables; of two with one name, the chosen one."""
    settings = profile.settings
    chosen = registry.find(group, settings.student.model if group == "students" else settings.transfer.generator)
    there = sorted(registry.plugins(group), key=lambda plugin: not plugin.is_ours)
    return {plugin.name: plugin for plugin in reversed(there)} | {chosen.name: chosen}


def _chapters(
    options: Iterable[Option], values: Mapping[str, Any], origins: Mapping[str, str], abouts: Mapping[str, str]
) -> list[Chapter]:
    tables: dict[str, list[Explained]] = {"": []}  # in TOML, what is in no table comes first
    for option in options:
        inside = (origin for key, origin in origins.items() if f"{key}.".startswith(f"{option.key}."))
        explained = Explained(option, _value(option, values), next(inside, "default"))
        tables.setdefault(option.key.rpartition(".")[0], []).append(explained)
    return [Chapter(table, abouts.get(table, ""), settings) for table, settings in tables.items() if settings]


def _value(option: Option, values: Any) -> Any:
    for name in option.key.split("."):
        if name not in values:  # of a plugin that the profile has no table for
            return option.default
        values = values[name]
    return values


def _abouts(model: type[BaseModel], table: str = "") -> dict[str, str]:
    """Return the first line of each table's docstring, by the table's name."""
    found = {table: (model.__doc__ or "").partition("\n")[0]} if table else {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= _abouts(field.annotation, f"{table}.{name}" if table else name)
    return found


def _header(table: str) -> str:
    return ".".join(quoted(name) for name in table.split("."))


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in wrap(text, WIDTH)]


def _facts(setting: Explained) -> str:
    option = setting.option
    if option.required:
        default = "required"
    else:
        default = "default: unset" if option.default is None else f"default: {inline(option.default)}"
    return f"{option.type}; {default}" + ("" if setting.origin == "default" else f"; from {setting.origin}")


def _line(setting: Explained) -> str:
    name = quoted(setting.option.key.rpartition(".")[2])
    return f"# {name} =" if setting.value is None else f"{name} = {inline(setting.value)}"
