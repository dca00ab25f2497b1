from pathlib import Path

import pytest
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from kdcli.config.files import options_of


class Options(BaseModel):
    needed: int
    path: Path = Path("x")
    sizes: list[int] = Field(default_factory=lambda: [3, 4], description="How\n  wide.")


def test_defaults_are_json_and_those_that_are_made_are_made():
    found = {option.key: option for option in options_of(Options, "students.own.")}
    assert [(one.default, one.required) for one in found.values()] == [(None, True), ("x", False), ([3, 4], False)]
    sizes = found["students.own.sizes"]
    assert (sizes.type, sizes.about) == ("list of whole number", "How wide.")
    assert found["students.own.path"].type == "path"


@pytest.mark.skipif(not hasattr(FieldInfo, "default_factory_takes_validated_data"), reason="an older Pydantic")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_default_that_depends_on_another_option_is_none():
    class Deep(BaseModel):
        width: int = 3
        depth: int = Field(default_factory=lambda known: known["width"] + 1)

    assert [option.default for option in options_of(Deep)] == [3, None]
