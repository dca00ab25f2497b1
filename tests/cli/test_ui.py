import io
import json
import os
import pty
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from kdcli.cli import ui
from kdcli.cli.progress import Reporting, Work, duration

WORKING = """
import sys, time
from kdcli.cli import ui
from kdcli.cli import GLOBAL
ui.configure(ui.Output(**{GLOBAL[flag]: True for flag in sys.argv[2:]}))
with ui.reporting("kd student") as reporter:
    with reporter.progress("student", 2000, "rows") as progress:
        print("a library prints")
        for step in range(40):
            progress.advance(50, loss=0.3125, best="0.912")
            time.sleep(float(sys.argv[1]))
            if step == 20:
                reporter.info("half way")
ui.show({"accuracy": 0.5})
"""


def in_terminal(*arguments, pace=0.001, code=WORKING, **environ):
    """Run the code above with stdout and stderr on a terminal; return what it would show."""
    leader, follower = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **environ}
    command = [sys.executable, "-c", code, str(pace), *arguments]
    process = subprocess.Popen(command, stdout=follower, stderr=follower, env=env)
    os.close(follower)
    seen = b""
    while True:
        if select.select([leader], [], [], 30)[0]:
            try:
                seen += os.read(leader, 65536)
            except OSError:
                break
    assert process.wait(30) == 0
    os.close(leader)
    return seen.decode()


def piped(*arguments, code=WORKING, **environ):
    env = {**os.environ, **environ}
    command = [sys.executable, "-c", code, "0.001", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=True)


def test_terminal_gets_a_live_panel():
    seen = in_terminal(pace=0.03)
    expected = ["kd student", "╭─", "━", "\x1b[", "/2,000 rows (", "rows/s", "loss 0.3125", "best 0.912", "ETA"]
    assert [part for part in (*expected, "half way", "a library prints") if part not in seen] == []
    last = seen.rpartition("\x1b[?25h")[2]  # after the cursor is back
    assert "student: 2,000 rows in 1." in last and "accuracy" in last


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [([], {"TERM": "dumb"}), (["--no-color", "--no-progress"], {}), (["--no-progress"], {"NO_COLOR": "1"})],
)
def test_terminal_without_a_panel_or_colours(arguments, environ):
    seen = in_terminal(*arguments, **environ)
    assert "TERM" in environ or "\x1b[" not in seen
    assert "─" not in seen and "\x1b[?25l" not in seen
    assert "student: 2,000 rows in" in seen


def test_elsewhere_plain_lines_json_is_one_object_and_of_several_ranks_the_first_reports():
    done = piped()
    assert done.stdout == "accuracy  0.5\n"
    lines = done.stderr.splitlines()
    assert lines[:2] == ["a library prints", "half way"]
    assert lines[2].startswith("student: 2,000 rows in 0.") and lines[2].endswith("rows/s), loss 0.3125, best 0.912")
    assert len(lines) == 3 and "\x1b" not in done.stderr
    assert json.loads(piped("--json").stdout) == {"accuracy": 0.5}
    for rank in ("0", "1"):
        assert ("half way" in piped(RANK=rank, WORLD_SIZE="2").stderr) == (rank == "0")


def test_force_color_colours_but_does_not_move():
    done = piped(FORCE_COLOR="1")
    assert "\x1b[?25l" not in done.stderr and "─" not in done.stderr
    code = "from kdcli.cli import ui; ui.warn('w'); ui.show({'a': 1}, lambda _: ui.Text('a', 'bold'))"
    done = piped(code=code, FORCE_COLOR="1", TERM="xterm-256color")
    assert "\x1b[33mwarning: " in done.stderr and "\x1b[1ma" in done.stdout
    done = piped(code=code, FORCE_COLOR="1", TERM="xterm-256color", NO_COLOR="1")
    assert "\x1b" not in done.stderr + done.stdout


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def work(clock, total=1000):
    return Work(Progress(auto_refresh=False, get_time=clock), "student", total, "rows", lambda _: None)


def test_rate_and_time_left(clock):
    job = work(clock)
    assert job.pace() == []
    job.advance(0)
    for _ in range(4):
        clock.now += 2
        job.advance(100, loss=0.5)
    assert job.counted() == "400/1,000 rows (40 %)"
    assert job.pace() == ["50 rows/s", "loss 0.5", "ETA 12.0 s"]
    assert job.finished() == "student: 400 rows in 8.0 s (50 rows/s), loss 0.5"
    job = work(clock)
    clock.now += 20  # the model is loaded
    job.advance(800)
    for _ in range(4):
        clock.now += 2
        job.advance(25)
    assert job.pace() == ["12 rows/s", "ETA 8.0 s"]
    assert job.finished() == "student: 900 rows in 28.0 s"  # how much of that was work is not known
    job = work(clock)
    job.advance(800)  # of an earlier run
    clock.now += 8
    job.advance(100)
    assert job.finished() == "student: 900 rows in 8.0 s (12 rows/s)"


