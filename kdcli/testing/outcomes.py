"""A check of a plugin, what comes of it, and how a list of them is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from kdcli.config.validation import each
from kdcli.errors import KdError, shown
from kdcli.registry import Plugin
from kdcli.registry.loading import place

Result = Literal["passed", "failed", "skipped", "warned"]


class Known(Protocol):
    """Tells which plugin is checked."""

    @property
    def known(self) -> Plugin:
        """What is known about the plugin."""
        ...


Checked = TypeVar("Checked", bound=Known)
"""What the checks of a list have in common: the plugin, and what has been made with it so far."""


@dataclass(frozen=True)
class Outcome:
    """What came of a check.

    Attributes:
        check: The name of the check.
        result: ``passed``, ``failed``, ``skipped`` (it does not apply, or what it needs has failed) or ``warned``.
        detail: What was found; of a failure what was expected, what came, and where the contract says so.
    """

    check: str
    result: Result
    detail: str


class Failure(Exception):
    """A plugin does not do what the contract says.

    Args:
        expected: What the contract asks for.
        came: What came instead.
    """

    def __init__(self, expected: str, came: str) -> None:
        super().__init__(f"expected {expected}; came {came}")
        self.expected = expected
        self.came = came


class Warned(Failure):
    """A plugin works, and yet does what will trouble somebody."""


class Skipped(Exception):
    """A check does not apply: its text says why."""


@dataclass(frozen=True)
class Check(Generic[Checked]):
    """One check.

    Attributes:
        run: Does it, and returns what it found; raises ``Failure``, ``Warned`` or ``Skipped``.
        see: Where the contract says what is expected.
        needs: The checks without which it makes no sense.
    """

    run: Callable[[Checked], str]
    see: str
    needs: tuple[Callable[[Checked], str], ...] = ()

    @property
    def name(self) -> str:
        """What it is called: the name of its function, in words."""
        return _name(self.run)


def expect(holds: bool, expected: str, came: object) -> None:
    """Raise a failure unless something holds."""
    if not holds:
        raise Failure(expected, str(came))


def told(errors: Iterable[KdError]) -> str:
    """Put errors for the user into one line, each with its hint."""
    every = [one for error in errors for one in each(error)]
    return "; ".join(f"{one} ({one.hint})" if one.hint else str(one) for one in every)


def outcomes(checks: Sequence[Check[Checked]], checked: Checked) -> Iterator[Outcome]:
    """Run checks one after the other; one whose needs have not passed is skipped."""
    results: dict[str, Result] = {}
    for check in checks:
        lacking = [name for name in map(_name, check.needs) if results[name] not in ("passed", "warned")]
        if lacking:
            outcome = Outcome(check.name, "skipped", f"it needs what has not passed: {', '.join(lacking)}")
        else:
            outcome = _outcome(check, checked)
        results[check.name] = outcome.result
        yield outcome


def _outcome(check: Check[Checked], checked: Checked) -> Outcome:
    try:
        return Outcome(check.name, "passed", check.run(checked))
    except Skipped as reason:
        return Outcome(check.name, "skipped", str(reason))
    except Warned as reason:
        return Outcome(check.name, "warned", f"{reason}; see {check.see}")
    except Failure as reason:
        return Outcome(check.name, "failed", f"{reason}; see {check.see}")
    except KdError as error:
        return Outcome(check.name, "failed", f"expected no error; came {told([error])}; see {check.see}")
    except (Exception, SystemExit) as error:  # whatever a plugin may do
        file, row = place(error, checked.known)
        where = f" ({file}, line {row})" if row else ""
        return Outcome(check.name, "failed", f"expected no error; came {shown(error)}{where}; see {check.see}")


def _name(run: Callable[..., Any]) -> str:
    return run.__name__.replace("_", " ").strip()
