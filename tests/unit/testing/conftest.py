"""Broken plugins: the fake with lines replaced, as files that another process can import too."""

import sys
from dataclasses import replace
from importlib import import_module
from inspect import getsource

import fake_plugin
import pytest

from kdcli.testing.checks import run_checks


@pytest.fixture
def broken(tmp_path_factory, monkeypatch):
    """Return a function that makes a fake's module anew with texts of its source replaced."""

    def make(*replacements, source=None):
        source = source or getsource(fake_plugin)
        for old, new in replacements:
            assert old in source, old
            source = source.replace(old, new)
        site = tmp_path_factory.mktemp("site")
        (site / "kd_broken.py").write_text(source, "utf-8")
        monkeypatch.syspath_prepend(str(site))
        sys.modules.pop("kd_broken", None)
        return import_module("kd_broken")

    return make


@pytest.fixture
def outcome_of(tmp_path_factory):
    """Return a function that runs one check, and the steps before it, which have to pass."""

    def run(group, name, given, *, model="", **options):
        checks = import_module(f"kdcli.testing.{group}").CHECKS
        function = name.replace(" ", "_")
        names = [check.__name__ for check in checks.steps]
        steps = checks.steps[: names.index(function) + 1] if function in names else checks.steps
        others = tuple(check for check in checks.others if check.__name__ == function)
        loads = {"model": model} if model else {}
        subject = checks.subject(group, given, options, tmp_path_factory.mktemp("checks"), **loads)
        *before, last = run_checks(replace(checks, steps=steps, others=others), subject)
        assert [outcome for outcome in before if outcome.result != "passed"] == []
        assert last.check == name
        return last

    return run
