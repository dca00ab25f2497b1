"""What a billion texts take on many machines: a small simulation of the parts of ``kd teacher export`` on Ray.

    python benchmarks/scale.py
    python benchmarks/scale.py --texts 1e8 --nodes 8 --rate 40

A node makes a part in ``rows / (rate x processes)`` seconds, with a spread; it fails now and then, and its parts are
made again. The driver reads a part, sends it, takes what comes back and writes it, one part after the other: that is
``--driver`` seconds a part (measured: 8 ms of processor, of 4096 texts). At the end it joins the logits to the texts:
it holds ``--memory`` bytes a row, the logits, their hashes and the order of these. Give your own bytes and rates. It
prints which of nodes, driver, network and disk is the first that would have to be faster, and what memory it takes.
"""

from __future__ import annotations

import argparse
import heapq
import random

ROWS = 4096


def simulate(options: argparse.Namespace) -> dict[str, float]:
    """Return seconds until the last part is written, and the share of it that driver and nodes are busy."""
    draw, parts = random.Random(1), int(options.texts / ROWS)
    slots = options.nodes * options.processes
    scale = max(1, parts // 200_000)  # simulate fewer, larger parts: only the end of the run would differ
    parts, mean, driver = parts // scale, scale * ROWS / options.rate, scale * options.driver
    free = [(options.start, slot) for slot in range(slots)]  # when each process is free, from its start on
    heapq.heapify(free)
    clock, working, again, lost = 0.0, 0.0, 0, options.failures * options.nodes / (24 * 3600)
    done, left = 0.0, parts
    while left:
        when, slot = heapq.heappop(free)
        clock = max(clock, when) + driver / 2  # the driver reads and sends
        took = mean * draw.lognormvariate(0, options.spread)
        failed = draw.random() < lost * took / options.nodes
        again += failed
        left -= not failed
        working += took
        end = clock + took + (options.start if failed else 0)
        clock += 0 if failed else driver / 2  # and it writes what has come back
        done = max(done, end, clock)
        heapq.heappush(free, (end, slot))
    return {"seconds": done, "driver": parts * driver / done, "nodes": working / done / slots, "again": again * scale}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=float, default=1e9)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--processes", type=int, default=16, help="of a node: cores, or GPUs")
    parser.add_argument("--rate", type=float, default=60.0, help="texts a second of one process")
    parser.add_argument("--driver", type=float, default=0.01, help="seconds of the driver for a part")
    parser.add_argument("--start", type=float, default=20.0, help="seconds until a process has loaded its model")
    parser.add_argument("--spread", type=float, default=0.2, help="of a part's time (sigma of its logarithm)")
    parser.add_argument("--failures", type=float, default=0.05, help="of a node in a day")
    parser.add_argument("--bytes-text", type=float, default=75.0, help="of a text, as it is sent")
    parser.add_argument("--bytes-answer", type=float, default=12.0, help="of a row of a part")
    parser.add_argument("--memory", type=float, default=32.0, help="bytes of a row as the logits are joined")
    parser.add_argument("--model", type=float, default=1.3e9, help="bytes of the teacher, sent to each node")
    parser.add_argument("--network", type=float, default=1.25e9, help="bytes a second of the driver")
    parser.add_argument("--disk", type=float, default=2e8, help="bytes a second that the driver writes")
    parser.add_argument("--price", type=float, default=0.6, help="of a node for an hour")
    options = parser.parse_args()

    found = simulate(options)
    sent = options.texts * (options.bytes_text + options.bytes_answer) + options.nodes * options.model
    written = options.texts * (options.bytes_answer + 24)  # the parts, and then the file of them
    busy = {
        "the nodes": found["nodes"],
        "the driver": found["driver"],
        "its network": sent / options.network / found["seconds"],
        "its disk": written / options.disk / found["seconds"],
    }
    print(f"{options.texts:,.0f} texts, {options.nodes} nodes of {options.processes} processes")
    print(f"time {found['seconds'] / 3600:.1f} h; cost {found['seconds'] / 3600 * options.price * options.nodes:,.0f}")
    print(f"network {sent / 1e9:,.0f} GB; disk {written / 1e9:,.0f} GB; parts made again {found['again']:,.0f}")
    for name, share in sorted(busy.items(), key=lambda one: -one[1]):
        print(f"{name:12} busy {share:6.1%}")
    # What the driver can take: more nodes than this only wait for it.
    memory = options.texts * options.memory
    limit = ROWS / options.driver / options.rate / options.processes
    print(f"the driver is the limit from {limit:,.0f} nodes on; at the end it needs {memory / 1e9:,.0f} GB of memory")


if __name__ == "__main__":
    main()
