"""For a plugin's own tests: the checks of the contract, a tiny task, and ``kd`` in a process of its own.

``kd plugins check NAME`` runs the same checks. Importing this module imports neither pytest nor torch.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kdcli.api import QuietReporter, Reporter
from kdcli.registry import Group
from kdcli.testing.checks import CheckOutcome, Checks, Run, run_checks, run_cli
from kdcli.testing.tiny import tiny_corpus, tiny_task, tiny_teacher

__all__ = ["CheckOutcome", "check_generator", "check_student", "check_tagger", "check_teacher"]
__all__ += ["Run", "run_cli", "tiny_corpus", "tiny_task", "tiny_teacher"]


def check_generator(plugin: Any, *, options: Mapping[str, Any] | None = None) -> list[CheckOutcome]:
    """Check that a generator plugin keeps the contract of ``kdcli.api.GeneratorPlugin``; return each outcome.

    ``plugin`` is its module, an object with the same attributes, or its installed name; ``options`` its table of a
    profile. The check fine-tunes it twice, on 40 short sentences and on 40 pairs, in a temporary folder. Choose options
    with which that takes seconds, and after which it generates texts.

    Raises:
        AssertionError: Checks have failed. It names each, with the expected and the actual behaviour.
    """
    return _assert(check_plugin("generators", plugin, options))


def check_student(plugin: Any, *, options: Mapping[str, Any] | None = None) -> list[CheckOutcome]:
    """Check a student plugin against ``kdcli.api.StudentPlugin``, with a model for each kind of task it promises.

    Small options suffice. Arguments and result are those of ``check_generator``.
    """
    return _assert(check_plugin("students", plugin, options))


def check_tagger(plugin: Any) -> list[CheckOutcome]:
    """Check that a tagger plugin keeps the contract of ``kdcli.api.TaggerPlugin``, as ``check_generator`` does."""
    return _assert(check_plugin("taggers", plugin))


def check_teacher(
    plugin: Any, *, model: str | Path = "", options: Mapping[str, Any] | None = None
) -> list[CheckOutcome]:
    """Check that a teacher plugin keeps the contract of ``kdcli.api.TeacherPlugin``.

    The check compares its logits of 40 sentences and of 40 pairs, read in several ways. ``model`` is what it loads; by
    default the folder of ``tiny_teacher``. Other arguments and the result are those of ``check_generator``.
    """
    return _assert(check_plugin("teachers", plugin, options, model=model))


def check_plugin(
    group: Group,
    plugin: Any,
    options: Mapping[str, Any] | None = None,
    *,
    model: str | Path = "",
    reporter: Reporter | None = None,
) -> list[CheckOutcome]:
    """Run all checks of a plugin's group, and raise nothing; ``model`` is what a teacher loads."""
    checks: Checks = import_module(f"kdcli.testing.{group}").CHECKS
    found, more = [], {"model": str(model)} if model else {}
    bar = (reporter or QuietReporter()).progress("check", len(checks.steps + checks.others), "checks")
    with TemporaryDirectory(prefix="kd-check-") as folder, bar as progress:
        subject = checks.subject(group, plugin, dict(options or {}), Path(folder), **more)
        for outcome in run_checks(checks, subject):
            found.append(outcome)
            progress.advance(last=outcome.check)
    return found


def _assert(found: list[CheckOutcome]) -> list[CheckOutcome]:
    if failed := [f"\n  {outcome.check}: {outcome.detail}" for outcome in found if outcome.result == "failed"]:
        raise AssertionError(f"{len(failed)} of {len(found)} checks failed{''.join(failed)}")
    return found
