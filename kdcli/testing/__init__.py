"""What a plugin's own tests are made of: the contract's checks, a tiny task, fakes, and ``kd`` in a process of its own.

``kd plugins check NAME`` runs the same checks; ``kdcli.testing.fakes`` has plugins that cost nothing. All of it as
pytest fixtures: ``pytest_plugins = ["kdcli.testing.fixtures"]`` in a ``conftest.py``. Importing this imports neither
pytest nor torch.
"""

from __future__ import annotations

from kdcli.testing.check import check_generator, check_student, check_tagger
from kdcli.testing.distribution import fake_dist
from kdcli.testing.outcomes import Outcome
from kdcli.testing.process import Run, run_cli
from kdcli.testing.tiny import tiny_corpus, tiny_task

__all__ = [
    "Outcome",
    "Run",
    "check_generator",
    "check_student",
    "check_tagger",
    "fake_dist",
    "run_cli",
    "tiny_corpus",
    "tiny_task",
]
