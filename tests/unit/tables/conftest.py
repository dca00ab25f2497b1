import gzip

import pytest

from kdcli.tables.read import read_table


@pytest.fixture
def put(tmp_path):
    """Write a file of some bytes, zipped if its name says so."""

    def write(name, content):
        data = content.encode() if isinstance(content, str) else content
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        return path

    return write


@pytest.fixture
def rows():
    def read(path, **options):
        return [row[:-1] for row in read_table(path, **options).frame().rows()]

    return read
