import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdcli.tables.read import read_table


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, bytes | str], Path]:
    """Write a file of some bytes, zipped if its name says so."""

    def write(name: str, content: bytes | str) -> Path:
        data = content.encode() if isinstance(content, str) else content
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        return path

    return write


@pytest.fixture
def rows() -> Callable[..., list[tuple[Any, ...]]]:
    def read(path: Path, **options: Any) -> list[tuple[Any, ...]]:
        return [row[:-1] for row in read_table(path, **options).frame().rows()]

    return read
