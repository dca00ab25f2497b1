"""Answers that are written down as they come, so that none is asked for twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdcli.api import DataError

FORMAT = "kd.answers/1"


@dataclass(frozen=True)
class Answer:
    """The answer to a request."""

    value: Any  # what was read from the reply, as JSON values; None: the server refused this request
    tokens: tuple[int, int] = (0, 0)  # of the prompt and of the answer
    seconds: float = 0.0


class Journal:
    """Answers by what was asked. With a file, each is appended to it as it comes; a line that was cut off is skipped.

    Raises:
        DataError: The file is another one.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file, self.answers = file, dict[str, Answer]()
        self.requests, self.tokens = 0, (0, 0)
        content = file.read_bytes() if file and file.exists() else b""
        for number, line in enumerate(content.splitlines()):
            try:
                values = json.loads(line)
                if number:
                    self._count(values.pop("key"), Answer(values["value"], tuple(values["tokens"]), values["seconds"]))
                elif values["format"] != FORMAT:
                    raise ValueError
            except (ValueError, TypeError, KeyError) as error:
                if not number and len(content) > len(line):
                    what = f"this is not a file of answers ({FORMAT})"
                    raise DataError(what, file=file, hint="move it away: answers are written here") from error
        self._begin = b"" if content.endswith(b"\n") else b"\n" if content else _line({"format": FORMAT})

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer; it is in the file when this returns."""
        self._count(key, answer)
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab", buffering=0) as stream:
                stream.write(self._begin + _line({"key": key, **asdict(answer)}))
            self._begin = b""

    def _count(self, key: str, answer: Answer) -> None:
        self.answers[key] = answer
        self.requests += 1
        self.tokens = (self.tokens[0] + answer.tokens[0], self.tokens[1] + answer.tokens[1])


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
