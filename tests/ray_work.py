"""Work for a Ray engine, in a process of its own: pytest keeps sockets from it. Prints JSON."""

import json
import os
import sys
from pathlib import Path

import numpy as np

from kdcli.errors import KdError, ProfileError, ValidationErrors
from kdcli.parts import Loaded, LocalEngine, Parts
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
    engine, data = RayEngine(address), np.zeros(100_000)  # so large that Ray shares it
    found = {"local": written(folder, LocalEngine(), data), "ray": written(folder, engine, data)}
    found["untouched"] = not data.any()
    for kind in ("exit", "die", "die once", "kd", "several", "error"):
        found[kind] = failed(folder, engine, kind)
    found["shown"] = engine.shown
    engine.stop()
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
