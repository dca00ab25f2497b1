"""The trainings of several seeds, as parts: an engine runs several at once."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, Self

from kdcli.api import QuietReporter, Reporter
from kdcli.parts import LocalEngine, usable_cores
from kdcli.run.stage import RunContext, Stage
from kdcli.tasks.split import SPLITS


@dataclass(frozen=True)
class SeedPart:
    """Runs a stage for one of several seeds; returns its result, and the seconds that it took."""

    stage: Stage
    runs: Mapping[int, RunContext]
    at_once: int  # how many share the cores of this machine

    @classmethod
    def of(cls, stage: Stage, runs: Mapping[int, RunContext], at_once: int) -> Self:
        """Read the tables that all seeds need, once."""
        first = next(iter(runs.values()))
        tables: dict[str, Any] = {split: first.read(split) for split in SPLITS if split in stage.reads}
        bare = replace(first, device=first.parts_device, engine=LocalEngine(), reporter=QuietReporter(), tables=tables)
        return cls(stage, {number: replace(bare, number=run.number) for number, run in runs.items()}, at_once)

    def __call__(self, part: int, path: Path, *, reporter: Reporter) -> tuple[Any, float]:
        """Run the stage so that its output is ``path``."""
        from kdcli.models.device import resolve

        if parent_process():
            import torch

            torch.set_num_threads(max(1, usable_cores() // self.at_once))
        run, begin, (output,) = self.runs[part], time.perf_counter(), self.stage.makes
        elsewhere = {**run.elsewhere, output: path}
        own = replace(run, device=resolve(run.device), elsewhere=elsewhere, reporter=reporter)
        return self.stage.run(own), time.perf_counter() - begin
