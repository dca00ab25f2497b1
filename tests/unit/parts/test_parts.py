import os
import signal
import subprocess
import sys
import time
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
from notes import Notes
from raising import raising

from kdcli.errors import DataError, KdError
from kdcli.parts import LocalEngine, Parts

SIZES = [3, 3, 3, 2]


def write(part: int, path: Path, *, word: str = "part") -> None:
    path.write_text(f"{word} {part} ")


def write_and_log(part: int, path: Path, *, log: list[int], fail_at: int | None = None) -> None:
    if part == fail_at:
        path.write_text("half of")
        raise RuntimeError("stopped")
    log.append(part)
    write(part, path)


def fail(part: int, path: Path) -> None:
    raise DataError("bad row", file="x.tsv", row=7, hint="mend it")


def die(part: int, path: Path) -> None:
    os._exit(9)


def opened(folder: Path, *, name: str = "work.parts", **changes) -> Parts:
    settings = {"fingerprint": {"seed": 1}, "suffix": ".txt"} | changes
    return Parts(folder / name, **settings)


def make(parts: Parts, part: int, make_part) -> None:
    assert list(parts.made([part], SIZES.__getitem__, make_part)) in ([], [part])


def joined(folder: Path, parts: Parts, count: int = len(SIZES)) -> str:
    def join(paths: list[Path]) -> int:
        return (folder / "all").write_text("".join(path.read_text() for path in paths))

    assert parts.assemble(count, join) == len((folder / "all").read_text())
    return (folder / "all").read_text()


WHOLE = "part 0 part 1 part 2 part 3 "


def test_parts_are_put_together_in_order_and_nothing_is_left(tmp_path, notes):
    with opened(tmp_path, reporter=notes) as parts:
        parts.make(SIZES, write, title="t")
        assert joined(tmp_path, parts) == WHOLE
    assert (notes.rows, notes.total) == (11, 11)
    assert [path.name for path in tmp_path.iterdir()] == ["all"]


def test_resumes_at_the_first_missing_part(tmp_path, notes):
    log: list[int] = []
    with pytest.raises(RuntimeError), opened(tmp_path) as parts:
        parts.make(SIZES, partial(write_and_log, log=log, fail_at=2), title="t")
    assert log == [0, 1]
    names = sorted(path.name for path in (tmp_path / "work.parts").iterdir())
    assert names == ["000000.txt", "000000.txt.sha256", "000001.txt", "000001.txt.sha256", "fingerprint.json"]
    assert (tmp_path / "work.parts" / names[1]).read_text() == sha256(b"part 0 ").hexdigest()
    with opened(tmp_path, reporter=notes) as parts:
        assert parts.finished() == [0, 1]
        parts.make(SIZES, partial(write_and_log, log=log), title="t")
        assert joined(tmp_path, parts) == WHOLE
    assert log == [0, 1, 2, 3]
    assert (notes.rows, notes.warnings) == (11, [])


