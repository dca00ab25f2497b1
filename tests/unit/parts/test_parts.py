import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Barrier

import pytest

from kdcli.api import QuietReporter
from kdcli.errors import DataError, KdError, UsageError
from kdcli.parts.parts import Parts, Shard, processes

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


def opened(folder: Path, *, name: str = "work.parts", **changes) -> Parts:
    settings = {"fingerprint": {"seed": 1}, "suffix": ".txt"} | changes
    return Parts(folder / name, **settings)


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
    whole = [f"{part:06d}.txt.{sha256(f'part {part} '.encode()).hexdigest()}" for part in (0, 1)]
    assert names == ["000000.txt", whole[0], "000001.txt", whole[1], "fingerprint.json"]
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


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lose_the_checksum(path: Path) -> None:
    [checksum] = path.parent.glob(f"{path.name}.*")
    checksum.unlink()


def take_anothers_bytes(path: Path) -> None:
    path.write_bytes(path.with_name("000000.txt").read_bytes())


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, lose_the_checksum, take_anothers_bytes])
def test_a_damaged_part_is_made_again_and_said(tmp_path, damage, workers):
    with opened(tmp_path) as parts:
        parts.make(SIZES, write, title="t", workers=workers)
        for part in (1, 3):
            damage(parts.path(part))
    log: list[int] = []
    reporter = Listener()
    with opened(tmp_path, reporter=reporter) as parts:
        assert parts.there() == [0, 2]
        parts.make(SIZES, partial(write_and_log, log=log), title="t")
    assert reporter.warnings == [f"part {part} is damaged: it is made again" for part in (1, 3)]
    assert log == [1, 3]
    reporter = Listener()
    with opened(tmp_path, reporter=reporter) as parts:  # what was made again is whole
        assert joined(tmp_path, parts) == WHOLE
    assert reporter.warnings == []


def test_a_part_that_the_disk_cannot_read_is_made_again(tmp_path, monkeypatch):
    def broken(path: Path) -> str:
        raise OSError(5, "Input/output error")

    with opened(tmp_path) as parts:
        parts.make(SIZES, write, title="t")
    monkeypatch.setattr("kdcli.parts.parts.sha256", broken)
    with opened(tmp_path) as parts:
        assert parts.there() == []


def make_elsewhere(folder: Path) -> None:
    with opened(folder, shard=Shard(1, 2)) as parts:
        parts.make_one(0, partial(write, word="other"))


def test_two_shards_that_make_one_part_differently_at_once_leave_a_whole_one(tmp_path, monkeypatch):
    def late(source: Path, target: Path, replace=os.replace) -> None:
        if Path(target).name == "000000.txt":
            pool.submit(make_elsewhere, tmp_path).result()
        replace(source, target)

    reporter = Listener()
    with processes(1) as pool, opened(tmp_path, shard=Shard(0, 2)) as parts:
        monkeypatch.setattr(os, "replace", late)
        parts.make(SIZES, write, title="t", of_all=True)
    assert len(list(parts.folder.glob("000000.txt.*"))) == 2
    with opened(tmp_path, reporter=reporter) as parts:
        assert joined(tmp_path, parts) == WHOLE
    assert reporter.warnings == []


@pytest.mark.parametrize(
    "damage", [truncate, empty, lambda path: path.write_bytes(b"\xff"), lambda p: p.write_text("7")]
)
def test_a_damaged_fingerprint_starts_again_and_is_said(tmp_path, damage):
    with opened(tmp_path) as parts:
        parts.make(SIZES, write, title="t")
        damage(parts.folder / "fingerprint.json")
        with pytest.raises(KdError, match="another process"), opened(tmp_path, shard=Shard(1, 2)):
            pass
        assert parts.there() == [0, 1, 2, 3]
    reporter = Listener()
    with opened(tmp_path, reporter=reporter) as parts:
        assert parts.there() == []
    assert reporter.warnings == ["the record of what the parts depend on is damaged: starting again"]


