"""How long `kd --help` takes, against the import of torch that it avoids.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

ROUNDS = 7
COMMANDS = {"kd --help": ["-m", "kdcli", "--help"], "import torch": ["-c", "import torch"]}


def main() -> None:
    """Time both in turns, each in a process of its own."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    table = Table("", "seconds", "ratio", "needed")
    table.add_row("import torch", f"{medians['import torch']:.2f}", "", "")
    ratio = medians["import torch"] / medians["kd --help"]
    table.add_row("kd --help", f"{medians['kd --help']:.2f}", f"{ratio:.1f}x", "5x, and under 0.3 s")
    Console().print(table)


if __name__ == "__main__":
    main()
