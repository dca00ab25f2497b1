"""The engine of a Ray cluster, on the side of a node: an actor keeps a function with its model, and makes parts.

What a part raises goes back as a value: Ray would turn it into an exception of another class.
"""

import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from kdcli import __version__, registry
from kdcli.errors import KdError, MissingError, shown
from kdcli.parts.engine import MakePart, Reports, set_places
from kdcli.registry.plugin import ENVIRONMENT, read_code_files


@dataclass(frozen=True)
class Work:
    """What actors need to make parts: bytes and folders in the object store."""

    make: Any  # the pickled function
    files: Mapping[Path, Any]  # the content of files and folders, by their paths on the driver
    code: Sequence[Path]  # those of them that are plugins
    here: Mapping[Path, Path]  # where they are on the driver's machine
    node: str  # which is this one
    keep: bool  # whether the files lie there until the work ends
    reports: bool  # whether the function takes a reporter


_SAID = ("info", "warn", "metrics")  # of what a function says, this comes back with the part; progress would be late


def content_of(path: Path) -> dict[str, Any]:
    """Return the bytes of a file, or of the files of a folder by their names in it."""
    path = path.expanduser()
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return {file.relative_to(path).as_posix(): np.frombuffer(file.read_bytes(), np.uint8) for file in files}


def write_content(content: Mapping[str, Any], path: Path) -> None:
    """Write what ``content_of`` has read to another path."""
    for name, values in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        values.tofile(path / name)


class Maker:
    """Makes parts, in a process of a node."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        os.environ.update(variables)
        self.opened: Any = None  # the pickled function of ``make_part``
        self.make_part: MakePart
        self.folder: tempfile.TemporaryDirectory[str] | None = None

    def report(self) -> dict[str, str]:
        """Return the node's report."""
        return report(registry.all_versions())

    def make(
        self, work: Work, part: int, name: str, data: bytes
    ) -> tuple[Any, dict[str, Any], list[Any]] | KdError | str:
        """Return what the function returned, wrote and said; an error for the user; or in words one that may pass."""
        from ray import cloudpickle

        try:
            if work.make != self.opened:
                self._open(work)
            said: list[Any] = []
            reporter = Reports(lambda *message: said.append(message) if message[0] in _SAID else None)
            how = {"reporter": reporter} if work.reports else {}
            with tempfile.TemporaryDirectory(prefix="kd-") as folder:
                value = self.make_part(part, path := Path(folder) / name, *cloudpickle.loads(data), **how)
                return value, content_of(path), said
        except KdError as error:
            error.hint = f"{error.hint or 'see the error'} (on the node {socket.gethostname()})"
            return error
        except (Exception, SystemExit) as error:
            return shown(error)

    def _open(self, work: Work) -> None:
        """Unpickle the function; the files that it reads lie on this machine until then, those of plugins longer."""
        import ray

        self.folder, found = tempfile.TemporaryDirectory(prefix="kd-"), dict(work.here)
        if ray.get_runtime_context().get_node_id() != work.node:
            for number, (path, content) in enumerate(work.files.items()):
                found[path] = Path(self.folder.name) / str(number) / path.name
                write_content(ray.get(content), found[path])
        os.environ[ENVIRONMENT] = os.pathsep.join(str(found[path]) for path in work.code)
        for file in read_code_files():
            file.load()  # its classes may be in what is unpickled
        set_places(found)
        self.make_part = ray.cloudpickle.loads(ray.get(work.make))
        self.opened = work.make
        if work.keep:
            return
        set_places({})
        for path in found.keys() - set(work.code):
            if found[path] != work.here[path]:
                shutil.rmtree(found[path].parent)


def report(plugins: Mapping[str, str]) -> dict[str, str]:
    """Return what must be the same on all nodes, the versions of plugins among it, and the name of this one."""
    versions = {"torch": metadata.version("torch").partition("+")[0], "kd": __version__, **plugins}
    return {"node": socket.gethostname(), "Python": platform.python_version(), **versions}


def fault_of(node: Mapping[str, str], ours: Mapping[str, str]) -> MissingError | None:
    """Return the error for a node that lacks something, or has another version of it than this machine."""
    for name in ours.keys() - {"node"}:
        if node.get(name) != ours[name]:
            there = f"{name} {node[name]}" if name in node else f"no {name}"
            what = f"the node {node['node']} has {there}, and this machine {name} {ours[name]}"
            return MissingError(what, hint="install the same there, or take the node out of the cluster")
    return None
