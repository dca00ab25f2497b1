"""The checks of a whole plugin: for a test, and for ``kd plugins check``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kdcli.api import QuietReporter, Reporter
from kdcli.registry import Group
from kdcli.testing import generator_checks, student_checks, tagger_checks
from kdcli.testing.generator_checks import GeneratorSubject
from kdcli.testing.module_checks import Subject
from kdcli.testing.outcomes import Check, Outcome, outcomes
from kdcli.testing.student_checks import StudentSubject

CHECKS: Mapping[Group, tuple[type[Subject], tuple[Check[Any], ...]]] = {
    "generators": (GeneratorSubject, generator_checks.CHECKS),
    "students": (StudentSubject, student_checks.CHECKS),
    "taggers": (Subject, tagger_checks.CHECKS),
}
"""For each group, what its checks look at, and the checks."""


def check_generator(plugin: Any, *, options: Mapping[str, Any] | None = None) -> list[Outcome]:
    """Check that a generator plugin keeps the contract of ``kdcli.api.Generator``.

    It is fine-tuned twice, on 40 short sentences and on 40 pairs, in a temporary folder; choose options with which that
    takes seconds, and with which it says something after that.

    Args:
        plugin: The plugin's module, an object that has what the module would have, or the name of an installed plugin.
        options: Its table of a profile.

    Returns:
        What came of each check; none has failed.

    Raises:
        AssertionError: Checks have failed; names each of them, with what was expected and what came.
    """
    return _assert(check_plugin("generators", plugin, options))


def check_student(plugin: Any, *, options: Mapping[str, Any] | None = None) -> list[Outcome]:
    """Check that a student plugin keeps the contract of ``kdcli.api.Student``.

    A model is built for each kind of task that its flags promise; ``fast`` and ``to_onnx`` are compared with the module
    where the plugin has them.

    Args:
        plugin: The plugin's module, an object that has what the module would have, or the name of an installed plugin.
        options: Its table of a profile; small ones are as good as any.

    Returns:
        What came of each check; none has failed.

    Raises:
        AssertionError: Checks have failed; names each of them, with what was expected and what came.
    """
    return _assert(check_plugin("students", plugin, options))


def check_tagger(plugin: Any) -> list[Outcome]:
    """Check that a tagger plugin keeps the contract of ``kdcli.api.Tagger``.

    Args:
        plugin: The plugin's module, an object that has what the module would have, or the name of an installed plugin.

    Returns:
        What came of each check; none has failed.

    Raises:
        AssertionError: Checks have failed; names each of them, with what was expected and what came.
    """
    return _assert(check_plugin("taggers", plugin))


def check_plugin(
    group: Group, plugin: Any, options: Mapping[str, Any] | None = None, *, reporter: Reporter | None = None
) -> list[Outcome]:
    """Run all checks of a plugin's group, and raise nothing.

    Args:
        group: The plugin's group.
        plugin: The plugin's module, an object that has what the module would have, or the name of an installed plugin.
        options: Its table of a profile.
        reporter: Shows the progress.
    """
    make_subject, checks = CHECKS[group]
    found = []
    with (
        TemporaryDirectory(prefix="kd-check-") as folder,
        (reporter or QuietReporter()).progress("check", len(checks), "checks") as progress,
    ):
        subject = make_subject(group, plugin, dict(options or {}), Path(folder))
        with redirect_stdout(subject.stdout):
            for outcome in outcomes(checks, subject):
                found.append(outcome)
                progress.advance(last=outcome.check)
    return found


def _assert(found: list[Outcome]) -> list[Outcome]:
    failed = [outcome for outcome in found if outcome.result == "failed"]
    for outcome in found:
        if outcome.result == "warned":
            warnings.warn(f"{outcome.check}: {outcome.detail}", stacklevel=3)
    if failed:
        lines = [f"\n  {outcome.check}: {outcome.detail}" for outcome in failed]
        raise AssertionError(f"{len(failed)} of {len(found)} checks failed{''.join(lines)}")
    return found
