import re
from urllib.parse import urlsplit

import pytest

from kdcli.download import SOURCES, find
from kdcli.errors import UsageError


def test_what_is_known_is_well_formed():
    for source in SOURCES:
        assert source.about and source.cite
        assert source.is_url == (not source.is_dataset)
        if source.is_url:
            assert urlsplit(source.address).scheme == "https"
        if source.sha256 is not None:
            assert re.fullmatch("[0-9a-f]{64}", source.sha256)
    digests = {source.address: source.sha256 for source in SOURCES}
    assert all(digests[source.address] == source.sha256 for source in SOURCES), "one file has one hash"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sst-2", "did you mean sst2?"),
        ("glove.6B", "did you mean glove.6B.50d?"),
        ("distilation-data", "did you mean distillation-data?"),
        ("xyz", "`kd data list` names what there is"),
    ],
)
def test_an_unknown_name(name, hint):
    with pytest.raises(UsageError, match=f"nothing is named {name}") as raised:
        find(name)
    assert raised.value.hint == hint
