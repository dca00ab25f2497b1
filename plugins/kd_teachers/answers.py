"""Answers that are written down as they come, so that none is asked for twice."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdcli.api import DataError


@dataclass(frozen=True)
class Answer:
    """The answer to a request."""

    value: Any  # what was read from the reply, as JSON values; None: the server refuses this request
    tokens: tuple[int, int]  # of the prompt and of the answer
    seconds: float


class Answers:
    """Answers by the hash of the request. With a file, each is appended to it as it comes.

    Raises:
        DataError: The file is another one.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file, self.known, self.tokens = file, dict[str, Answer](), (0, 0)
        content = file.read_bytes() if file and file.exists() else b""
        for line in content.splitlines():
            with suppress(ValueError, TypeError, KeyError):  # a killed process has cut off its last line
                one = json.loads(line)
                self._keep(one["key"], Answer(one["value"], tuple(one["tokens"]), one["seconds"]))
        if content and not self.known:
            what = "this is not a file of a teacher's answers"
            raise DataError(what, file=file, hint="move it away: answers are written here")
        self._begin = "" if content.endswith(b"\n") or not content else "\n"

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer; it is in the file when this returns."""
        self._keep(key, answer)
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps({"key": key, **asdict(answer)}, separators=(",", ":"))
            with self.file.open("ab", buffering=0) as stream:
                stream.write(f"{self._begin}{line}\n".encode())
            self._begin = ""

    def _keep(self, key: str, answer: Answer) -> None:
        self.known[key] = answer
        self.tokens = (self.tokens[0] + answer.tokens[0], self.tokens[1] + answer.tokens[1])