def test_changed_fingerprint_starts_again_and_says_why(tmp_path, notes):
    with opened(tmp_path, fingerprint={"seed": 1, "n_iter": 2, "kept": (1, 2)}) as parts:
        parts.make(SIZES, write, title="t")
    with opened(tmp_path, fingerprint={"seed": 1, "n_iter": 3, "kept": (1, 2)}, reporter=notes) as parts:
        assert parts.finished() == []
    assert notes.warnings == ["n_iter changed (2 -> 3): starting again"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {
    "cut": truncate,
    "a changed byte": lambda path: path.write_bytes(b"?" + path.read_bytes()[1:]),
    "no checksum": lambda path: path.with_name(f"{path.name}.sha256").unlink(),
}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_part_is_made_again_and_said(tmp_path, notes, damage, workers):
    with opened(tmp_path) as parts:
        parts.make(SIZES, write, title="t", workers=workers)
        for part in (1, 3):
            damage(parts.path(part))
    log: list[int] = []
    with opened(tmp_path, reporter=notes) as parts:
        assert parts.finished() == [0, 2]
        parts.make(SIZES, partial(write_and_log, log=log), title="t")
    assert log == [1, 3]
    with opened(tmp_path, reporter=notes) as parts:  # what was made again is whole
        assert joined(tmp_path, parts) == WHOLE
    assert notes.warnings == [f"part {part} is damaged: it is made again" for part in (1, 3)]


@pytest.mark.parametrize(
    "damage", [truncate, lambda path: path.write_bytes(b"\xff"), lambda path: path.write_text("7")]
)
def test_a_damaged_fingerprint_starts_again_and_is_said(tmp_path, damage, notes):
    with opened(tmp_path) as parts:
        parts.make(SIZES, write, title="t")
        damage(parts.folder / "fingerprint.json")
    with opened(tmp_path, reporter=notes) as parts:
        assert parts.finished() == []
    assert len(notes.warnings) == 1


def test_parts_whose_number_is_not_known_beforehand(tmp_path):
    log: list[int] = []
    with opened(tmp_path) as parts:
        assert parts.finished() == []
        for part in (10, 2, 1_000_000, 0, 2):
            make(parts, part, partial(write_and_log, log=log))
        with pytest.raises(DataError):
            make(parts, 1, fail)
        (parts.folder / "texts.txt").touch()  # work keeps files of its own here
        assert parts.finished() == [0, 2, 10, 1_000_000]
    assert log == [10, 2, 1_000_000, 0]
    with opened(tmp_path) as parts:
        assert parts.finished() == [0, 2, 10, 1_000_000]
        make(parts, 1, write)
        assert joined(tmp_path, parts, 3) == "part 0 part 1 part 2 "
        assert parts.finished() == []


def test_parts_are_thrown_away_if_asked(tmp_path, notes):
    with opened(tmp_path) as parts:
        parts.make(SIZES, write, title="t")
    with opened(tmp_path, resume=False, reporter=notes) as parts:
        assert parts.finished() == []
        parts.make(SIZES[:3], partial(write, word="new"), title="t")
    with opened(tmp_path, resume=False, fingerprint={"seed": 2}, reporter=notes) as parts:
        assert parts.finished() == []
    assert notes.warnings == []


def test_files_of_the_user_in_the_folder_stay(tmp_path):
    folder = tmp_path / "work.parts"
    with pytest.raises(RuntimeError), opened(tmp_path) as parts:
        parts.make(SIZES, partial(write_and_log, log=[], fail_at=2), title="t")
    mine = folder / "deep" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    before = sorted(folder.rglob("*"))
    for changes in ({"resume": False}, {"fingerprint": {"seed": 2}}):  # the folder would be emptied
        with raising(DataError, file=mine), opened(tmp_path, **changes):
            raise AssertionError
        assert sorted(folder.rglob("*")) == before
    with opened(tmp_path) as parts:
        parts.make(SIZES, write, title="t")
        assert joined(tmp_path, parts) == WHOLE
    assert sorted(folder.rglob("*")) == [mine.parent, mine], "only what kd made is removed"


def test_one_launch_at_a_time(tmp_path):
    with opened(tmp_path) as parts:
        with raising(KdError, file=parts.folder), opened(tmp_path):
            pass
        parts.make(SIZES, write, title="t")
        assert joined(tmp_path, parts) == WHOLE


def test_one_pool_serves_several_calls_and_errors_come_through(tmp_path):
    wrong = raising(DataError, "bad row", file="x.tsv", row=7, hint="mend")
    with LocalEngine() as engine:
        for name in ("a", "b"):
            reporter = Notes()
            with opened(tmp_path, name=name, engine=engine, reporter=reporter) as parts:
                parts.make(SIZES, write, title="t", workers=2)
                assert (reporter.rows, joined(tmp_path, parts)) == (11, WHOLE)
        with opened(tmp_path, engine=engine) as parts, wrong:
            parts.make(SIZES, fail, title="t", workers=2)


def test_a_worker_that_dies_is_an_error_with_a_hint(tmp_path):
    with opened(tmp_path) as parts, raising(KdError, "worker process died", hint=True):
        parts.make(SIZES, die, title="t", workers=2)


SLOW = """
import os, time

def make(part, path):
    (path.parents[1] / f"pid{os.getpid()}").touch()
    time.sleep(60)
"""
# A script of a user, who does not know that there are processes: without a guard for __main__.
SCRIPT = """
import sys
from pathlib import Path
from kdcli.parts import Parts
from slow import make

with Parts(Path(sys.argv[1]) / "p", {}, suffix=".x") as parts:
    parts.make([1, 1], make, title="t", workers=2)
"""


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at /proc")
def test_workers_end_when_the_parent_is_killed_and_the_work_can_go_on(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    try:
        wait_until(lambda: len(list(tmp_path.glob("pid*"))) == 2)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    pids = [int(path.name[3:]) for path in tmp_path.glob("pid*")]
    wait_until(lambda: not any(alive(pid) for pid in pids))
    with Parts(tmp_path / "p", {}, suffix=".x") as parts:
        parts.make([1, 1], write, title="t")
        assert parts.finished() == [0, 1]


def wait_until(true, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
