"""A language model behind a server of OpenAI's protocol: it is asked for the class of each text."""

from __future__ import annotations

import asyncio
import re
import string
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from math import exp, isfinite, log
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from kd_teachers.answers import Journal
from kd_teachers.server import CHAT, LimitReached, Server, ServerOptions, count_tokens
from kdcli.api import API_VERSION, DataError, KdError, ProfileError, QuietReporter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kdcli.api import Reporter

api_version = API_VERSION
Found = dict[str, list[float] | None]  # the probabilities of the classes, by text
Method = Literal["logprobs", "systemone", "votes"]
SYSTEM_ONE = "systemone"
TOP = 20
"""Tokens whose log-probabilities are asked for, the most that OpenAI gives."""
LEAST = 1e-7
"""The smallest probability whose logarithm is taken."""
SMOOTHING = 0.5
"""What each class has beside its votes (Krichevsky and Trofimov 1981)."""
HOPELESS = 50
"""After so many texts without any answer, the run stops."""
DRAWS = 4  # answers that show whether a server samples
RANDOM = "Write ten random letters."  # what a server that samples answers in many ways


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
    parameters: int = 0
    parameters_without_embeddings: int = 0
    megabytes: float = 0.0
    partial: bool = True
    multi_label: bool = False
    _method: Method | None = None
    _at_once: int = 0  # answers of a request for votes
    _times: int = 1  # how often it is sent
    _texts: int = 0
    _answered: int = 0

    def __post_init__(self) -> None:
        """Give each class its letter; above 26 classes, a number."""
        letters = len(self.labels) <= len(string.ascii_uppercase)
        numbers = map(str, range(1, len(self.labels) + 1))
        self.marks = list(string.ascii_uppercase[: len(self.labels)] if letters else numbers)
        first, last = self.marks[0], self.marks[-1]
        self._at_once = self.options.votes
        self.answers = f"{', '.join(self.marks[:-1])} or {last}" if letters else f"a number from {first} to {last}"

    @property
    def saved_seconds(self) -> float:
        """The seconds that the answers which were there took when they were asked for."""
        return self.server.saved_seconds / self.options.concurrency

    def remember(self, file: Path) -> None:
        """Write each answer to a file as it comes, and take those that are there."""
        self.server.journal = Journal(file)

    def fingerprint(self) -> str:
        """Return a hash of the server's address, the model's name and the classes."""
        return sha256("\n".join([self.options.endpoint, self.model, *self.labels]).encode()).hexdigest()

    def logits(self, columns: Sequence[Sequence[str]], batch: int) -> NDArray[np.float32]:
        """Return the logarithms of the classes' probabilities, ``float32 [texts, labels]``; NaN without an answer."""
        import numpy as np

        texts = [self._shown(row) for row in zip(*columns, strict=True)]
        found = _run(self._ask_all(list(dict.fromkeys(texts))))
        unanswered = [float("nan")] * len(self.labels)
        probabilities = np.array([found[text] or unanswered for text in texts])
        logits: NDArray[np.float32] = np.log(probabilities.clip(LEAST, 1)).astype(np.float32)
        return logits

    def requests(self, text: str, again: bool = False) -> dict[Method, tuple[str, dict[str, Any]]]:
        """Return path and body of the request about a text, for each way to ask."""
        prompt = self.prompt(text) + (f"\n\nAnswer with {self.answers}: no other word." if again else "")
        chat: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        chat["max_tokens"] = self.options.max_tokens
        described = {label: self.options.descriptions.get(label) for label in self.labels}
        orders = [[*self.labels[place:], *self.labels[:place]] for place in range(len(self.labels))]
        questions = {
            str(place): {
                "type": "choice",
                "instructions": self.options.question,
                "criteria": {label: described[label] for label in order},
            }
            for place, order in enumerate(orders)
        }
        return {
            "logprobs": (CHAT, {**chat, "temperature": 0, "logprobs": True, "top_logprobs": TOP}),
            "systemone": (SYSTEM_ONE, {"model": self.model, "state": text, "questions": questions}),
            "votes": (CHAT, {**chat, "temperature": 1, **({"n": self._at_once} if self._at_once > 1 else {})}),
        }

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

    async def _ask_all(self, texts: Sequence[str]) -> Found:
        """Return the probabilities of different texts; where a limit is reached, after all answers that are coming."""
        found: Found = {}
        waiting, limits = iter(texts), list[LimitReached]()
        async with self.server.open():
            with self.reporter.progress("ask", len(texts), "texts") as progress:

                async def work() -> None:
                    for text in waiting:
                        try:
                            found[text] = await self._probabilities(text)
                        except LimitReached as limit:
                            limits.append(limit)
                            return
                        self._count(found[text])
                        progress.advance()

                if texts and self._method is None:
                    self._method = await self._choose(texts)
                await asyncio.gather(*(work() for _ in range(self.options.concurrency)))
        if limits:
            raise limits[0]
        return found

    def _count(self, found: list[float] | None) -> None:
        self._texts, self._answered = self._texts + 1, self._answered + (found is not None)
        if self._texts >= HOPELESS and not self._answered:
            what = f"the model has named no class for any of {self._texts} texts"
            hint = "change teachers.llm.template, or raise teachers.llm.max_tokens for a model that reasons aloud"
            raise DataError(what, key="teachers.llm.template", hint=hint)

    async def _choose(self, texts: Sequence[str]) -> Method:
        """Find out by the first text that it does not refuse what the server can do, and say it.

        A server may answer 200 to a request and leave out what it does not know.
        """
        if len(self.marks) <= len(string.ascii_uppercase):  # the tokens of 1 and of 12 may begin alike
            for text in texts:
                ways = self.requests(text)
                first = (await self.server.ask(*ways["logprobs"], self._read_chat)).value
                if first:
                    break
            if first is None or first["logprobs"] is not None:
                return "logprobs"
            try:
                offered = (await self.server.ask(*ways["systemone"], self._read_system_one, tries=1)).value
            except LimitReached:
                raise
            except KdError:  # a path that it does not know may be answered in any way
                offered = None
            if offered:
                self.reporter.info(f"the server gives no log-probabilities: /{SYSTEM_ONE} is asked, in all orders")
                return "systemone"
        await self._try_draws()
        return "votes"

    async def _try_draws(self) -> None:
        """Find out whether the server gives several answers to a request, and whether they differ."""
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": RANDOM}]}
        body |= {"max_tokens": 16, "temperature": 1}
        drawn = await self._say({**body, "n": DRAWS})
        if len(drawn) < DRAWS:
            self._at_once, self._times = 1, self.options.votes
            drawn = [said for draw in range(DRAWS) for said in await self._say(body, draw)]
        if len(set(drawn)) < 2:
            self._at_once = self._times = 1
        votes = self._at_once * self._times
        how = f"{votes} answers a text are counted, in {self._times} requests" if votes > 1 else "one answer counts"
        why = "" if len(set(drawn)) > 1 else ", and the same answer to every draw: it does not sample"
        self.reporter.warn(f"the server gives no log-probabilities{why}; {how}")

    async def _say(self, body: Mapping[str, Any], draw: int = 0) -> list[str]:
        value = (await self.server.ask(CHAT, body, self._read_chat, draw=draw)).value
        said: list[str] = value["said"] if value else []
        return said

    async def _probabilities(self, text: str) -> list[float] | None:
        """Return the probabilities of the classes; None if the model names none, asked twice, or refuses the text."""
        assert self._method
        for again in (False, True):
            path, body = self.requests(text, again)[self._method]
            if self._method == "systemone":
                answer: list[float] | None = (await self.server.ask(path, body, self._read_system_one)).value
                return answer
            times = range(self._times if self._method == "votes" else 1)
            found = [(await self.server.ask(path, body, self._read_chat, draw=draw)).value for draw in times]
            values = [value for value in found if value]
            named = [self._named(said) for value in values for said in value["said"]]
            votes = [named.count(number) for number in range(len(self.labels))]
            if sum(votes) and self._method == "logprobs" and values[0]["logprobs"]:
                weights = [exp(logprob - max(values[0]["logprobs"])) for logprob in values[0]["logprobs"]]
                return [weight / sum(weights) for weight in weights]
            if sum(votes):
                return [(count + SMOOTHING) / (sum(votes) + SMOOTHING * len(votes)) for count in votes]
            if not values:
                break
        return None

    def _named(self, said: str) -> int | None:
        """Return the class that an answer names by its letter or its name, and nothing else."""
        said = re.sub(r"(?s)^.*</think>", "", said).strip()
        mark = re.fullmatch(r"\W*(\w+)\W*", said) or re.match(r"\W*(\w+)\s*[.):\]]", said)
        if mark and mark[1] in self.marks:
            return self.marks.index(mark[1])
        names = [label.casefold().strip(string.punctuation) for label in self.labels]
        plain = said.casefold().strip(string.punctuation + string.whitespace)
        return names.index(plain) if names.count(plain) == 1 else None

    def _read_chat(self, reply: Any) -> dict[str, Any]:
        """Read what was said, and the log-probabilities of the letters; None: not given, empty: for no letter."""
        choices = reply["choices"]
        said = [str(choice["message"].get("content") or "") for choice in choices]
        tokens = (choices[0].get("logprobs") or {}).get("content")
        return {"said": said, "logprobs": None if not tokens else self._of_marks(tokens)}

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
                if (mark := text.strip(string.punctuation + string.whitespace)) in self.marks and isfinite(logprob):
                    found[mark] = found.get(mark, 0.0) + exp(logprob)
            if token["token"].strip(string.punctuation + string.whitespace) in self.marks and given and found:
                least = min(logprob for logprob in listed.values() if isfinite(logprob))
                return [log(found[mark]) if found.get(mark) else least for mark in self.marks]
        return [] if given else None

    def _read_system_one(self, reply: Any) -> list[float]:
        """Read the probabilities of the classes, their mean over the orders in which the classes were named."""
        rows = [[answer["probabilities"][label] for label in self.labels] for answer in reply["answers"].values()]
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        if not all(map(isfinite, means)) or not sum(means):
            raise ValueError("no probabilities")
        return [mean / sum(means) for mean in means]

    def _shown(self, row: Sequence[str]) -> str:
        """Return a text, or both of a pair."""
        return "\n\nSecond text: ".join(text.strip() for text in row)