def test_panel_at_80_columns_keeps_figures_whole_and_leaves_room_for_ctrl_c(clock):
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, markup=False)
    _, report = reporter(clock, console=console)
    with report.progress("fine-tune the teacher [/b]", 200_000, "updates") as outer, report.progress("dev", 100):
        for _ in range(3):
            clock.now += 2
            outer.advance(5, loss=0.0312, best="0.9123", learning_rate=0.001234)
        console.file.truncate(0)
        console.print(report._panel())
        lines = console.file.getvalue().replace("\x00", "").splitlines()
    assert max(map(len, lines)) <= 77
    expected = ["fine-tune the teacher [/b]", "15/200,000 updates (0 %)", "learning rate 0.001234", "ETA 22:13:14"]
    assert [whole for whole in expected if not any(whole in line for line in lines)] == []


def reporter(clock=None, **more):
    said = []

    def warn(text):
        said.append(f"warning: {text}")

    return said, Reporting("kd", say=said.append, warn=warn, clock=clock or Clock(), **more)


def test_plain_lines_of_work_every_few_seconds_and_none_where_it_is_inside_other_work_or_fails(clock):
    said, report = reporter(clock, interval=5.0)
    with report.progress("student", 100) as progress:
        for _ in range(12):
            clock.now += 1
            progress.advance(5, loss=0.25)
    assert said == [
        "student: 25/100 rows (25 %), 5 rows/s, loss 0.25, ETA 15.0 s",
        "student: 50/100 rows (50 %), 5 rows/s, loss 0.25, ETA 10.0 s",
        "student: 60 rows in 12.0 s (5 rows/s), loss 0.25",
    ]
    said, report = reporter(clock)
    with report.progress("epochs", 2, "epochs") as outer:
        with report.progress("dev", 10) as inner:
            inner.advance(10)
        clock.now += 1
        outer.advance()
    assert said == ["epochs: 1 epochs in 1.0 s"]
    said, report = reporter(clock)
    with pytest.raises(ValueError, match="no"), report.progress("student", 10) as progress:
        progress.advance(1)
        raise ValueError("no")
    with report.progress("nothing to do", 10):
        pass
    report.metrics("student", 1, loss=0.5)
    assert said == []
    said, report = reporter(clock, quiet=True)
    with report.progress("student", 10) as progress:
        clock.now += 60
        progress.advance(10)
    report.info("x")
    report.warn("careful")
    assert said == ["warning: careful"]
    said, report = reporter(verbose=True)
    report.metrics("student", 1, loss=0.5, accuracy=0.75)
    assert said == ["student 1: loss 0.5, accuracy 0.75"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (8.24, "8.2 s"), (187, "3:07"), (3725.4, "1:02:05"), (59.96, "60.0 s")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@dataclass
class Result:
    rows: int
    path: Path
    best: float
    metrics: dict[str, float]


def test_any_result_is_json_or_laid_out_and_text_like_markup_is_shown_as_it_is(capsys):
    ui.configure(ui.Output(json=True))
    ui.show(Result(3, Path("a/b"), float("nan"), {"accuracy": np.float32(0.5), "n": np.int64(3)}), lambda _: "never")
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"rows": 3, "path": "a/b", "best": None, "metrics": {"accuracy": 0.5, "n": 3}}
    ui.configure(ui.Output())
    records = [Result(3, Path("a"), 0.5, {}), Result(40_000, Path("b"), float("nan"), {})]
    lists = {"rows": records, "texts": ["x " * 40, "[bold]"], "n": []}
    ui.show({"dev": {"accuracy": 0.91, "f1": 1e-9}, "done": True, **lists})
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == ["dev accuracy 0.91", "dev f1 1e-09", "done yes"]
    assert ["rows", "path", "best", "metrics"] in [line.split() for line in lines]
    assert "40,000 b {}" in lines and lines[-1] == "[bold]"
    rows = [{"label": "x[/b]", "[/i]": 3}]
    ui.show({"[bold]": "[/b]", "rows": rows}, lambda result: ui.panel("title [/b]", ui.describe(result)))
    shown = capsys.readouterr().out
    assert [text for text in ("title [/b]", "[bold]", "x[/b]", "[/i]") if text not in shown] == []
    ui.info("[/b]")
    ui.warn("[/b]")
    assert capsys.readouterr().err == "[/b]\nwarning: [/b]\n"


def test_names_stay_whole_in_a_narrow_table():
    rows = [{"model": "baseline-of-a-long-name", **{f"a figure {n}": 1234567 for n in range(12)}}]
    console = Console(file=io.StringIO(), width=80)
    console.print(ui.records(rows))
    assert "baseline-of-a-long-name" in console.file.getvalue()


def test_spinner_until_something_is_shown():
    """The imports of a command take seconds; what comes after the spinner erases it."""
    code = WORKING.replace("with ui.reporting", "ui.spin('kd student'); time.sleep(0.2)\nwith ui.reporting")
    seen = in_terminal(code=code)
    assert "kd student: starting" in seen
    assert "starting" not in seen.partition("half way")[2]
    assert "starting" not in in_terminal("--no-progress", code=code) + in_terminal("--quiet", code=code)
