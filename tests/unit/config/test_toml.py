import tomli
from hypothesis import given
from hypothesis import strategies as st

from kdcli.config.files import to_toml

# TOML cannot hold lone surrogates; everything else must come back.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts
items = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
tables = st.dictionaries(texts, items | st.dictionaries(texts, items, max_size=3), max_size=4)


@given(tables, st.booleans())
def test_what_is_written_is_read_again(values, noted):
    notes = dict.fromkeys(values, "somewhere") if noted else {}
    assert tomli.loads(to_toml(values, notes)) == values


def test_form():
    values = {"seed": 1, "task": {"labels": ["0", "1"]}, "teacher": {"export": {"batch_size": "auto"}}, "free": {}}
    assert to_toml(values, {"task.labels": "demo.toml"}) == (
        'seed = 1\n\n[task]\nlabels = ["0", "1"]  # demo.toml\n\n[teacher.export]\nbatch_size = "auto"\n\n[free]\n'
    )
