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


def _fixture(name: str) -> Any:
    return pytest.fixture(name=name)(lambda: getattr(testing, name))


check_generator, check_student, check_tagger, check_teacher = map(
    _fixture, ("check_generator", "check_student", "check_tagger", "check_teacher")
)
tiny_task, tiny_corpus, tiny_teacher = map(_fixture, ("tiny_task", "tiny_corpus", "tiny_teacher"))


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., testing.Run]:
    """Return ``kdcli.testing.run_cli``, which runs in the test's own folder by default."""
    return lambda *arguments, cwd=None: testing.run_cli(*arguments, cwd=cwd or tmp_path)


@pytest.fixture
def fake_dist(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return ``fake_dist(name, entry_points, modules)``: installed in the test's own folder, until the test ends."""
    with ExitStack() as stack:
        yield lambda *arguments, **more: stack.enter_context(testing.fake_dist(tmp_path, *arguments, **more))
