"""Files that kd reads, with one value replaced, removed or doubled: they work, or end in a worded error."""

import json
import shutil

import pytest

from kdcli.cli import run

VALUES = (None, True, -1, 0.5, "text", [], ["text"], {}, {"a": 1})


def places(content, depth=2):
    """Go through the keys of a JSON value: its own, and those of what it holds."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(items)[:40]:
        yield (key,)
        if depth > 1:
            yield from ((key, *rest) for rest in places(value, depth - 1))


def variants(text):
    """Return the file as another JSON value, cut, and with each value replaced by one of each type, or removed."""
    content = json.loads(text)
    yield "cut", text[: len(text) // 2]
    yield "empty", ""
    yield "no text", "\udcff\udcfe"
    for value in VALUES:
        yield f"all {value}", json.dumps(value)
    for path in places(content):
        for value in (*VALUES, "removed", "doubled"):
            changed = json.loads(text)
            holder = changed
            for key in path[:-1]:
                holder = holder[key]
            if value == "removed":
                del holder[path[-1]]
            elif value == "doubled":
                holder[path[-1]] = [holder[path[-1]]] * 2
            else:
                holder[path[-1]] = value
            yield f"{path} {value}", json.dumps(changed)


def broken(file, arguments, capsys, some=1):
    """Run a command with each variant of a file, and return those that end in no worded error."""
    text = file.read_text()
    found = []
    for number, (name, changed) in enumerate(variants(text)):
        if number % some:
            continue
        file.write_bytes(changed.encode("utf-8", "surrogateescape"))
        code = run([*map(str, arguments), "-q"])
        err = capsys.readouterr().err
        if code not in (0, 2, 3, 4, 5, 6) or "error: unexpected" in err:
            found.append((name, code, err.splitlines()[:1]))
    file.write_text(text)
    return found


@pytest.fixture
def run_folder(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "all")
    folder = next(path.parent for path in (tmp_path / "all").rglob("kd.lock"))
    (tmp_path / "texts.txt").write_text("a good film\nbad\n")
    return folder


@pytest.mark.parametrize("name", ["config.json", "metrics.json", "tokenizer.json"])
def test_a_student(run_folder, capsys, name):
    some = 7 if name == "tokenizer.json" else 1
    found = broken(
        run_folder / "student" / name, ["predict", "--student", run_folder / "student", "-i", "texts.txt"], capsys, some
    )
    assert not found


@pytest.mark.parametrize("name", ["kd.lock", "results.json", "profile.toml"])
def test_a_run(run_folder, capsys, name):
    if name == "profile.toml":
        (run_folder / name).write_text("")
        assert run(["report", str(run_folder), "-q"]) in (0, 3, 4)
        return
    assert not broken(run_folder / name, ["report", run_folder], capsys, 5 if name == "kd.lock" else 1)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_teacher(run_folder, capsys, name):
    arguments = [
        "predict",
        "--teacher",
        run_folder / "teacher",
        "--profile",
        run_folder / "profile.toml",
        "-i",
        "texts.txt",
    ]
    assert not broken(run_folder / "teacher" / name, arguments, capsys, 5)
