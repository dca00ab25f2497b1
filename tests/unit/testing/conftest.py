"""Broken plugins: the fake with lines replaced, as files that another process can import too."""

from contextlib import ExitStack
from importlib import import_module
from inspect import getsource

import fake_plugin
import pytest

from kdcli.testing import fake_dist
from kdcli.testing.checks import run_checks


@pytest.fixture
def broken(tmp_path_factory):
    """Return a function that makes a fake's module anew with texts of its source replaced."""
    with ExitStack() as stack:

        def make(group, *replacements, source=None):
            source = source or getsource(fake_plugin)
            for old, new in replacements:
                assert old in source, old
                source = source.replace(old, new)
            entry_points, modules = {group: {"broken": "kd_broken"}}, {"kd_broken": source}
            stack.enter_context(fake_dist(tmp_path_factory.mktemp("site"), "kd-broken", entry_points, modules))
            return import_module("kd_broken")

        yield make


@pytest.fixture
def outcome_of(tmp_path_factory):
    """Return a function that runs one check, and those that it needs, which have to pass."""

    def run(group, name, given, *, model="", **options):
        module = import_module(f"kdcli.testing.{group}")
        wanted = {name}
        for check in reversed(module.CHECKS):
            if check.names[0] in wanted:
                wanted |= {needed.__name__.replace("_", " ") for needed in check.needs}
        some = [check for check in module.CHECKS if check.names[0] in wanted]
        loads = {"model": model} if model else {}
        subject = module.SUBJECT(group, given, options, tmp_path_factory.mktemp("checks"), **loads)
        *before, last = run_checks(some, subject)
        assert [outcome for outcome in before if outcome.result != "passed"] == []
        assert last.check == name
        return last

    return run
