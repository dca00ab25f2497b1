"""``kdcli.testing`` as pytest fixtures of the same names.

A ``conftest.py`` asks for them: ``pytest_plugins = ["kdcli.testing.fixtures"]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kdcli import testing
from kdcli.api import Corpus, Task
from kdcli.testing import Outcome, Run

Check = Callable[..., list[Outcome]]


@pytest.fixture
def check_generator() -> Check:
    """Return ``kdcli.testing.check_generator``."""
    return testing.check_generator


@pytest.fixture
def check_student() -> Check:
    """Return ``kdcli.testing.check_student``."""
    return testing.check_student


@pytest.fixture
def check_tagger() -> Check:
    """Return ``kdcli.testing.check_tagger``."""
    return testing.check_tagger


@pytest.fixture
def tiny_task() -> Callable[..., Task]:
    """Return ``kdcli.testing.tiny_task``."""
    return testing.tiny_task


@pytest.fixture
def tiny_corpus() -> Callable[..., Corpus]:
    """Return ``kdcli.testing.tiny_corpus``."""
    return testing.tiny_corpus


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., Run]:
    """Return ``kdcli.testing.run_cli``, which runs in the test's own folder by default."""

    def run(*arguments: object, cwd: str | Path | None = None) -> Run:
        return testing.run_cli(*arguments, cwd=cwd or tmp_path)

    return run


@pytest.fixture
def fake_dist(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return ``fake_dist(name, entry_points, modules)``: installed in the test's own folder, until the test ends."""
    with ExitStack() as stack:

        def install(name: str, *arguments: Any, **more: Any) -> Path:
            return stack.enter_context(testing.fake_dist(tmp_path, name, *arguments, **more))

        yield install
