"""The HTTP service: a student behind ``/predict`` and ``/explain``, with ``/health``, ``/metrics`` and a web page."""

# FastAPI reads the annotations of endpoints as values, also those made here: none is postponed.
import asyncio
import errno
import secrets
import signal
import socket
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from pydantic import Field, create_model
from pydantic_core import to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kdcli import __version__
from kdcli.errors import DataError, KdError
from kdcli.student.explain import Explanation
from kdcli.student.student import Student
from kdcli.tasks.answers import LabelSet, Prediction, Score

PATHS = ("/predict", "/explain", "/health", "/metrics")  # the paths that are counted by name
_STOP = 8  # seconds for requests in work when it stops: less than the ten of `docker stop`
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
"""The bounds of the histogram of a request's time."""
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_PREDICT = "Predict a label, a set of labels, or a score for each text, or pair of texts, in their order."
_EXPLAIN = "Say for each text what its answer loses when a word, or two neighbours, are masked."

Compute = Callable[[list[Any]], Sequence[Any]]  # texts, or pairs of texts, to a result for each


@dataclass(frozen=True)
class Limits:
    """What a request may hold; a larger one is refused with the status 413 or 422, and the reason."""

    texts: int = 1000  # of /predict
    explained: int = 20  # of /explain, which computes a text once for each word and each two neighbours
    characters: int = 20_000  # of each text
    bytes: int = 4_000_000  # of the whole request


def create_app(
    student: Student, *, limits: Limits | None = None, token: str | None = None, web: Path | None = None
) -> FastAPI:
    """Return the service as an ASGI application.

    A student that was calibrated says which texts it defers. Clients send ``token`` as ``Authorization: Bearer TOKEN``;
    ``/health`` and the pages are open to all. ``web`` is a folder of ``kd export web``, the page at ``/``; one without
    a page is a ``DataError``. Without it ``/`` leads to ``/docs``.
    """
    if web is not None and not (web / "index.html").is_file():
        raise DataError("this folder has no web page", file=web, hint="`kd export web --output FOLDER` writes one")
    limits, task, metrics = limits or Limits(), student.task, CollectorRegistry()
    app = FastAPI(title=f"kd serve: {task.name}", version=__version__)
    app.add_middleware(Watch, limit=limits.bytes, metrics=metrics)
    app.exception_handler(RequestValidationError)(_invalid)
    ProcessCollector(registry=metrics)
    count = Counter("kd_texts", "Texts that were predicted or explained.", registry=metrics)
    guard = [] if token is None else [Depends(_guard(token))]
    thread = ThreadPoolExecutor(1)
    text: Any = Annotated[str, Field(max_length=limits.characters)]
    row: Any = text if task.kind == "single" else tuple[text, text]

    def add(path: str, compute: Compute, result: Any, most: int, about: str) -> None:
        name = path.removeprefix("/").capitalize()
        texts: Any = Annotated[list[row], Field(min_length=1, max_length=most)]
        body: Any = create_model(f"{name}Request", texts=(texts, ...))
        answer = create_model(f"{name}Response", results=(list[result], ...))
        together = Together(compute, thread)

        @app.post(path, response_model=answer, dependencies=guard, summary=name, description=about)
        async def endpoint(request: body) -> Response:
            results = await together(request.texts)  # type: ignore[attr-defined]
            count.inc(len(results))
            return Response(to_json({"results": results}), media_type="application/json")

    kind = Score if task.is_score else LabelSet if task.multi_label else Prediction
    defer = student.calibration is not None
    add("/predict", lambda texts: student.predict(texts, defer=defer), kind, limits.texts, _PREDICT)
    add("/explain", student.explain, Explanation, limits.explained, _EXPLAIN)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Say that the service works, and what it predicts."""
        return {"status": "ok", "task": task.name, "kind": task.kind, "labels": task.labels, "calibrated": defer}

    @app.get("/metrics", dependencies=guard)
    async def of_prometheus() -> Response:
        """Return counts, times and memory for Prometheus."""
        return Response(generate_latest(metrics), media_type=PROMETHEUS)

    if web is not None:
        app.mount("/", StaticFiles(directory=web, html=True))
    else:
        app.get("/", include_in_schema=False)(lambda: RedirectResponse("docs"))
    return app


def serve(app: FastAPI, *, host: str, port: int, ready: Callable[[str], object]) -> None:
    """Serve until SIGINT or SIGTERM, and answer within 8 seconds what has been asked before; port 0 is a free one.

    ``ready`` gets the service's URL once it listens. An address that it cannot listen at is a ``KdError``.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        what = f"port {port} is taken" if taken else f"cannot listen at {host}, port {port}: {error.strerror or error}"
        hint = "--port 0 takes a free one" if taken else "name an address of this machine with --host"
        raise KdError(what, hint=hint) from error
    # Without these a signal ends the process once more after the service has ended well.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    warnings.filterwarnings("ignore", ".* texts are empty")  # which is the client's affair
    name = f"[{host}]" if ":" in host else host
    ready(f"http://{name}:{listening.getsockname()[1]}")
    how: dict[str, Any] = {"log_level": "warning", "access_log": False, "lifespan": "off"}
    uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=_STOP, **how)).run([listening])


def _guard(token: str) -> Callable[..., None]:
    def guard(given: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]) -> None:
        # Bytes of a header are read as Latin-1.
        if given is None or not secrets.compare_digest(given.credentials.encode("latin-1"), token.encode()):
            what = "the token is wrong" if given else "a token is needed: Authorization: Bearer TOKEN"
            raise HTTPException(401, what, {"WWW-Authenticate": "Bearer"})

    return guard


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """Say what is wrong where, but not repeat the text, which may be long or private."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        return JSONResponse({"detail": "the body is JSON: send the header Content-Type: application/json"}, 415)
    detail = []
    for one in error.errors():
        why = f": {one['ctx']['error']}" if one["type"] == "json_invalid" else ""  # the parser's, which repeats nothing
        detail.append({"loc": one["loc"], "msg": one["msg"] + why, "type": one["type"]})
    return JSONResponse({"detail": detail}, 422)


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
