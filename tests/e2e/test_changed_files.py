"""Files that kd reads, with a value replaced, removed or doubled: they work, or a worded error names the file.

Of most files only some of the changed forms are tried; the slow form tries twenty times as many."""

import copy
import datetime
import io
import json
import shutil

import numpy as np
import pytest
import tomli_w
import torch
from e2e.conftest import refused
from safetensors.torch import load_file, save

from kdcli.cli import run
from kdcli.config.files import read

VALUES = (None, True, -1, 0.5, "text", [], ["text"], {}, {"a": 1})


def places(content, depth=2):
    """Go through the keys of a JSON value: its own, and those of what it holds."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(items)[:40]:
        yield (key,)
        if depth > 1:
            yield from ((key, *rest) for rest in places(value, depth - 1))


def cut(content):
    parts = {"cut": content[: len(content) // 2], "short": content[:-1], "empty": b""}
    return parts | {"no text": b"\xff\xfe", "zeros": b"\0" * 100}


def changed(content, values, depth=2):
    """Return the value with each of its values replaced by one of each type, removed, or doubled."""
    for path in places(content, depth):
        for value in (*values, "removed", "doubled"):
            new = copy.deepcopy(content)
            holder = new
            for key in path[:-1]:
                holder = holder[key]
            if value == "removed":
                del holder[path[-1]]
            else:
                holder[path[-1]] = [holder[path[-1]]] * 2 if value == "doubled" else value
            yield f"{path} {value}", new


def of_json_text(text):
    yield from ((f"all {value}", json.dumps(value).encode()) for value in VALUES)
    yield from ((name, json.dumps(new).encode()) for name, new in changed(json.loads(text), VALUES))


def of_json(file):
    yield from of_json_text(file.read_bytes())


def of_lines(file):
    first, rest = file.read_bytes().split(b"\n", 1)
    for name, new in of_json_text(first):
        yield name, new + b"\n" + rest
        yield f"{name} at the end", first + b"\n" + rest + new


def of_toml(file):
    for name, new in changed(read(file), (*VALUES[1:], datetime.date(2026, 1, 1)), depth=3):
        yield name, tomli_w.dumps(new).encode()


def tensors(tensor):
    for dtype in (torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.bool, torch.complex64):
        yield str(dtype), tensor.float().to(dtype)
    yield from (("flat", tensor.ravel()), ("deep", tensor[None]), ("none", tensor[:0]), ("short", tensor[:-1]))
    yield from (("double", torch.cat([tensor, tensor])), ("one", tensor.ravel()[0]))
    if tensor.is_floating_point():
        yield from (("nan", tensor * torch.nan), ("infinite", tensor / 0), ("large", tensor * 1e30))


def of_safetensors(file):
    whole = load_file(file)
    length = int.from_bytes(file.read_bytes()[:8], "little")
    metadata = json.loads(file.read_bytes()[8 : 8 + length]).get("__metadata__", {})
    for name, tensor in whole.items():
        yield f"{name} removed", save({key: value for key, value in whole.items() if key != name}, metadata)
        for kind, new in tensors(tensor):
            yield f"{name} {kind}", save({**whole, name: new.contiguous()}, metadata)
    yield "no metadata", save(whole)
    yield "one more", save({**whole, "more": torch.ones(2)}, metadata)
    if "kd" in metadata:
        for kind, new in of_json_text(metadata["kd"]):
            yield f"metadata {kind}", save(whole, {"kd": new.decode()})


def of_numpy(file):
    for kind, new in tensors(torch.from_numpy(np.load(file))):
        stream = io.BytesIO()
        np.save(stream, new.numpy() if new.element_size() > 2 or new.dtype is torch.bool else new.float().numpy())
        yield kind, stream.getvalue()


def of_torch(file):
    tensor = torch.load(file)
    kinds = {"sparse": tensor.to_sparse(), "quantised": torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)}
    kinds |= {"meta": torch.empty(tensor.shape, device="meta"), "ragged": [tensor, tensor[:, :1]]}
    for kind, new in [*tensors(tensor), *((f"all {value}", value) for value in VALUES), *kinds.items()]:
        stream = io.BytesIO()
        torch.save(new, stream)
        yield kind, stream.getvalue()


FORMS = {".json": of_json, ".lock": of_json, ".jsonl": of_lines, ".toml": of_toml, ".safetensors": of_safetensors}
FORMS |= {".npy": of_numpy, ".pt": of_torch}

TEACHER = ["predict", "--teacher", "run/teacher", "--profile", "tiny.toml", "--input", "texts.txt"]
STUDENT = ["predict", "--student", "run/student", "--input", "texts.txt"]
HUB = ["export", "hub-folder", "--student", "run", "--output", "hub", "--force"]
JOIN = ["join", "--input", "run/transfer/lite.parquet", "--output", "out.parquet", "--force", "--profile", "tiny.toml"]
FILES = {
    "run/student/config.json": (STUDENT, 70),
    "run/student/metrics.json": (HUB, 30),
    "./run/student/config.json": (HUB, 15),
    "run/student/tokenizer.json": (STUDENT, 30),
    "run/student/model.safetensors": (STUDENT, 50),
    "run/kd.lock": (["report", "run"], 8),
    "run/results.json": (["report", "run"], 8),
    "run/metrics.jsonl": (["report", "run"], 5),
    "run/profile.toml": (["report", "run"], 5),
    "tiny.toml": (["run-all", "--profile", "tiny.toml", "--run-dir", "new", "--dry-run"], 25),
    "run/teacher/config.json": (TEACHER, 25),
    "run/teacher/tokenizer_config.json": (TEACHER, 15),
    "run/teacher/model.safetensors": (TEACHER, 15),
    "run/export/logits.safetensors": ([*JOIN, "--logits", "run/export/logits.safetensors"], 20),
    "logits.npy": ([*JOIN, "--logits", "logits.npy"], 25),
    "logits.pt": ([*JOIN, "--logits", "logits.pt"], 50),
    "logits.jsonl": ([*JOIN, "--logits", "logits.jsonl"], 10),
    "data/rte/source.json": (["data", "get", "rte", "--url", "nowhere", "--offline"], 30),
}
"""Each file, a command that reads it, and about how many of its forms are tried."""


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    root = shutil.copytree(trained, tmp_path / "all")
    monkeypatch.chdir(root)
    (root / "texts.txt").write_text("a good film\nbad\n")
    logits = load_file("run/export/logits.safetensors")["logits"]
    np.save("logits.npy", logits.numpy())
    torch.save(logits, "logits.pt")
    (root / "logits.jsonl").write_text("".join(f'{{"logits_0": {a}, "logits_1": {b}}}\n' for a, b in logits.tolist()))
    (root / "data" / "rte").mkdir()
    (root / "data" / "rte" / "train.tsv").write_text("sentence\tlabel\n")
    card = {"format": "kd.data/1", "kd": "1", "name": "rte", "kind": "task", "address": "nowhere", "sha256": None}
    files = [{"path": "train.tsv", "size": 15, "rows": 0}]
    card |= {"cite": "", "files": files, "notes": ["a note"], "next": ["a command"]}
    (root / "data" / "rte" / "source.json").write_text(json.dumps(card))
    return root


@pytest.mark.parametrize("more", [0.3, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FILES)
def test_a_changed_file(folder, capsys, name, more):
    file, (arguments, count) = folder / name, FILES[name]
    assert run([*arguments, "-q"]) == 0, capsys.readouterr().err
    forms = list(FORMS[file.suffix](file))
    forms = [*cut(file.read_bytes()).items(), *forms[:: max(1, int(len(forms) / (count * more)))]]
    found = []
    for kind, content in forms:
        file.write_bytes(content)
        code = run([*arguments, "-q"])
        err = capsys.readouterr().err
        named = any(place in err for place in (file.name, str(file.parent.relative_to(folder)), "lite.parquet"))
        if code not in (0, 2, 3, 4, 5, 6) or "error: unexpected" in err or not (code == 0 or named):
            found.append((kind, code, err.splitlines()[:1]))
    assert not found


def test_a_folder_of_the_user_with_the_name_of_ours(done):
    output = done.root / "out"
    mine = done.root / ".out.run" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    refused(done.stage("student", "--output", output), 4, mine)
    assert mine.read_text() == "mine" and not output.exists()
    mine.unlink()
    assert done.stage("student", "--output", output).code == 0
    assert output.is_dir() and not mine.parent.exists()


@pytest.mark.parametrize("inside", ["", "encode", "own"])
def test_a_file_that_the_user_adds_while_a_student_is_trained(done, monkeypatch, inside):
    from kdcli.run.stages import TrainStudent

    mine = done.root / ".out.run" / inside / "notes.txt"
    train = TrainStudent.run

    def run(self, context):
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
        return train(self, context)

    monkeypatch.setattr(TrainStudent, "run", run)
    assert done.stage("student", "--output", done.root / "out").code == 0
    assert [path for path in (done.root / ".out.run").rglob("*") if path.is_file()] == [mine]
