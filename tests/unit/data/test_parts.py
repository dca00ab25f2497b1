import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from kdcli.api import QuietReporter
from kdcli.data.parts import Parts, Shard, processes
from kdcli.errors import DataError, KdError, UsageError

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


class Listener(QuietReporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.done = 0
        self.total: int | None = 0

    def progress(self, title, total=None, unit="rows"):
        self.total = total
        return super().progress(title, total, unit)

    def advance(self, steps: int = 1, **shown) -> None:
        self.done += steps

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def opened(folder: Path, **changes) -> Parts:
    settings = {"fingerprint": {"seed": 1}, "suffix": ".txt"} | changes
    return Parts(folder / "work.parts", **settings)


def joined(folder: Path, parts: Parts, count: int = len(SIZES)) -> str | None:
    done = parts.assemble(count, lambda paths: (folder / "all").write_text("".join(p.read_text() for p in paths)))
    return (folder / "all").read_text() if done else None


WHOLE = "part 0 part 1 part 2 part 3 "


@pytest.mark.parametrize(("text", "shard"), [("0/1", Shard(0, 1)), ("2/3", Shard(2, 3))])
def test_shard_is_read(text, shard):
    assert Shard.parse(text) == shard


@pytest.mark.parametrize("text", ["1/1", "3", "a/b", "-1/2", "0/0", ""])
def test_wrong_shard_is_a_usage_error(text):
    with pytest.raises(UsageError):
        Shard.parse(text)


def test_shard_comes_from_the_environment(monkeypatch):
    assert Shard.parse(None) == Shard(0, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert Shard.parse(None) == Shard(1, 4)


def test_parts_are_put_together_in_order_and_nothing_is_left(tmp_path):
    reporter = Listener()
    with opened(tmp_path, reporter=reporter) as parts:
        parts.make(SIZES, write, title="t")
        assert joined(tmp_path, parts) == WHOLE
    assert (reporter.done, reporter.total) == (11, 11)
    assert [path.name for path in tmp_path.iterdir()] == ["all"]


def test_no_parts_at_all(tmp_path):
    with opened(tmp_path) as parts:
        parts.make([], write, title="t")
        assert joined(tmp_path, parts, 0) == ""


def test_resumes_at_the_first_missing_part(tmp_path):
    log: list[int] = []
    with pytest.raises(RuntimeError), opened(tmp_path) as parts:
        parts.make(SIZES, partial(write_and_log, log=log, fail_at=2), title="t")
    assert log == [0, 1]
    names = sorted(path.name for path in (tmp_path / "work.parts").iterdir())
    assert names == ["000000.txt", "000001.txt", "fingerprint.json"]
    reporter = Listener()
    with opened(tmp_path, reporter=reporter) as parts:
        assert parts.missing(4) == [2, 3]
        parts.make(SIZES, partial(write_and_log, log=log), title="t")
        assert joined(tmp_path, parts) == WHOLE
    assert log == [0, 1, 2, 3]
    assert reporter.done == 11
    assert reporter.warnings == []


def test_changed_fingerprint_starts_again_and_says_why(tmp_path):
    with opened(tmp_path, fingerprint={"seed": 1, "n_iter": 2, "kept": (1, 2)}) as parts:
        parts.make(SIZES, write, title="t")
    reporter = Listener()
    with opened(tmp_path, fingerprint={"seed": 1, "n_iter": 3, "kept": (1, 2)}, reporter=reporter) as parts:
        assert parts.missing(4) == [0, 1, 2, 3]
    assert reporter.warnings == ["n_iter changed (2 -> 3): starting again"]


def test_folder_without_a_fingerprint_is_not_trusted(tmp_path):
    with opened(tmp_path) as parts:
        parts.make(SIZES, write, title="t")
        (parts.folder / "fingerprint.json").unlink()
    with opened(tmp_path) as parts:
        assert parts.missing(4) == [0, 1, 2, 3]
        assert json.loads((parts.folder / "fingerprint.json").read_text()) == {"seed": 1}


def test_shards_share_the_parts(tmp_path):
    log: dict[int, list[int]] = {0: [], 1: []}
    for index in (0, 1):
        with opened(tmp_path, shard=Shard(index, 2)) as parts:
            parts.make(SIZES, partial(write_and_log, log=log[index]), title="t")
            assert joined(tmp_path, parts) == (WHOLE if index else None)
    assert log == {0: [0, 2], 1: [1, 3]}
    assert [path.name for path in tmp_path.iterdir()] == ["all"]


def test_a_shard_that_comes_after_assembly_does_not_assemble_again(tmp_path):
    with opened(tmp_path, shard=Shard(0, 2)) as late, opened(tmp_path, shard=Shard(1, 2)) as parts:
        late.make(SIZES, write, title="t")
        parts.make(SIZES, write, title="t")
        assert joined(tmp_path, parts) == WHOLE
        assert joined(tmp_path, late) is None
    assert [path.name for path in tmp_path.iterdir()] == ["all"]


def test_work_that_every_shard_needs_is_done_by_whoever_comes_first(tmp_path):
    log: list[int] = []
    reporter = Listener()
    with opened(tmp_path, shard=Shard(1, 2), reporter=reporter) as parts:
        parts.make(SIZES, partial(write_and_log, log=log), title="t", of_all=True)
    assert log == [1, 3, 0, 2]
    assert reporter.done == 11


def test_a_part_that_another_shard_has_made_meanwhile_is_not_made_again(tmp_path):
    def make(part: int, path: Path) -> None:
        write(part, path)
        for other in range(4):
            write(other, path.with_name(f"{other:06d}.txt"), word="other")

    with opened(tmp_path) as parts:
        parts.make(SIZES, make, title="t", of_all=True)
        assert joined(tmp_path, parts) == "part 0 other 1 other 2 other 3 "


def test_same_shard_twice_at_once_is_an_error(tmp_path):
    with opened(tmp_path) as parts:
        with pytest.raises(KdError, match="running already"), opened(tmp_path):
            pass
        parts.make(SIZES, write, title="t")  # the first one is none the worse
        assert joined(tmp_path, parts) == WHOLE


def test_shards_with_other_settings_at_once_are_an_error(tmp_path):
    with opened(tmp_path, shard=Shard(0, 2)) as parts:
        parts.make(SIZES, write, title="t")
        with (
            pytest.raises(KdError, match=r"other settings \(seed\)"),
            opened(tmp_path, shard=Shard(1, 2), fingerprint={"seed": 2}),
        ):
            pass
        assert parts.missing(4) == [1, 3]
    with opened(tmp_path, shard=Shard(1, 2), fingerprint={"seed": 2}) as parts:  # now nobody is at work
        assert parts.missing(4) == [0, 1, 2, 3]


def test_processes_make_the_same(tmp_path):
    with opened(tmp_path) as parts:
        parts.make(SIZES, partial(write, word="part"), title="t", workers=2)
        assert joined(tmp_path, parts) == WHOLE


def test_one_pool_serves_several_calls_and_errors_come_through(tmp_path):
    with processes(2) as pool:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            reporter = Listener()
            with opened(tmp_path / name, reporter=reporter) as parts:
                parts.make(SIZES, write, title="t", workers=pool)
                assert reporter.done == 11
                assert joined(tmp_path / name, parts) == WHOLE
        with opened(tmp_path) as parts, pytest.raises(DataError) as error:
            parts.make(SIZES, fail, title="t", workers=pool)
    assert (error.value.what, error.value.file, error.value.row, error.value.hint) == ("bad row", "x.tsv", 7, "mend it")


def test_a_worker_that_dies_is_an_error_with_a_hint(tmp_path):
    with opened(tmp_path) as parts, pytest.raises(KdError, match="worker process died") as error:
        parts.make(SIZES, die, title="t", workers=2)
    assert error.value.hint


SLOW = """
import os, sys, time
from pathlib import Path
from kdcli.data.parts import Parts

def make(part, path):
    (Path(sys.argv[1]) / f"pid{os.getpid()}").touch()
    time.sleep(60)

if __name__ == "__main__":
    with Parts(Path(sys.argv[1]) / "p", {}, suffix=".x") as parts:
        parts.make([1, 1], make, title="t", workers=2)
"""


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at /proc")
def test_workers_end_when_the_parent_is_killed_and_the_work_can_go_on(tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
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
        assert parts.missing(2) == []


def wait_until(true, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
