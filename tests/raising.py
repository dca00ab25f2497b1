"""Expect an error of kd's, and compare what it says of itself."""

from contextlib import contextmanager

import pytest


@contextmanager
def raising(kind, match=None, *, what=(), hint=(), says=(), **expected):
    """Expect an error with these values (``file``, ``row``, ``key``, ``exit_code``), and parts of its texts.

    ``hint=True`` asks for any hint.
    """
    with pytest.raises(kind, match=match) as caught:
        yield caught
    error = caught.value
    expected = {name: str(value) if name == "file" and value is not None else value for name, value in expected.items()}
    assert {name: getattr(error, name) for name in expected} == expected
    assert error.hint or hint is not True
    for parts, text in ((what, error.what), (hint, error.hint or ""), (says, str(error))):
        parts = [parts] if isinstance(parts, str) else () if parts is True else parts
        assert [part for part in parts if part not in text] == []
