"""Settings that are options on the command line: each says so with a ``Flag`` beside its type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from kdcli.registry import Group


@dataclass(frozen=True)
class Flag:
    """The option of a setting; its help is the setting's docstring.

    Attributes:
        panel: The panel of the help that shows it.
        metavar: What stands for its value there.
        names: Its names, by default the setting's own with dashes: ``transfer.lite.n_iter`` is ``--n-iter``.
        plugins: The group of plugins whose names the shell completes.
    """

    panel: str
    metavar: str | None = None
    names: tuple[str, ...] = ()
    plugins: Group | None = None


@dataclass(frozen=True)
class FlagSetting:
    """A setting that is an option: its dotted key, its field and its ``Flag``."""

    key: str
    field: FieldInfo
    flag: Flag

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the option, the long one first."""
        return self.flag.names or (f"--{self.key.rpartition('.')[2].replace('_', '-')}",)


def flags_of(model: type[BaseModel], name: str) -> Iterator[FlagSetting]:
    """Go through the settings of a table that are options.

    Args:
        model: The settings.
        name: A table (``transfer.lite``, without the tables inside it) or one setting (``transfer.lite.n_iter``).
    """
    *path, last = name.split(".")
    table: Any = model
    for part in path:
        table = table.model_fields[part].annotation
    field = table.model_fields[last]
    inside = getattr(field.annotation, "model_fields", None)
    fields, prefix = ({last: field}, name.removesuffix(last)) if inside is None else (inside, f"{name}.")
    for own, one in fields.items():
        yield from (FlagSetting(prefix + own, one, flag) for flag in one.metadata if isinstance(flag, Flag))
