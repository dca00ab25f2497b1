"""A server of OpenAI's protocol: requests at once, with retries and limits."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kd_teachers.answers import Answer, Journal
from kdcli.api import DataError, KdError, MissingError

if TYPE_CHECKING:
    import httpx

    from kdcli.api import Reporter

CHAT = "chat/completions"
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # status codes after which the same request is sent again
OPTIONAL = (
    "max_tokens",
    "top_logprobs",
    "logprobs",
    "temperature",
    "n",
)  # what is left out for a server that refuses it
FEWER = 5  # `top_logprobs` of a server that refuses more
LONGEST = 60.0  # seconds of the longest pause between two tries
PATIENCE = 600.0  # seconds of the longest `Retry-After` that is waited for
Read = Callable[[Any], Any]  # a reply to JSON values; what the protocol lacks is a ValueError, KeyError or TypeError
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ServerOptions(BaseModel):
    """Where the server is, how it is asked, and how much."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)
    no_effect: ClassVar = frozenset(
        ("key_variable", "concurrency", "timeout", "tries", "max_requests", "max_cost", "input_price", "output_price")
    )

    endpoint: str = "https://api.openai.com/v1"
    """Address of the server, up to the path before `/chat/completions`."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; without a value no key is sent."""
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 16
    """Requests at once."""
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    """Seconds after which a request counts as failed."""
    tries: Annotated[int, Field(ge=1)] = 8
    """Times that a request is sent until the run stops; the pauses double, from one second to a minute."""
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
    def _prices(self) -> ServerOptions:
        if self.max_cost and not (self.input_price or self.output_price):
            raise ValueError("max_cost needs input_price and output_price")
        return self

    def cost(self, tokens: tuple[int, int]) -> float:
        """Return the price of tokens, those of prompts and those of answers."""
        return (tokens[0] * self.input_price + tokens[1] * self.output_price) / 1e6


class LimitReached(KdError):
    """As much was asked as the user allows."""


class Refused(Exception):
    """The server does not accept this request."""


@dataclass
class Failure(Exception):
    """A try failed, and another may not; ``after`` so many seconds, if the server says so."""

    what: str
    after: float | None = None