def test_parts_whose_number_is_not_known_beforehand(tmp_path):
    log: list[int] = []
    with opened(tmp_path) as parts:
        assert parts.there() == []
        for part in (10, 2, 1_000_000, 0, 2):
            parts.make_one(part, partial(write_and_log, log=log))
        with pytest.raises(DataError):
            parts.make_one(1, fail)
        (parts.folder / "texts.txt").touch()  # work keeps files of its own here
        assert parts.there() == [0, 2, 10, 1_000_000]
    assert log == [10, 2, 1_000_000, 0]
    with opened(tmp_path) as parts:
        assert parts.there() == [0, 2, 10, 1_000_000]
        parts.make_one(1, write)
        assert joined(tmp_path, parts, 3) == "part 0 part 1 part 2 "
        assert parts.there() == []


@pytest.mark.parametrize("when", ["before", "while it is made", "when it is written"])
def test_a_part_that_is_not_needed_any_more_comes_to_nothing(tmp_path, when):
    def make(part: int, path: Path) -> None:
        if when == "while it is made":
            assert joined(tmp_path, other) == WHOLE
        write(part, path)
        if when == "when it is written":
            assert joined(tmp_path, other) == WHOLE

    with opened(tmp_path, shard=Shard(1, 2)) as other, opened(tmp_path, shard=Shard(0, 2)) as parts:
        parts.make(SIZES, write, title="t", of_all=True)
        if when == "before":
            assert joined(tmp_path, other) == WHOLE
        parts.make_one(4, make)
        assert parts.missing(9) == parts.there() == []
        assert not parts.is_last()
        assert joined(tmp_path, parts) is None
    assert [path.name for path in tmp_path.iterdir()] == ["all"]


def test_of_shards_that_end_one_is_the_last(tmp_path):
    with opened(tmp_path, shard=Shard(0, 3)) as first, opened(tmp_path, shard=Shard(1, 3)) as last:
        with opened(tmp_path, shard=Shard(2, 3)):
            pass
        assert not first.is_last()
        assert last.is_last() and last.is_last()
        with opened(tmp_path, shard=Shard(0, 3)) as again:
            assert not first.is_last()
            first.__exit__(None, None, None)  # which does not end the one that holds the lock now
            assert not last.is_last()
            assert again.is_last()


def test_parts_are_thrown_away_if_asked(tmp_path):
    with opened(tmp_path) as parts:
        parts.make(SIZES, write, title="t")
    reporter = Listener()
    with opened(tmp_path, resume=False, reporter=reporter) as parts:
        assert parts.there() == []
        parts.make(SIZES[:3], partial(write, word="new"), title="t")
        with opened(tmp_path, resume=False, shard=Shard(1, 2)) as other:  # a shard of the same launch
            assert other.there() == [0, 1, 2]
        with (
            pytest.raises(KdError, match="other settings"),
            opened(tmp_path, resume=False, fingerprint={}, shard=Shard(1, 2)),
        ):
            pass
    with opened(tmp_path, resume=False, fingerprint={"seed": 2}, reporter=reporter) as parts:
        assert parts.there() == []
    assert reporter.warnings == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ["part 3 is damaged: it is made again"]),
        ({"resume": False}, []),
        ({"fingerprint": {"seed": 2}}, ["seed changed (1 -> 2): starting again"]),
    ],
)
def test_shards_that_start_at_once_agree_on_what_is_there(tmp_path, changes, said):
    count = 4
    together = Barrier(count, timeout=60)
    reporter = Listener()

    def take(index: int) -> list[int]:
        together.wait()
        with opened(tmp_path, shard=Shard(index, count), reporter=reporter, **changes) as parts:
            together.wait()
            parts.make(SIZES * 2, partial(write, word="new"), title="t")
            together.wait()
            return parts.there()

    with opened(tmp_path) as parts:
        parts.make(SIZES, write, title="t")
        flip_a_bit(parts.path(3))
    with ThreadPoolExecutor(count) as pool:
        assert list(pool.map(take, range(count))) == [list(range(8))] * count
    assert reporter.warnings == said
    kept = [parts.path(part).read_text().startswith("part") for part in range(8)]
    assert kept == ([True] * 3 if not changes else [False] * 3) + [False] * 5


def test_other_shards_are_seen_whatever_the_folder_is_called(tmp_path):
    name = "sst [2]*.parts"
    with opened(tmp_path, name=name) as parts:
        parts.make(SIZES, write, title="t")
        with opened(tmp_path, name=name, resume=False, shard=Shard(1, 2)) as other:
            assert other.there() == [0, 1, 2, 3]


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
from kdcli.parts.parts import Parts

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
