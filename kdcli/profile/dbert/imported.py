"""A config of d-bert as a profile, with an account of what became of each key."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcli import __version__
from kdcli.errors import KdError, ProfileError
from kdcli.mistakes import Mistakes, each
from kdcli.profile.dbert.config import Config, check_config, read_config
from kdcli.profile.dbert.rules import become, remarks
from kdcli.profile.schema import Settings
from kdcli.profile.toml import to_toml


@dataclass(frozen=True)
class Change:
    """A key that is not carried over as it is.

    Attributes:
        key: The key.
        value: Its value in the JSON.
        file: The JSON file that sets it.
        setting: The setting that it became; empty if it was dropped.
        now: The value of that setting.
        why: Why.
    """

    key: str
    value: Any
    file: str
    setting: str
    now: Any
    why: str


@dataclass(frozen=True)
class Imported:
    """A config of d-bert as settings of ``kd``.

    Attributes:
        file: The JSON file.
        extends: The profile that holds what the JSON does not say.
        settings: The value of each dotted setting.
        origins: The key, and the file that sets it, which each of them comes from.
        kept: The setting of each key that was carried over as it is.
        changes: The other keys: first those that were changed, then those that were dropped.
        remarks: What else differs.
        run: The command that the profile is for.
    """

    file: Path
    extends: str
    settings: Mapping[str, Any]
    origins: Mapping[str, tuple[str, Path]]
    kept: Mapping[str, str]
    changes: Sequence[Change]
    remarks: Sequence[str]
    run: str

    def to_toml(self, target: Path) -> str:
        """Write the profile, each value with the key that it comes from.

        Args:
            target: What the profile will be called.
        """
        notes = {setting: key for setting, (key, _) in self.origins.items()}
        notes |= {
            one.setting: f"{one.key} is {json.dumps(one.value)} there; {one.why}" for one in self.changes if one.setting
        }
        # A key that d-bert does not know may hold what no comment can.
        dropped = [
            f"{json.dumps(one.key)[1:-1]} = {json.dumps(one.value)}: {one.why}"
            for one in self.changes
            if not one.setting
        ]
        head = [
            f"{target.stem}: d-bert's {self.file.name} as a profile.",
            "",
            f"Run    {self.run.format(profile=target)}",
            "",
            f"kd {__version__} imported it. Behind each value stands the key of d-bert that it comes from.",
            *self.remarks,
            *(["Not carried over:", *(f"    {line}" for line in dropped)] if dropped else []),
        ]
        comment = "\n".join(f"# {line}".rstrip() for line in head)
        return f"{comment}\n\n{to_toml({'extends': self.extends, **_nested(self.settings)}, notes)}"

    def blame(self, error: KdError) -> KdError:
        """Turn what is wrong with the settings into what is wrong with the JSON, where they come from it."""
        mistakes = [self._blamed(one) for one in each(error)]
        return mistakes[0] if len(mistakes) == 1 else Mistakes(mistakes)

    def _blamed(self, error: KdError) -> KdError:
        found = self.origins.get(error.key or "")
        if found is None:
            return error
        key, file = found
        return ProfileError(f"{error.what}, as {error.key}", file=file, key=key, hint=error.hint)


def import_dbert(path: Path, *, skip_unknown: bool = False) -> Imported:
    """Turn a config of d-bert into settings.

    Args:
        path: The JSON file; what it inherits lies beside it.
        skip_unknown: Leave out keys that d-bert does not know, instead of refusing them.

    Raises:
        ProfileError: The config cannot be read, is for a model that ``kd`` has not, or has unknown keys or values of
            another type; all of these are reported (``Mistakes`` where there are several).
    """
    config = read_config(path)
    check_config(config, skip_unknown=skip_unknown)
    settings: dict[str, Any] = {}
    origins: dict[str, tuple[str, Path]] = {}
    kept: dict[str, str] = {}
    changes: list[Change] = []
    for key, value in config.values.items():
        made, why = become(key, value, config)
        setting, now = next(iter(made.items()), ("", None))
        settings |= made
        origins |= dict.fromkeys(made, (key, config.files[key]))
        if why:
            changes.append(Change(key, value, str(config.files[key]), setting, now, why))
        elif setting:
            kept[key] = setting
    changes.sort(key=lambda change: not change.setting)
    extends = settings.pop("extends", config.profile or "base")
    return Imported(path, extends, settings, origins, kept, changes, remarks(config), _run(config))


def _run(config: Config) -> str:
    if config.of_export:
        return "kd teacher export --profile {profile} --input TEXTS --output logits.safetensors"
    return f"kd {'teacher train' if config.of_teacher else 'run-all'} --profile {{profile}} --data-dir FOLDER"


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return tables inside tables, in the order that profiles have."""
    order = list(Settings.model_fields)
    tables: dict[str, Any] = {}
    for setting in sorted(settings, key=lambda setting: order.index(setting.split(".")[0])):
        *path, name = setting.split(".")
        table = tables
        for step in path:
            table = table.setdefault(step, {})
        table[name] = settings[setting]
    return tables
