from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kdcli.config.table import explain, keys, unknown
from kdcli.errors import ProfileError, ValidationErrors, each, raise_all


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    rate: float = Field(1.0, gt=0)
    """Learning
    rate."""
    kind: Literal["lstm", "gru"] = "lstm"

    @model_validator(mode="after")
    def _whole(self):
        if self.kind == "gru" and self.rate > 1:
            raise ValueError("a gru learns slowly")
        return self


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inner: Inner = Inner()
    other: Inner = Inner()
    size: int | Literal["auto"] = 3
    names: tuple[str, ...] = ()
    free: dict[str, dict[str, int]] = {}


def explained(values, prefix=""):
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    return {error.key: error for error in explain(caught.value, Outer, prefix)}


def test_keys_are_dotted():
    assert list(keys(Outer)) == ["inner.rate", "inner.kind", "other.rate", "other.kind", "size", "names", "free"]
    assert next(keys(Inner, "a.b.")) == "a.b.rate"


@pytest.mark.parametrize(
    ("values", "key", "what", "hint"),
    [
        ({"inner": {"rat": 1}}, "inner.rat", "unknown key", "did you mean inner.rate?"),
        ({"iner": {"rate": 1}}, "iner", "unknown key", "did you mean inner?"),
        ({"rate": 1}, "rate", "unknown key", "did you mean inner.rate or other.rate?"),
        ({"inner": {"size": 1}}, "inner.size", "unknown key", "did you mean size?"),
        ({"inner": {"zzz": 1}}, "inner.zzz", "unknown key", "the keys of inner are rate, kind"),
        ({"inner": {"rate": -1}}, "inner.rate", "-1 should be greater than 0", "inner.rate: Learning rate."),
        ({"inner": {"kind": "grr"}}, "inner.kind", "'grr' should be 'lstm' or 'gru'", None),
        ({"size": "big"}, "size", "'big' should be a valid integer, or should be 'auto'", None),
        ({"names": ["a", 3]}, "names", "3 should be a valid string", 'put it in quotes: "3"'),
        ({"free": {"a": {"b": "c"}}}, "free.a.b", "'c' should be a valid integer", None),
        ({"inner": 3}, "inner", "3 should be a table", None),
        ({"inner": {"kind": "gru", "rate": 2}}, "inner", "a gru learns slowly", None),
    ],
)
def test_each_error_names_key_and_hint(values, key, what, hint):
    found = explained(values)
    assert list(found) == [key]
    assert found[key].what == what
    assert hint is None or found[key].hint == hint
    assert found[key].hint


def test_unknown_key_of_nothing():
    class Empty(BaseModel):
        pass

    assert unknown("students.dan.x", Empty, "students.dan.").hint == "it takes no keys"


def test_one_error_is_itself_and_several_are_together():
    one, two = ProfileError("a", key="k"), ProfileError("b", file="f.toml")
    with pytest.raises(ProfileError) as caught:
        raise_all([one])
    assert caught.value is one and each(one) == (one,)
    with pytest.raises(ValidationErrors) as several:
        raise_all([one, two])
    assert each(several.value) == (one, two)
    assert str(several.value) == "a (key k); b (file f.toml)"
    assert several.value.exit_code == 3
