from contextlib import contextmanager
from dataclasses import dataclass, field

from kdcli.api import QuietReporter


@dataclass
class Notes(QuietReporter):
    """Keeps messages, scores and counts, and can end a training like Ctrl-C, at update ``kill_at`` or at a point."""

    kill_at: int | None = None
    kill_at_point: int | None = None
    updates: int = 0
    rows: int = 0
    total: int | None = None
    warnings: list = field(default_factory=list)
    infos: list = field(default_factory=list)
    points: list = field(default_factory=list)
    shown: dict = field(default_factory=dict)

    @property
    def scores(self):
        return [next(iter(values.values())) for *_, values in self.points]

    def advance(self, steps=1, **shown):
        self.updates += steps == 1
        self.rows += steps
        self.shown = shown
        if self.updates == self.kill_at:
            raise KeyboardInterrupt

    @contextmanager
    def progress(self, title, total=None, unit="rows"):
        self.total = total
        yield self

    def warn(self, message):
        self.warnings.append(message)

    def info(self, message):
        self.infos.append(message)

    def metrics(self, stage, step, **values):
        self.points.append((stage, step, values))
        if len(self.points) == self.kill_at_point:
            raise KeyboardInterrupt
