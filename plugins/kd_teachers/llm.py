"""A language model behind a server of OpenAI's protocol: it is asked for the class of each text."""

import asyncio
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import exp, isfinite, log
from pathlib import Path
from statistics import median_low
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from kd_teachers.server import CHAT, Answers, Server, ServerOptions, count_tokens
from kdcli.api import API_VERSION, DataError, KdError, ProfileError, QuietReporter, Reporter

api_version = API_VERSION
Found = dict[str, list[float] | None]  # the probabilities of the classes, by text
SYSTEM_ONE = "systemone"
LOGPROBS = {"temperature": 0, "logprobs": True, "top_logprobs": 20}  # the most that OpenAI gives
LEAST = 1e-7  # the smallest probability whose logarithm is taken
SMOOTHING = 0.5  # what each class has beside its votes (Krichevsky and Trofimov 1981)
HOPELESS = 50  # after so many texts without any answer, the run stops
RANDOM = "Write ten random letters."  # what a server that samples answers in many ways
DRAWS = 4  # answers to it
BLANK = string.punctuation + string.whitespace


class Options(ServerOptions):
    """The table ``[teachers.llm]`` of a profile."""

    question: str = "Which class does the text belong to?"
    """The question about a text; it takes the place of {question}."""
    template: str = "{question}\n\n{classes}\n\nText: {text}\n\nAnswer with {answers}, and nothing else."
    """The prompt: {classes} stands for the classes, a letter before each, {answers} for these letters."""
    descriptions: dict[str, str] = Field(default_factory=dict)
    """What classes mean, by their names."""
    votes: Annotated[int, Field(ge=1, le=128)] = 5
    """Answers to draw for each text, where the server gives no log-probabilities."""
    max_tokens: Annotated[int, Field(ge=1)] = 16
    """Longest answer; a model that reasons aloud needs more."""

    @field_validator("template")
    @classmethod
    def _template(cls, value: str) -> str:
        if "{text}" not in value or "{classes}" not in value:
            raise ValueError("must have {text} and {classes}")
        return value


