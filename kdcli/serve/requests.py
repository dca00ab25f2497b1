"""What happens to every request: it is counted, timed and limited, and computed together with those that wait too."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import HTTPException
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATHS = ("/predict", "/explain", "/health", "/metrics")  # the paths that are counted by name
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
"""The bounds of the histogram of a request's time."""

Compute = Callable[[list[Any]], Sequence[Any]]  # texts, or pairs of texts, to a result for each


class Together:
    """Computes texts in a thread; requests that come meanwhile go together into the next call, which saves time."""

    def __init__(self, compute: Compute, thread: ThreadPoolExecutor) -> None:
        self.compute = compute
        self.thread = thread
        self.waiting: list[tuple[list[Any], asyncio.Future[list[Any]]]] = []
        self.work: asyncio.Task[None] | None = None

    async def __call__(self, texts: list[Any]) -> list[Any]:
        """Return the result of each text."""
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.waiting.append((texts, answer))
        if self.work is None:
            self.work = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        while self.waiting:
            requests, self.waiting = self.waiting, []
            texts = [text for own, _ in requests for text in own]
            try:
                results = iter(await asyncio.get_running_loop().run_in_executor(self.thread, self.compute, texts))
            except Exception as error:
                for _, answer in requests:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for own, answer in requests:
                mine = [next(results) for _ in own]
                if not answer.done():  # a second Ctrl-C cancels it
                    answer.set_result(mine)
        self.work = None


class Watch:
    """Counts and times requests, and refuses one with too many bytes before all of it is read."""

    def __init__(self, app: ASGIApp, *, limit: int, metrics: CollectorRegistry) -> None:
        self.app = app
        self.limit = limit
        self.requests = Counter("kd_requests", "Requests.", ["path", "status"], registry=metrics)
        about = "Seconds that a request takes."
        self.seconds = Histogram("kd_request_seconds", about, ["path"], registry=metrics, buckets=SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        length = dict(scope["headers"]).get(b"content-length", b"")
        announced = int(length) if length.isdigit() else 0
        received, status = 0, 500

        async def limited() -> Message:
            nonlocal received
            if announced <= self.limit:
                message = await receive()
                received += len(message.get("body", b""))
                if received <= self.limit:
                    return message
            raise HTTPException(413, f"a request may have {self.limit:,} bytes: send fewer texts at once")

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        path = scope["path"] if scope["path"] in PATHS else "other"
        begin = time.perf_counter()
        try:
            await self.app(scope, limited, noted)
        finally:
            self.requests.labels(path, str(status)).inc()
            self.seconds.labels(path).observe(time.perf_counter() - begin)
