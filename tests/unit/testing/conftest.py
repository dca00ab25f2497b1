"""Broken plugins: the fakes with a line of theirs replaced, as files that another process can import too."""

from contextlib import ExitStack
from importlib import import_module
from inspect import getsource
from itertools import count

import pytest

from kdcli.testing import fake_dist, generator_checks, student_checks, tagger_checks
from kdcli.testing.fakes import generator, student, tagger
from kdcli.testing.generator_checks import GeneratorSubject
from kdcli.testing.module_checks import Subject
from kdcli.testing.outcomes import outcomes
from kdcli.testing.student_checks import StudentSubject

FAKES = {"generators": generator, "students": student, "taggers": tagger}
CHECKS = {
    "generators": (GeneratorSubject, generator_checks.CHECKS),
    "students": (StudentSubject, student_checks.CHECKS),
    "taggers": (Subject, tagger_checks.CHECKS),
}


@pytest.fixture
def broken(tmp_path):
    """Return a function that makes a fake's module anew with texts of its source replaced."""
    made = count()

    def make(group, *replacements, source=None):
        source = source or getsource(FAKES[group])
        for old, new in replacements:
            assert old in source, old
            source = source.replace(old, new)
        folder = tmp_path / str(next(made))
        installed.enter_context(fake_dist(folder, "kd-broken", {group: {"broken": "kd_broken"}}, {"kd_broken": source}))
        return import_module("kd_broken")

    with ExitStack() as installed:
        yield make


@pytest.fixture
def outcome_of():
    """Return a function that runs one check, and those that it needs, which have to pass."""

    def run(group, name, given, **options):
        kind, checks = CHECKS[group]
        wanted = {name}
        for check in reversed(checks):
            if check.name in wanted:
                wanted |= {needed.__name__.replace("_", " ") for needed in check.needs}
        some = [check for check in checks if check.name in wanted]
        subject = kind(group, given, options)
        if isinstance(subject, GeneratorSubject):
            with subject:
                *before, last = outcomes(some, subject)
        else:
            *before, last = outcomes(some, subject)
        assert [outcome for outcome in before if outcome.result != "passed"] == []
        assert last.check == name
        return last

    return run