@dataclass
class LLM:
    """A language model and the classes that it is asked about.

    A class is offered, and answered, by a letter: different letters are different tokens, which names need not be.
    """

    labels: tuple[str, ...]
    model: str
    options: Options
    reporter: Reporter
    server: Server
    max_length: int = 0
    cut: int = 0
    multi_label: bool = False
    _method: Literal["logprobs", "systemone", "votes"] | None = None
    _votes: int = 0  # answers to draw for each text

    def __post_init__(self) -> None:
        """Give each class its letter; above 26 classes, a number."""
        letters = len(self.labels) <= len(string.ascii_uppercase)
        numbers = map(str, range(1, len(self.labels) + 1))
        self.marks = list(string.ascii_uppercase[: len(self.labels)] if letters else numbers)
        first, last = self.marks[0], self.marks[-1]
        self.answers = f"{', '.join(self.marks[:-1])} or {last}" if letters else f"a number from {first} to {last}"

    @property
    def saved_seconds(self) -> float:
        """The seconds that the answers which were there took when they were asked for."""
        return self.server.saved_seconds / self.options.concurrency

    def fingerprint(self) -> str:
        """Return a hash of the server's address, the model's name and the classes."""
        return sha256("\n".join([self.options.endpoint, self.model, *self.labels]).encode()).hexdigest()

    def logits(self, columns: Sequence[Sequence[str]], batch: int) -> NDArray[np.float32]:
        """Return the logarithms of the classes' probabilities, ``float32 [texts, labels]``; NaN without an answer."""
        from anyio.from_thread import start_blocking_portal

        texts = one_text(columns)
        with start_blocking_portal() as portal:  # inside of a notebook's loop, too
            found = portal.call(self._ask_all, list(dict.fromkeys(texts)))
        unanswered = [float("nan")] * len(self.labels)
        probabilities = np.array([found[text] or unanswered for text in texts])
        return np.asarray(np.log(probabilities.clip(LEAST, 1)), np.float32)

    def requests(self, text: str) -> list[tuple[str, dict[str, Any]]]:
        """Return path and body of all requests that may be sent about a text, but for those after a wrong answer."""
        chat = self._chat(self.prompt(text))
        draws = [(CHAT, _draw(chat, votes)) for votes in range(1, self.options.votes + 1)]
        return [(CHAT, chat | LOGPROBS), (SYSTEM_ONE, self._system_one(text)), *draws]

    def prompt(self, text: str) -> str:
        """Return the template with a text in it; braces in the text are text."""
        described = ((label, self.options.descriptions.get(label)) for label in self.labels)
        named = [f"{label}: {about}" if about else label for label, about in described]
        parts = {
            "question": self.options.question,
            "classes": "\n".join(f"{mark}. {name}" for mark, name in zip(self.marks, named, strict=True)),
            "text": text,
            "answers": self.answers,
        }
        return re.sub(r"\{(\w+)\}", lambda found: parts.get(found[1], found[0]), self.options.template)

    def _chat(self, prompt: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        return {"model": self.model, "messages": messages, "max_tokens": self.options.max_tokens}

    def _system_one(self, text: str) -> dict[str, Any]:
        """Return the request to ``transformers serve``: each class is once the first of all."""
        questions = {}
        for place in range(len(self.labels)):
            order = [*self.labels[place:], *self.labels[:place]]
            criteria = {label: self.options.descriptions.get(label) for label in order}
            questions[str(place)] = {"type": "choice", "instructions": self.options.question, "criteria": criteria}
        return {"model": self.model, "state": text, "questions": questions}

    async def _ask_all(self, texts: Sequence[str]) -> Found:
        """Return the probabilities of different texts; after an error, wait for the answers that are coming."""
        found: Found = {}
        waiting, errors = iter(texts), list[KdError]()
        async with self.server.open():
            with self.reporter.progress("ask", len(texts), "texts") as progress:

                async def work() -> None:
                    for text in waiting:
                        try:
                            found[text] = await self._probabilities(text)
                            if len(found) >= HOPELESS and not any(found.values()):
                                what = f"the model has named no class for any of {len(found)} texts"
                                hint = "change it, or raise teachers.llm.max_tokens for a model that reasons aloud"
                                raise DataError(what, key="teachers.llm.template", hint=hint)
                        except KdError as error:
                            errors.append(error)
                        if errors:
                            return
                        progress.advance()

                if texts and self._method is None:
                    await self._choose(texts)
                await asyncio.gather(*(work() for _ in range(self.options.concurrency)))
        if errors:
            raise errors[0]
        return found

    async def _choose(self, texts: Sequence[str]) -> None:
        """Find out by the first text that it does not refuse what the server can do, and say it.

        A server may answer 200 to a request and leave out what it does not know.
        """
        self._method = "logprobs"
        if len(self.marks) <= len(string.ascii_uppercase):  # the tokens of 1 and of 12 may begin alike
            for text in texts:
                if first := await self.server.ask(CHAT, self._chat(self.prompt(text)) | LOGPROBS, self._read_chat):
                    break
            if first is None or first["logprobs"] is not None:
                return
            try:
                offered = await self.server.ask(SYSTEM_ONE, self._system_one(text), self._read_system_one, tries=1)
            except KdError:  # a path that it does not know may be answered in any way
                offered = None
            if offered:
                self._method = "systemone"
                self.reporter.info(f"the server gives no log-probabilities: /{SYSTEM_ONE} is asked, in all orders")
                return
        self._method = "votes"
        samples = len(set(await self._say(self._chat(RANDOM), DRAWS))) > 1
        self._votes = self.options.votes if samples else 1
        why = "" if samples else ", and the same answer to every draw: it does not sample"
        self.reporter.warn(f"the server gives no log-probabilities{why}; answers that count for a text: {self._votes}")

    async def _say(self, chat: Mapping[str, Any], votes: int) -> list[str]:
        """Draw answers to a request; a server may give fewer at once than it is asked for, or refuse the text."""
        said: list[str] = []
        while len(said) < votes and (
            reply := await self.server.ask(CHAT, _draw(chat, votes - len(said)), self._read_chat)
        ):
            said += reply["said"]
        return said

    async def _probabilities(self, text: str) -> list[float] | None:
        """Return the probabilities of the classes; None if the model names none, asked twice, or refuses the text."""
        if self._method == "systemone":
            found: list[float] | None
            found = await self.server.ask(SYSTEM_ONE, self._system_one(text), self._read_system_one)
            return found
        prompt = self.prompt(text)
        for chat in map(self._chat, (prompt, f"{prompt}\n\nAnswer with {self.answers}: no other word.")):
            if self._method == "votes":
                reply: dict[str, Any] | None = {"said": await self._say(chat, self._votes), "logprobs": None}
            else:
                reply = await self.server.ask(CHAT, chat | LOGPROBS, self._read_chat)
            named = [self._named(said) for said in reply["said"]] if reply else []
            counts = [named.count(number) for number in range(len(self.labels))]
            if reply and reply["logprobs"] and sum(counts):
                weights = [exp(logprob - max(reply["logprobs"])) for logprob in reply["logprobs"]]
                return [weight / sum(weights) for weight in weights]
            if sum(counts):
                return [(count + SMOOTHING) / (sum(counts) + SMOOTHING * len(counts)) for count in counts]
            if not named:
                break
        return None

    def _named(self, said: str) -> int | None:
        """Return the class that an answer names by its letter or its name, and nothing else."""
        said = re.sub(r"(?s)^.*</think>", "", said).strip()
        mark = re.fullmatch(r"\W*(\w+)\W*", said) or re.match(r"\W*(\w+)\s*[.):\]]", said)
        if mark and mark[1] in self.marks:
            return self.marks.index(mark[1])
        names = [label.casefold().strip(string.punctuation) for label in self.labels]
        plain = said.casefold().strip(BLANK)
        return names.index(plain) if names.count(plain) == 1 else None

    def _read_chat(self, reply: Any) -> dict[str, Any]:
        """Read what was said, and the log-probabilities of the letters; None: not given, empty: for no letter."""
        choices = reply["choices"]
        said = [str(choice["message"].get("content") or "") for choice in choices]
        tokens = (choices[0].get("logprobs") or {}).get("content")
        return {"said": said, "logprobs": self._of_marks(tokens or [])}

    def _of_marks(self, tokens: Sequence[Mapping[str, Any]]) -> list[float] | None:
        """Return the log-probabilities of the letters where one was said first; None without those of other tokens.

        Tokens that differ in spaces or punctuation add up. A letter that is not listed has the least one listed.
        """
        given = False
        for token in tokens:
            listed = {one["token"]: float(one["logprob"]) for one in [*(token.get("top_logprobs") or []), token]}
            given |= len(listed) > 1
            found: dict[str, float] = {}
            for text, logprob in listed.items():
                if (mark := text.strip(BLANK)) in self.marks and isfinite(logprob):
                    found[mark] = found.get(mark, 0.0) + exp(logprob)
            if token["token"].strip(BLANK) in self.marks and given and found:
                least = min(logprob for logprob in listed.values() if isfinite(logprob))
                return [log(found[mark]) if found.get(mark) else least for mark in self.marks]
        return [] if given else None

    def _read_system_one(self, reply: Any) -> list[float]:
        """Read the probabilities of the classes, their mean over the orders in which the classes were named."""
        rows = [[answer["probabilities"][label] for label in self.labels] for answer in reply["answers"].values()]
        total = sum(map(sum, rows))
        if not 0 < total < float("inf"):
            raise ValueError("no probabilities")
        return [sum(column) / total for column in zip(*rows, strict=True)]


def one_text(columns: Sequence[Sequence[str]]) -> list[str]:
    """Return the texts; of a pair, both in one."""
    return ["\n\nSecond text: ".join(text.strip() for text in row) for row in zip(*columns, strict=True)]


def load(
    model: str,
    options: Options,
    *,
    labels: tuple[str, ...],
    max_length: int = 0,
    long_texts: str = "cut",
    reporter: Reporter,
    answers: Path | None = None,
    **_: Any,
) -> LLM:
    """Make the teacher; see ``kdcli.api.TeacherPlugin``. Nothing is asked before the first text."""
    if len(labels) < 2:
        raise ProfileError("a language model needs the names of two classes or more", hint="--labels NAME,NAME")
    if unknown := [name for name in options.descriptions if name not in labels]:
        key, hint = "teachers.llm.descriptions", f"the classes are {', '.join(labels)}"
        raise ProfileError(f"there is no class {unknown[0]!r} to describe", key=key, hint=hint)
    if long_texts != "cut":
        raise ProfileError("a language model reads whole texts", key="teacher.long_texts", hint='set it to "cut"')
    if max_length:
        reporter.warn("teacher.max_length has no effect on a language model behind a server")
    return LLM(labels, model, options, reporter, Server(options, reporter, Answers(answers)))


def estimate(
    model: str, options: Options, *, labels: tuple[str, ...], columns: Sequence[Sequence[str]], answers: Path | None
) -> dict[str, float]:
    """Estimate what texts will take that the file of answers does not have; see ``kdcli.api.TeacherPlugin``.

    A text takes as many requests as those took whose answers are there; else one.
    """
    llm = load(model, options, labels=labels, reporter=QuietReporter(), answers=answers)
    there, known, new = llm.server.answers.known, list[int](), list[str]()
    for text in set(one_text(columns)):
        if asked := sum(llm.server.key(*request) in there for request in llm.requests(text)) if there else 0:
            known.append(asked)
        else:
            new.append(llm.prompt(text))
    each = median_low(known) if known else 1
    tokens = each * sum(map(count_tokens, new)), each * len(new)
    cost = {"cost": options.cost(tokens)} if options.input_price or options.output_price else {}
    return {"requests": each * len(new), "input_tokens": tokens[0], "output_tokens": tokens[1], **cost}


def _draw(chat: Mapping[str, Any], votes: int) -> dict[str, Any]:
    return {**chat, "temperature": 1, "n": votes}
