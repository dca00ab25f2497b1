import subprocess
import sys

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from kdcli.tables.strings import strings


@given(st.lists(st.text()))
def test_the_same_as_arrows_own(texts: list[str]) -> None:
    made = strings(texts)
    made.validate(full=True)
    assert made.equals(pa.array(texts, pa.string()))


def test_pandas_stays_away() -> None:
    code = "import sys; from kdcli.tables.strings import strings; strings(['a']); assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
