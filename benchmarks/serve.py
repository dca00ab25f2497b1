"""Load ``kd serve`` on the loopback: p50, p99 and requests a second at 1, 8 and 64 clients, and its memory over many.

    python benchmarks/serve.py runs/sst2 texts.txt                 # lines of text; --requests 200000 for memory

Each client keeps one connection and asks again when it has its answer, with a text of the file that it has not sent
before, as long as there are any. The clients run in a process of their own and share the cores with the service.
Memory is the service's resident size, as its own ``/metrics`` say, after each tenth of the last load's requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np

CLIENTS = (1, 8, 64)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: bytes | None) -> bytes:
    """Send a request over a connection that stays open, and return the body of the answer."""
    method = "GET" if body is None else "POST"
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body or b'')}\r\n\r\n".encode() + (body or b""))
    answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert answer.startswith("http/1.1 200"), answer
    return await reader.readexactly(int(answer.partition("content-length: ")[2].partition("\r\n")[0]))


async def client(port: int, bodies: Iterator[bytes], left: list[int], seconds: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while left[0] > 0:
        left[0] -= 1
        begin = time.perf_counter()
        found = await ask(reader, writer, "/predict", next(bodies))
        seconds.append(time.perf_counter() - begin)
        assert len(json.loads(found)["results"]) == 1
    writer.close()


async def load(port: int, bodies: Iterator[bytes], clients: int, requests: int) -> tuple[list[float], float]:
    """Return the seconds of each request, and of all."""
    left, seconds, begin = [requests], list[float](), time.perf_counter()
    await asyncio.gather(*(client(port, bodies, left, seconds) for _ in range(clients)))
    return seconds, time.perf_counter() - begin


async def figure(port: int, name: str) -> float:
    """Return a value of ``/metrics``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = (await ask(reader, writer, "/metrics", None)).decode().splitlines()
    writer.close()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def measure(port: int, bodies: Iterator[bytes], requests: int, many: int) -> None:
    print("clients    p50 ms    p99 ms    requests/s    lost")
    sent = 0
    for clients in CLIENTS:
        seconds, wall = await load(port, bodies, clients, requests)
        sent += requests
        counted = await figure(port, 'kd_requests_total{path="/predict",status="200"}')
        p50, p99 = np.percentile(seconds, (50, 99)) * 1000
        lost = sent - int(counted) + requests - len(seconds)
        print(f"{clients:7}{p50:10.2f}{p99:10.2f}{requests / wall:14,.0f}{lost:8}", flush=True)
    print(f"memory in MB after each tenth of {many:,} requests of 8 clients:")
    sizes = [await figure(port, "process_resident_memory_bytes") / 1e6]
    for _ in range(10 if many else 0):
        await load(port, bodies, 8, many // 10)
        sizes.append(await figure(port, "process_resident_memory_bytes") / 1e6)
    print("  ".join(f"{size:.1f}" for size in sizes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--each", type=int, default=4000, help="requests at each number of clients")
    parser.add_argument("--requests", type=int, default=0, help="requests for the memory; the issue asks for 200000")
    options = parser.parse_args()
    texts = [line for line in options.texts.read_text("utf-8").splitlines() if line.strip()]
    bodies = cycle([json.dumps({"texts": [text]}).encode() for text in dict.fromkeys(texts)])
    command = [sys.executable, "-m", "kdcli", "serve", "--student", options.student, "--port", "0", "--json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "KD_TOKEN"},
    ) as service:
        assert service.stdout
        url = json.loads("".join(iter(service.stdout.readline, "}\n")) + "}")["url"]
        try:
            asyncio.run(measure(int(url.rpartition(":")[2]), bodies, options.each, options.requests))
        finally:
            service.terminate()


if __name__ == "__main__":
    main()
