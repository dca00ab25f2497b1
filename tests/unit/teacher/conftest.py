import pytest
from made_teacher import make_teacher

from kdcli.api import Task


@pytest.fixture
def films():
    return Task("films", "single", ("0", "1"), names=("negative", "positive"))


@pytest.fixture
def tiny_teacher(tmp_path):
    return lambda name="teacher", **more: make_teacher(tmp_path / name, **more)
