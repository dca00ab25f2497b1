"""Work for a Ray engine, in a process of its own: pytest keeps sockets from it. Prints JSON."""

import json
import os
import sys
from pathlib import Path

import numpy as np
from notes import Notes

from kdcli.api import Reporter
from kdcli.errors import KdError, ProfileError, ValidationErrors
from kdcli.parts import Loaded, LocalEngine, Parts, place
from kdcli.parts.ray_engine import RayEngine

SIZES = [3] * 5


def load(path: Path) -> str:
    return path.read_text()


class Write:
    """Writes the part, what was read for it, and the content of a file that was loaded."""

    def __init__(self, loaded: Loaded[str]) -> None:
        self.loaded = loaded

    def __call__(self, part: int, path: Path, data: np.ndarray) -> None:
        data += 1  # an array of its own
        path.write_text(f"{part} {data.sum()} {self.loaded.value}\n")
        print("a line of a task")  # noqa: T201


class Fail:
    """Fails as asked at one part; with ``log`` it says how often."""

    def __init__(self, kind: str, log: Path) -> None:
        self.kind, self.log = kind, log

    def __call__(self, part: int, path: Path) -> None:
        path.write_text("fine")
        if part != 3:
            return
        with self.log.open("a") as file:
            file.write("x")
        if self.kind == "exit":
            sys.exit("the plugin has had enough")
        if self.kind == "die" or (self.kind == "die once" and self.log.read_text() == "x"):
            os._exit(9)
        if self.kind == "kd":
            raise ProfileError("wrong", key="a.key", hint="set it")
        if self.kind == "several":
            raise ValidationErrors([ProfileError("wrong", key=key) for key in ("a", "b")])
        if self.kind == "error":
            raise OSError(28, "a disk of this node is full")


class Learn:
    """Trains a model, a folder, from a file that is read as parts are made; returns where it has run."""

    def __init__(self, source: Path) -> None:
        self.source = source

    def __call__(self, part: int, path: Path, *, reporter: Reporter) -> list:
        (path / "inner").mkdir(parents=True)
        (path / "inner" / "model.txt").write_text(f"{part} {place(self.source).read_text()}")
        with reporter.progress("learn", 2) as progress:
            progress.advance(2, loss=0.5)
        reporter.warn(f"{part} is odd")
        reporter.metrics("student", part, loss=0.5)
        return [part, os.environ.get("OMP_NUM_THREADS"), os.getpid()]


def learned(folder: Path, engine: LocalEngine | RayEngine) -> dict:
    source, notes = folder / "loaded.txt", Notes()
    models = {part: folder / f"{type(engine).__name__}-{part}" for part in (7, 2)}
    with engine:
        how = {"workers": 2, "files": [source], "keep": True, "reporter": notes}
        values = dict(engine.make(Learn(source), models, **how))
    text = [(path / "inner" / "model.txt").read_text() for path in models.values()]
    said = [sorted(notes.warnings), sorted(notes.points)]
    assert os.getpid() not in [process for *_, process in values.values()]
    return {"values": {part: value[:2] for part, value in values.items()}, "text": text, "said": said}


def written(folder: Path, engine: LocalEngine | RayEngine, data: np.ndarray) -> str:
    source = folder / "loaded.txt"
    source.write_text("from a file")
    loaded = Loaded(load(source), load, (source,), (source,))
    with engine, Parts(folder / "parts", {}, suffix=".txt", engine=engine) as parts:
        parts.make(SIZES, Write(loaded), title="t", read=lambda part: data + part, files=loaded.files)
        return str(parts.assemble(len(SIZES), lambda paths: "".join(path.read_text() for path in paths)))


def failed(folder: Path, engine: RayEngine, kind: str) -> dict:
    log, found = folder / "log", {}
    log.unlink(missing_ok=True)
    with engine, Parts(folder / "parts", {}, suffix=".txt", engine=engine, resume=False) as parts:
        try:
            parts.make(SIZES, Fail(kind, log), title="t")
        except KdError as error:
            found = {"kind": type(error).__name__, "what": str(error), "hint": error.hint, "code": error.exit_code}
        return {**found, "tries": len(log.read_text()), "finished": parts.finished()}


def main(folder: Path, address: str = "") -> None:
    os.environ.pop("OMP_NUM_THREADS", None)
    engine, data = RayEngine(address), np.zeros(100_000)  # so large that Ray shares it
    found = {"local": written(folder, LocalEngine(), data), "ray": written(folder, engine, data)}
    found["untouched"] = not data.any()
    found["learned"] = {name: learned(folder, one) for name, one in (("local", LocalEngine()), ("ray", engine))}
    for kind in ("exit", "die", "die once", "kd", "several", "error"):
        found[kind] = failed(folder, engine, kind)
    found["shown"] = engine.shown
    engine.stop()
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
