"""Time the teacher ``llm``: a server that answers in 100 ms and allows 16 requests at once.

    python benchmarks/llm.py

It prints the seconds that 2,000 texts take, and their ratio to the least that is possible: texts x 0.1 s / 16.
The server runs in a process of its own. On two cores that do other work too, the ratio is higher.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from kdcli import registry
from kdcli.api import QuietReporter

TEXTS, AT_ONCE, SECONDS = 2_000, 16, 0.1
SERVER = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).resolve().parents[1] / "tests")!r})
from llm_server import LLMServer
with LLMServer(seconds={SECONDS}) as server:
    print(server.endpoint, flush=True)
    sys.stdin.read()
"""


def main() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", SERVER], stdin=-1, stdout=-1, text=True) as server,
        TemporaryDirectory() as folder,
    ):
        assert server.stdin and server.stdout
        table = {"endpoint": server.stdout.readline().strip(), "concurrency": AT_ONCE}
        options = registry.options("teachers", "llm", table)
        plugin: object = registry.load("teachers", "llm")
        how = {"reporter": QuietReporter(), "answers": Path(folder) / "answers.jsonl"}
        teacher = plugin.load("m", options, labels=("negative", "positive"), **how)  # type: ignore[attr-defined]
        texts = [f"a good film, number {number}" for number in range(TEXTS)]
        begin, busy = time.perf_counter(), time.process_time()
        teacher.logits([texts], 64)
        seconds, busy = time.perf_counter() - begin, time.process_time() - busy
        server.stdin.close()
    least = TEXTS * SECONDS / AT_ONCE
    print(f"{TEXTS:,} texts: {seconds:.2f} s, {seconds / least:.3f} of the least possible; kd computes {busy:.2f} s")


if __name__ == "__main__":
    main()
