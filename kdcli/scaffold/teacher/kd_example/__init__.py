"""A teacher that knows the polarity of words: negative or positive, by the lexicon of TextBlob."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from kdcli.api import DataError, ProfileError
from numpy.typing import NDArray
from pydantic import BaseModel, Field

api_version = 2


class Options(BaseModel, extra="forbid", frozen=True):
    """The table ``[teachers.example]`` of a profile."""

    scale: float = Field(3.0, gt=0, description="The logit of a text that is as positive as can be.")


@dataclass
class Polarity:
    """A loaded teacher, see ``kdcli.api.LoadedTeacher``."""

    scale: float
    labels: tuple[str, ...] = ("negative", "positive")
    max_length: int = 0
    cut: int = 0

    def logits(self, columns: Sequence[Sequence[str]], batch: int) -> NDArray[np.float32]:
        """Return the logits, ``float32 [texts, labels]``."""
        from textblob import TextBlob

        if len(columns) > 1:
            raise DataError("this teacher reads one text a row, not pairs", hint="choose another: teacher.plugin")
        polarity = np.array([TextBlob(text).polarity for text in columns[0]])  # -1 to 1
        return (self.scale * np.stack([-polarity, polarity], axis=1)).astype(np.float32)

    def fingerprint(self) -> str:
        """Return what the answers depend on: kd asks again when it has changed."""
        return version("textblob")


def load(model: str, options: Options, *, long_texts: str, **how: Any) -> Polarity:
    """Return the teacher that ``teacher.model`` names; see ``kdcli.api.TeacherPlugin`` for all arguments."""
    if model != "textblob":
        raise DataError(f"there is one lexicon, textblob, not {model}", key="teacher.model")
    if long_texts != "cut":
        raise ProfileError("this teacher has no windows", key="teacher.long_texts", hint='set it to "cut"')
    return Polarity(options.scale)
