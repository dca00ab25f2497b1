"""The processor time of `kd --help` and of `kd predict`, against the import of torch that both avoid.

python benchmarks/startup.py [STUDENT]
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

from rich.console import Console
from rich.table import Table

ROUNDS = 7
COMMANDS = {"import torch": ["-c", "import torch"], "kd --help": ["-m", "kdcli", "--help"]}


def main() -> None:
    """Time the commands in turns, each in a process of its own, after a first round that warms the disk."""
    commands = dict(COMMANDS)
    for student in sys.argv[1:]:
        commands["kd predict, one line"] = ["-m", "kdcli", "predict", "--student", student]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS + 1):
        for name, arguments in commands.items():
            seconds[name].append(processor_seconds([sys.executable, *arguments]))
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    table = Table("", "seconds of the processor", "times faster")
    for name, median in medians.items():
        table.add_row(name, f"{median:.2f}", f"{medians['import torch'] / median:.1f}x")
    Console().print(table, "To reach: kd --help at least 6x.")


def processor_seconds(command: list[str]) -> float:
    """Return user and system time of a process and of those that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, input=b"a gripping film\n", check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