def load(
    model: str,
    options: Options,
    *,
    labels: tuple[str, ...],
    max_length: int = 0,
    long_texts: str = "cut",
    reporter: Reporter,
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
    return LLM(labels, model, options, reporter, Server(options, reporter))


def estimate(
    model: str, options: Options, *, labels: tuple[str, ...], columns: Sequence[Sequence[str]], answers: Path | None
) -> dict[str, float]:
    """Estimate what texts will take that the file of answers does not have; see ``kdcli.api.TeacherPlugin``.

    With votes in requests of their own it is as many times as much.
    """
    llm = load(model, options, labels=labels, reporter=QuietReporter())
    if answers:
        llm.remember(answers)
    tokens, requests = (0, 0), 0
    for text in {llm._shown(row) for row in zip(*columns, strict=True)}:
        if not any(llm.server.key(*request) in llm.server.journal.answers for request in llm.requests(text).values()):
            requests, tokens = requests + 1, (tokens[0] + count_tokens(llm.prompt(text)), tokens[1] + 1)
    cost = {"cost": options.cost(tokens)} if options.input_price or options.output_price else {}
    return {"requests": requests, "input_tokens": tokens[0], "output_tokens": tokens[1], **cost}


def _run(work: Coroutine[Any, Any, Found]) -> Found:
    """Run a coroutine to its end, inside of a notebook's loop too."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
