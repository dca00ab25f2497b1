"""A JSON config of d-bert, with all that it inherits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcli.errors import KdError, ProfileError
from kdcli.mistakes import nearest, raise_all
from kdcli.profile.dbert.keys import ANY_TEXTS, KEYS, OTHERS, PROFILES, RAW, TEACHER

INHERITS = "_inherits_"
_TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes"}
_IMPORTED = "kd imports BiRNN and SiameseRNN (birnn_*.json, siarnn_*.json) and teachers (*-ft.json, *_export.json)"


@dataclass(frozen=True)
class Config:
    """A JSON config with all that it inherits.

    Attributes:
        path: The file.
        values: The value of each key that is set.
        files: The file that set it.
    """

    path: Path
    values: Mapping[str, Any]
    files: Mapping[str, Path]

    @property
    def of_teacher(self) -> bool:
        """Whether it is one of ``finetune.classifier``; else it is one of a student."""
        return any(key in TEACHER for key in self.values)

    @property
    def of_export(self) -> bool:
        """Whether it takes the teacher as fine-tuned, to export its logits."""
        given = self.values
        tests_only = given.get("do_test_only") or given.get("do_train") is False
        return self.of_teacher and bool(tests_only or self._task in RAW)

    @property
    def profile(self) -> str:
        """The profile of its task, told by the data set, else by the file's name; empty if there is none."""
        return self.named if self._task in ("", *ANY_TEXTS) else PROFILES.get(self._task, "")

    @property
    def named(self) -> str:
        """The profile of the task that the file's name speaks of; empty if there is none."""
        words = re.split(r"[\W_]+", self.path.stem.lower())
        return next((PROFILES[word] for word in words if word in PROFILES), "")

    @property
    def _task(self) -> str:
        return str(self.values.get("dataset_name") or self.values.get("task_name") or "").lower()


def read_config(path: Path) -> Config:
    """Read a config and what it inherits: its own keys count, then those of the first file that it names.

    Raises:
        ProfileError: A file is missing, cannot be read, is no JSON object, or the files inherit each other in a circle.
    """
    values: dict[str, Any] = {}
    files: dict[str, Path] = {}
    _inherit(path, (), values, files)
    return Config(path, values, files)


def check_config(config: Config, *, skip_unknown: bool = False) -> None:
    """Refuse a config that cannot be imported.

    Args:
        config: The config.
        skip_unknown: Let keys pass that d-bert does not know.

    Raises:
        ProfileError: It is for a model or program that ``kd`` has not, or has unknown keys or values of another type,
            each of which is reported.
    """
    given, stem = set(config.values), config.path.stem.lower()
    for key, (what, hint) in OTHERS.items():
        if key in given:
            raise ProfileError(f"this is {what}, not a config of a run", file=config.path, hint=hint)
    no_rnn = "output_channel" in given and not given & {"hidden_size", "fc_size", "rnn_type"}
    for model, meant in {"KimCNN": "kim_cnn" in stem or no_rnn, "ConvRNN": "conv_rnn" in stem}.items():
        if meant:
            what = f"this is a config of {model}, a student that kd has not"
            raise ProfileError(what, file=config.path, hint=_IMPORTED)
    mistakes = [_mistake(key, value, config, skip_unknown) for key, value in config.values.items()]
    if found := [mistake for mistake in mistakes if mistake]:
        raise_all(found)


def _mistake(key: str, value: Any, config: Config, skip_unknown: bool) -> KdError | None:
    file = config.files[key]
    if key not in KEYS:
        close = nearest(key, KEYS)
        hint = "--skip-unknown leaves such keys out"
        hint = f"did you mean {close}? {hint}" if close else hint
        return None if skip_unknown else ProfileError("d-bert has no such key", file=file, key=key, hint=hint)
    kind = KEYS[key].kind
    fits = isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (kind is bool)
    if value is None or fits:
        return None
    return ProfileError(f"{json.dumps(value)} stands where {_TYPES[kind]} is needed", file=file, key=key)


def _inherit(path: Path, heirs: tuple[Path, ...], values: dict[str, Any], files: dict[str, Path]) -> None:
    if path.resolve() in [heir.resolve() for heir in heirs]:
        circle = " -> ".join(file.name for file in (*heirs, path))
        raise ProfileError(f"the configs inherit each other in a circle: {circle}", file=heirs[-1], key=INHERITS)
    given = _read(path, heirs)
    for key, value in given.items():
        if key != INHERITS and key not in values:
            values[key], files[key] = value, path
    wanted = given.get(INHERITS, [])
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
        raise ProfileError("it names one file to inherit, or a list of them", file=path, key=INHERITS)
    for name in wanted:
        _inherit(path.parent / name, (*heirs, path), values, files)


def _read(path: Path, heirs: tuple[Path, ...]) -> dict[str, Any]:
    try:
        given = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        if heirs:
            what = f"there is no file {path} to inherit"
            hint = "a config needs those beside it: take the whole folder confs of d-bert"
            raise ProfileError(what, file=heirs[-1], key=INHERITS, hint=hint) from error
        raise ProfileError("there is no such file", file=path, hint="d-bert has its configs in confs/") from error
    except OSError as error:
        raise ProfileError(f"the config cannot be read: {error.strerror}", file=path) from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"this is not UTF-8, at byte {error.start + 1}", file=path) from error
    except json.JSONDecodeError as error:
        what = f"this is not JSON: {error.msg}, at column {error.colno}"
        raise ProfileError(what, file=path, row=error.lineno, hint="names and texts stand in double quotes") from error
    if not isinstance(given, dict):
        what = f"a config is a JSON object, and this is a {type(given).__name__}"
        raise ProfileError(what, file=path, hint="options.json, for one, is d-bert's list of command-line options")
    return given
