"""Errors meant for the user: what went wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


class KdError(Exception):
    """A failure that the user can act on: ``what`` went wrong, in one sentence without a full stop.

    ``hint`` says what to do about it; ``file``, ``row`` (from 1 with the header as row 1) and ``key`` (the column,
    setting or option) say where.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        hint: str | None = None,
        file: str | Path | None = None,
        row: int | None = None,
        key: str | None = None,
    ) -> None:
        self.what, self.hint, self.row, self.key = what, hint, row, key
        self.file = None if file is None else str(file)
        super().__init__(what)

    def __str__(self) -> str:
        where = {"file": self.file, "row": self.row, "key": self.key}
        parts = [f"{name} {value}" for name, value in where.items() if value is not None]
        return f"{self.what} ({', '.join(parts)})" if parts else self.what


class UsageError(KdError):
    """The command line makes no sense."""

    exit_code = 2


class ProfileError(KdError):
    """A profile or setting is wrong."""

    exit_code = 3


class DataError(KdError):
    """A table or an artefact is wrong."""

    exit_code = 4


class PluginError(KdError):
    """A plugin is missing, broken or ambiguous."""

    exit_code = 5


class MissingError(KdError):
    """An extra, a model or another resource is not there."""

    exit_code = 6


class ValidationErrors(ProfileError):
    """Several errors at once, one for each wrong key."""

    def __init__(self, errors: Sequence[KdError]) -> None:
        self.errors = tuple(errors)
        codes = {error.exit_code for error in errors}
        self.exit_code = codes.pop() if len(codes) == 1 else ProfileError.exit_code
        super().__init__("; ".join(map(str, self.errors)))
        self.args = (self.errors,)  # with which it is unpickled


def raise_all(errors: Sequence[KdError]) -> NoReturn:
    """Raise the only error, or all of them as ``ValidationErrors``."""
    raise errors[0] if len(errors) == 1 else ValidationErrors(errors)


def each(error: KdError) -> tuple[KdError, ...]:
    """Return the single errors that an error holds: itself, or those of a ``ValidationErrors``."""
    return error.errors if isinstance(error, ValidationErrors) else (error,)


def first_line(error: BaseException) -> str:
    """Return the first line of what a library has raised, or the error's kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def shown(error: BaseException) -> str:
    """Return an error's kind, and the first line of its text where it has one."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
