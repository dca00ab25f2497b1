"""A server of OpenAI's protocol: requests at once, with retries and limits; each answer is kept."""

import asyncio
import json
import os
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from kdcli.api import DataError, KdError, MissingError, Reporter

CHAT = "chat/completions"
OPTIONAL = ("max_tokens", "top_logprobs", "logprobs", "temperature", "n")  # left out for a server that refuses it
FEWER = 5  # `top_logprobs` of a server that refuses more
TRIES = 8  # times that a request is sent until the run stops
LONGEST = 60.0  # seconds of the longest pause between two tries
PATIENCE = 600.0  # seconds of the longest `Retry-After` that is waited for
JITTER = random.Random()  # leaves the state of other random numbers alone
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ServerOptions(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True):
    """Where the server is, how it is asked, and how much."""

    no_effect: ClassVar = frozenset(
        ("key_variable", "concurrency", "timeout", "max_requests", "max_cost", "input_price", "output_price")
    )

    endpoint: str = "https://api.openai.com/v1"
    """Address of the server, up to the path before `/chat/completions`."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; without a value no key is sent."""
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 16
    """Requests at once."""
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    """Seconds after which a request is sent again, up to eight times, after pauses that double."""
    max_requests: Annotated[int, Field(ge=0)] = 0
    """Stop after so many requests, those of killed launches among them; 0 = no limit."""
    max_cost: Number = 0.0
    """Stop before the answers cost more, by `input_price` and `output_price`; 0 = no limit."""
    input_price: Number = 0.0
    """Price of 1,000,000 tokens of prompts."""
    output_price: Number = 0.0
    """Price of 1,000,000 tokens of answers."""

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
            raise ValueError("must be an address like http://localhost:8000/v1, without a key or user in it")
        return value.rstrip("/")

    @field_validator("key_variable")
    @classmethod
    def _key_variable(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise ValueError("must be the name of an environment variable; the key itself is written nowhere")
        return value

    @model_validator(mode="after")
    def _prices(self) -> Self:
        if self.max_cost and not (self.input_price or self.output_price):
            raise ValueError("max_cost needs input_price and output_price")
        return self

    def cost(self, tokens: tuple[int, int]) -> float:
        """Return the price of tokens, those of prompts and those of answers."""
        return (tokens[0] * self.input_price + tokens[1] * self.output_price) / 1e6


@dataclass(frozen=True)
class Answer:
    """The answer to a request."""

    value: Any  # what was read from the reply, as JSON values; None: the server refuses this request
    tokens: tuple[int, int]  # of the prompt and of the answer
    seconds: float


class Answers:
    """Answers by the hash of the request. With a file, each is appended to it as it comes."""

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


@dataclass
class Failure(Exception):
    """A try failed, and another may not; ``after`` so many seconds, if the server says so."""

    what: str
    after: float | None = None


class Server:
    """A server, and what it has answered."""

    def __init__(self, options: ServerOptions, reporter: Reporter, answers: Answers) -> None:
        self.options, self.reporter, self.answers = options, reporter, answers
        self.saved_seconds = 0.0  # that known answers took when they were asked for
        self._key = os.environ.get(options.key_variable, "").strip()
        self._reached = False
        self._refused: list[str] = []  # parameters
        self._in_flight = 0
        self._closed_until = 0.0  # it wants no request before

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold the connections for a block of requests."""
        import httpx

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=self.options.concurrency)
        async with httpx.AsyncClient(headers=headers, limits=limits, timeout=None) as self._client:
            yield

    def key(self, path: str, body: Mapping[str, Any]) -> str:
        """Return the hash of a request."""
        return sha256(json.dumps([self.options.endpoint, path, body]).encode()).hexdigest()[:32]

    async def ask(self, path: str, body: Mapping[str, Any], read: Callable[[Any], Any], tries: int = TRIES) -> Any:
        """Return what ``read`` finds in the reply to a request, as JSON values; None if the server refuses it.

        A known answer is not asked for again. ``read`` raises what comes of other values than the protocol's. A server
        that fails ``tries`` times in a row, or a request beyond the user's limits, is a ``KdError``.
        """
        key = self.key(path, body)
        if known := self.answers.known.get(key):
            self.saved_seconds += known.seconds
            return known.value
        self._check_limits(body)
        self._in_flight += 1
        begin = time.monotonic()
        try:
            value, tokens = await self._send(path, body, read, tries)
        finally:
            self._in_flight -= 1
        self.answers.add(key, Answer(value, tokens, time.monotonic() - begin))
        return value

    def _check_limits(self, body: Mapping[str, Any]) -> None:
        options, asked, limit = self.options, len(self.answers.known), ""
        spent = options.cost(self.answers.tokens)
        one = spent / asked if spent else options.cost((count_tokens(json.dumps(body)), 1))
        if options.max_requests and asked + self._in_flight >= options.max_requests:
            limit = "max_requests"
        elif options.max_cost and spent + one * (self._in_flight + 1) > options.max_cost:
            limit = "max_cost"
        if limit:
            what = f"{asked:,} requests are answered, at a cost of {spent:.4g}: teachers.llm.{limit} allows no more"
            hint = f"the answers are kept: raise it (--{limit.replace('_', '-')} N), and the same command goes on"
            raise KdError(what, hint=hint)

    async def _send(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], Any], tries: int
    ) -> tuple[Any, tuple[int, int]]:
        """Send a request until it is answered; return what was read, and the tokens."""
        for number in range(1, tries + 1):
            while (wait := self._closed_until - time.monotonic()) > 0:
                await asyncio.sleep(wait * JITTER.uniform(1, 1.1))
            try:
                return await self._try(path, body, read)
            except Failure as error:
                failure = error
            if (failure.after or 0) > PATIENCE:
                break
            if failure.after is not None:
                self._closed_until = max(self._closed_until, time.monotonic() + failure.after)
            elif number < tries:
                await asyncio.sleep(min(LONGEST, 2.0 ** (number - 1)) * JITTER.uniform(0.5, 1))
        wants = f", and wants no request for {failure.after:.0f} s" if failure.after else ""
        hint = "lower teachers.llm.concurrency, or wait: the answers are kept, the same command goes on"
        what = f"the server failed {number} times in a row: {failure.what}{wants}"
        raise KdError(what, file=f"{self.options.endpoint}/{path}", hint=hint)

    async def _try(self, path: str, body: Mapping[str, Any], read: Callable[[Any], Any]) -> tuple[Any, tuple[int, int]]:
        """Send a request once, or again without a parameter that the server refuses."""
        sent, url, first = self._accepted(body), f"{self.options.endpoint}/{path}", not self.answers.known
        reply = await self._post(url, sent)
        status, said, variable = reply.status_code, self._text(reply), self.options.key_variable
        if status == 200:
            try:
                found = reply.json()
                return read(found), _tokens(found, body)
            except (ValueError, KeyError, TypeError, IndexError, AttributeError):
                what = f"the reply is none of the protocol: {said}"
            if first:
                raise DataError(what, file=url, hint="most endpoints end with /v1: teachers.llm.endpoint")
            raise Failure(what)
        if status in (408, 409, 425, 429) or status >= 500:
            raise Failure(f"it answers {status}: {said}", _retry_after(reply.headers.get("retry-after", "")))
        if status in (401, 403):
            what = f"does not accept the key in {variable}" if self._key else f"wants a key, and {variable} is not set"
            key, hint = "teachers.llm.key_variable", f"export {variable}=KEY"
            raise MissingError(f"the server {what} ({status})", file=url, key=key, hint=hint)
        if status == 404 and path == CHAT:
            hint = "check teachers.llm.endpoint, which often ends with /v1, and teacher.model"
            raise MissingError(f"the server knows no such path or model: {said}", file=url, hint=hint)
        if refused := [name for name in OPTIONAL if name in sent and re.search(rf"\b{name}\b", said)]:
            if sent == self._accepted(body):  # else another request has found it out in the meantime
                self._refused.append(refused[0])
                self.reporter.info(f"the server refuses {refused[0]} = {sent[refused[0]]}: it is asked otherwise")
            return await self._try(path, body, read)
        if first:
            hint = "check teacher.model and the options teachers.llm"
            raise DataError(f"the server refuses the request: {status}, {said}", file=url, hint=hint)
        if path == CHAT:
            self.reporter.warn(f"the server refuses a text, which stays without an answer: {status}, {said}")
        return None, (0, 0)

    async def _post(self, url: str, sent: Mapping[str, Any]) -> Any:
        import httpx

        try:
            async with asyncio.timeout(self.options.timeout):
                reply = await self._client.post(url, json=sent)
        except TimeoutError:
            raise Failure(f"no answer within the {self.options.timeout:g} s of teachers.llm.timeout") from None
        except httpx.TransportError as error:
            if isinstance(error, httpx.ConnectError) and not self._reached:
                hint = "start it, or correct teachers.llm.endpoint"
                raise MissingError(f"no server answers: {error}", file=url, hint=hint) from error
            raise Failure(f"the connection broke: {error or type(error).__name__}") from error
        self._reached = True
        return reply

    def _accepted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request without what the server has refused."""
        sent = {name: value for name, value in body.items() if name not in self._refused}
        if "max_tokens" in body and "max_tokens" in self._refused:  # newer models have another name for it
            sent["max_completion_tokens"] = body["max_tokens"]
        if "top_logprobs" in body and self._refused.count("top_logprobs") == 1:
            sent["top_logprobs"] = FEWER
        return sent

    def _text(self, reply: Any) -> str:
        """Return the beginning of what a server says, without the key."""
        said = " ".join((reply.text.replace(self._key, "***") if self._key else reply.text).split())
        return f"{said[:300]!r}" if said else "nothing"


def count_tokens(text: str) -> int:
    """Estimate the tokens of a text: one for four bytes, about that of English prose."""
    return len(text.encode()) // 4 + 1


def _tokens(reply: Mapping[str, Any], body: Mapping[str, Any]) -> tuple[int, int]:
    """Return the tokens that a reply counts; an estimate of those of a server that does not."""
    usage = reply.get("usage") or {}
    given = usage.get("prompt_tokens", usage.get("input_tokens")), usage.get("completion_tokens", 0)
    return (int(given[0]), int(given[1] or 0)) if given[0] else (count_tokens(json.dumps(body)), 1)


def _retry_after(value: str) -> float | None:
    """Return the seconds that a header ``Retry-After`` asks for, which holds seconds or a date; None without one."""
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