@dataclass
class Server:
    """A server, and what it has answered."""

    options: ServerOptions
    reporter: Reporter
    journal: Journal = field(default_factory=Journal)
    saved_seconds: float = 0.0  # that answers from the journal took when they were asked for
    _answers: bool = False  # whether it has answered in this process
    _refused: list[str] = field(default_factory=list)  # parameters
    _in_flight: int = 0
    _closed_until: float = 0.0  # it wants no request before

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold the connections for a block of requests."""
        import httpx

        headers = {"Authorization": f"Bearer {key}"} if (key := self._key()) else {}
        limits = httpx.Limits(max_connections=self.options.concurrency)
        async with httpx.AsyncClient(headers=headers, limits=limits, timeout=None) as self._client:
            yield

    def key(self, path: str, body: Mapping[str, Any], draw: int = 0) -> str:
        """Return the hash of a request; ``draw`` tells several answers to the same one apart."""
        return sha256(json.dumps([self.options.endpoint, path, body, draw]).encode()).hexdigest()[:32]

    async def ask(self, path: str, body: Mapping[str, Any], read: Read, *, draw: int = 0, tries: int = 0) -> Answer:
        """Return the answer to a request, which is sent unless the journal has it.

        Raises:
            DataError: The server speaks no such protocol, or refuses everything.
            KdError: It fails ``tries`` times in a row, by default as the options say.
            LimitReached: This request would go beyond the user's limits.
            MissingError: There is no server, no such model, or it does not accept the key.
        """
        key = self.key(path, body, draw)
        if known := self.journal.answers.get(key):
            self.saved_seconds += known.seconds
            return known
        self._check_limits(body)
        self._in_flight += 1
        begin = time.monotonic()
        try:
            value, tokens = await self._send(path, body, read, tries or self.options.tries)
        except Refused as error:
            if not self._answers:
                hint = "check teacher.model and the options teachers.llm"
                raise DataError(f"the server refuses the request: {error}", file=self._url(path), hint=hint) from error
            if path == CHAT:
                self.reporter.warn(f"the server refuses a text, which stays without an answer: {error}")
            value, tokens = None, (0, 0)
        finally:
            self._in_flight -= 1
        answer = Answer(value, tokens, time.monotonic() - begin)
        self.journal.add(key, answer)
        return answer

    def _check_limits(self, body: Mapping[str, Any]) -> None:
        options, asked, limit = self.options, self.journal.requests, ""
        spent = options.cost(self.journal.tokens)
        one = spent / asked if spent else options.cost((count_tokens(json.dumps(body)), 1))
        if options.max_requests and asked + self._in_flight >= options.max_requests:
            limit = "max_requests"
        elif options.max_cost and spent + one * (self._in_flight + 1) > options.max_cost:
            limit = "max_cost"
        if limit:
            what = f"{asked:,} requests are answered, at a cost of {spent:.4g}: teachers.llm.{limit} allows no more"
            hint = f"the answers are kept: raise it (--{limit.replace('_', '-')} N), and the same command goes on"
            raise LimitReached(what, hint=hint)

    async def _send(self, path: str, body: Mapping[str, Any], read: Read, tries: int) -> tuple[Any, tuple[int, int]]:
        """Send a request until it is answered; return what was read, and the tokens."""
        number = 0
        while True:
            while (wait := self._closed_until - time.monotonic()) > 0:
                await asyncio.sleep(wait * _jitter(1, 1.1))
            sent = self._accepted(body)
            try:
                reply = await self._post(path, sent)
                if reply.status_code == 200:
                    return self._read(reply, read, body)
                if reply.status_code not in AGAIN:
                    self._check_refusal(path, sent, body, reply)
                    continue
                after = _retry_after(reply.headers.get("retry-after", ""))
                failure = Failure(f"it answers {reply.status_code}: {self._text(reply)}", after)
            except Failure as error:
                failure = error
            number += 1
            if number == tries or (failure.after or 0) > PATIENCE:
                wants = f", and wants no request for {failure.after:.0f} s" if failure.after else ""
                hint = "lower teachers.llm.concurrency, or wait: the answers are kept, the same command goes on"
                what = f"the server failed {number} times in a row: {failure.what}{wants}"
                raise KdError(what, file=self._url(path), hint=hint)
            if failure.after is None:
                await asyncio.sleep(min(LONGEST, 2.0 ** (number - 1)) * _jitter(0.5, 1))
            else:
                self._closed_until = max(self._closed_until, time.monotonic() + failure.after)

    async def _post(self, path: str, sent: Mapping[str, Any]) -> httpx.Response:
        import httpx

        try:
            async with asyncio.timeout(self.options.timeout):
                return await self._client.post(self._url(path), json=sent)
        except TimeoutError:
            raise Failure(f"no answer within the {self.options.timeout:g} s of teachers.llm.timeout") from None
        except httpx.TransportError as error:
            if isinstance(error, httpx.ConnectError) and not self._answers:
                hint = "start it, or correct teachers.llm.endpoint"
                raise MissingError(f"no server answers: {error}", file=self._url(path), hint=hint) from error
            raise Failure(f"the connection broke: {error or type(error).__name__}") from error

    def _read(self, reply: httpx.Response, read: Read, body: Mapping[str, Any]) -> tuple[Any, tuple[int, int]]:
        try:
            found = reply.json()
            value, tokens = read(found), _tokens(found, body)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            what = f"the reply is none of the protocol: {self._text(reply)}"
            if self._answers:
                raise Failure(what) from None
            raise DataError(
                what, file=str(reply.url), hint="most endpoints end with /v1: teachers.llm.endpoint"
            ) from None
        self._answers = True
        return value, tokens

    def _check_refusal(self, path: str, sent: dict[str, Any], body: Mapping[str, Any], reply: httpx.Response) -> None:
        """Return if the request is worth another try without a parameter; else raise what the refusal means."""
        status, said, variable = reply.status_code, self._text(reply), self.options.key_variable
        if status in (401, 403):
            what = (
                f"does not accept the key in {variable}" if self._key() else f"wants a key, and {variable} is not set"
            )
            key, hint = "teachers.llm.key_variable", f"export {variable}=KEY"
            raise MissingError(f"the server {what} ({status})", file=self._url(path), key=key, hint=hint)
        if status == 404 and path == CHAT:
            hint = "check teachers.llm.endpoint, which often ends with /v1, and teacher.model"
            raise MissingError(f"the server knows no such path or model: {said}", file=self._url(path), hint=hint)
        if sent != self._accepted(body):  # another request has found out in the meantime
            return
        refused = [name for name in OPTIONAL if name in sent and re.search(rf"\b{name}\b", said)]
        if status not in (400, 422) or not refused:
            raise Refused(f"{status}, {said}")
        self._refused.append(refused[0])
        self.reporter.info(f"the server refuses {refused[0]} = {sent[refused[0]]}: it is asked otherwise")

    def _accepted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request without what the server has refused."""
        sent = {name: value for name, value in body.items() if name not in self._refused}
        if "max_tokens" in body and "max_tokens" in self._refused:  # newer models have another name for it
            sent["max_completion_tokens"] = body["max_tokens"]
        if "top_logprobs" in body and self._refused.count("top_logprobs") == 1:
            sent["top_logprobs"] = FEWER
        return sent

    def _key(self) -> str:
        return os.environ.get(self.options.key_variable, "").strip()

    def _url(self, path: str) -> str:
        return f"{self.options.endpoint}/{path}"

    def _text(self, reply: httpx.Response) -> str:
        """Return the beginning of what a server says, without the key."""
        key = self._key()
        said = " ".join((reply.text.replace(key, "***") if key else reply.text).split())
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
    try:
        return max(0.0, float(value))
    except ValueError:
        try:
            return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError):
            return None


def _jitter(low: float, high: float) -> float:
    return random.SystemRandom().uniform(low, high)  # leaves the state of other random numbers alone
