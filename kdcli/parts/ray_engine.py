"""The engine of a Ray cluster, on the side of the driver: it gives parts to actors (``ray_actor``) and writes them.

All that travels is pickled here and goes through Ray's object store as bytes. An array that Ray unpickled would be
memory that all processes of a machine share, and ``torch.from_numpy`` would write into it.
"""

import os
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, Self

from kdcli import registry
from kdcli.api import QuietReporter, Reporter
from kdcli.errors import KdError, MissingError, shown
from kdcli.files import atomic
from kdcli.parts.engine import MakePart, PartFailed, Read, data_of, make_whole
from kdcli.parts.ray_actor import Maker, Work, content_of, fault_of, report, write_content
from kdcli.registry.plugin import read_code_files

TRIES = 3  # how often a part may fail, and an actor may end as it starts
_AHEAD = 2  # parts that an actor has at once, so that it does not wait for the next one
_SECONDS = 10.0  # how long a cluster has to answer
_POLL_SECONDS = 1.0
# The beginning of an HTTP/2 connection (RFC 9113, section 3.4): Ray's servers answer with a frame of the type 4.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # those of the driver count on all nodes


@dataclass
class _Queue:
    """The parts that are not there yet."""

    left: dict[int, Path]
    read: Read | None
    waiting: deque[int]
    data: dict[int, bytes] = field(default_factory=dict)  # what was read for those that are being made
    failures: Counter[int] = field(default_factory=Counter)

    def next(self) -> tuple[int, bytes]:
        """Take a part, with what was read for it, pickled."""
        from ray import cloudpickle

        part = self.waiting.popleft()
        if part not in self.data:
            self.data[part] = cloudpickle.dumps(data_of(part, self.read))
        return part, self.data[part]

    def failed(self, part: int, why: str) -> None:
        """Put a part back, unless it has failed too often."""
        self.failures[part] += 1
        if self.failures[part] == TRIES:
            raise PartFailed(part, self.left[part], why)
        self.waiting.appendleft(part)

    def write(self, part: int, content: Mapping[str, Any], checked: bool) -> None:
        """Write a part, whole or not at all."""
        path = self.left.pop(part)
        del self.data[part]
        if checked:
            make_whole(lambda _, temporary: write_content(content, temporary), part, path)
            return
        with atomic(path) as temporary:
            write_content(content, temporary)


@dataclass
class RayEngine:
    """Makes parts on a cluster: that of the address, one that is there, or a local one for as long as this runs."""

    address: str = ""
    wanted: str = "auto"  # the device that the settings name
    shown: dict[str, str] = field(default_factory=dict)
    _actors: dict[Any, dict[Any, int | None]] = field(default_factory=dict)  # the part of each call; None: its start
    _kind: str = "CPU"  # of the actors: a core or a GPU each
    _failed_starts: int = 0
    _ours: bool = False

    def start(self) -> None:
        """Connect to the cluster; a ``MissingError`` if Ray is not installed, or the cluster does not answer."""
        try:
            import ray
        except ImportError as error:
            raise MissingError("the engine ray needs the library ray", hint="pip install 'kdcli[ray]'") from error
        if ray.is_initialized():
            return
        address, handler = self.address or os.environ.get("RAY_ADDRESS"), signal.getsignal(signal.SIGTERM)
        if address and ":" in address:
            _knock(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # later versions of Ray do so by themselves
        try:
            ray.init(address or None, include_dashboard=False, log_to_driver=False, logging_level="error")
        except (Exception, SystemExit) as error:  # Ray ends the process where a cluster does not answer
            raise _silent(address or "this machine", shown(error)) from error
        self._ours = True
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's ends a process like an error

    def stop(self) -> None:
        """Leave the cluster; a local one ends. What Ray still has to say comes now, and not after the result."""
        if self._ours:
            import ray

            ray.shutdown()
            self._ours = False

    @property
    def width(self) -> int:
        """Four parts for each core or GPU: the last ones do not keep the others waiting for long."""
        return 4 * max(1, self._slots(self.device("cpu")))

    def device(self, own: str) -> str:
        """Return the device that the settings name, a GPU only if the cluster has one; ``auto`` takes that."""
        kind = self.wanted.partition(":")[0]
        if kind == "auto":
            return "cuda" if self._slots("cuda") else "cpu"
        if kind == "cuda" and not self._slots(kind):
            hint = "`ray status` shows what it has; --device auto takes the best"
            raise MissingError("no node of the Ray cluster has a GPU", key="device", hint=hint)
        return kind

    def make(
        self,
        make: MakePart,
        parts: Mapping[int, Path],
        *,
        read: Read | None = None,
        workers: int = 1,
        device: str = "cpu",
        files: Sequence[Path] = (),
        keep: bool = False,
        checked: bool = False,
        reporter: Reporter | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Make parts on all nodes, see ``LocalEngine``; a part whose process dies is made again elsewhere.

        The ``reporter`` gets what the function has said when the part is there; until then it shows how many are.
        """
        queue, looked = _Queue(dict(parts), read, deque(parts)), 0.0
        work = self._send(make, files, keep, bool(reporter))
        shows = reporter if reporter and not checked else QuietReporter()
        with shows.progress("on the cluster", len(parts), "trainings") as progress:
            while queue.left:
                if not self._actors or time.monotonic() - looked > _POLL_SECONDS:
                    self._hire(device, len(queue.left))
                    looked = time.monotonic()
                self._give(work, queue)
                progress.advance(0, **self.shown)
                for part, answer in self._answers(queue):
                    if isinstance(answer, KdError):
                        raise answer
                    elif part is None:
                        self._check_start(answer)
                    elif isinstance(answer, str):
                        queue.failed(part, answer)
                    else:
                        value, content, said = answer
                        for kind, values, named in said:
                            getattr(reporter, kind)(*values, **named)
                        queue.write(part, content, checked)
                        progress.advance(1)
                        yield part, value

    def _slots(self, device: str) -> int:
        """Return how many cores, or GPUs, the nodes have that are alive now."""
        import ray

        self.start()
        return int(ray.cluster_resources().get(_resource(device), 0))

    def _send(self, make: MakePart, files: Sequence[Path], keep: bool, reports: bool) -> Work:
        """Put a function, and the files that it reads, into the object store, from which each node gets them once."""
        import ray

        self.start()
        code = [file.path for file in read_code_files()]
        content = {path: ray.put(content_of(path)) for path in dict.fromkeys((*files, *code))}
        here = {path: path.expanduser().absolute() for path in content}
        node = ray.get_runtime_context().get_node_id()
        return Work(ray.put(ray.cloudpickle.dumps(make)), content, code, here, node, keep, reports)

    def _hire(self, device: str, most: int) -> None:
        """Start an actor for each core, or GPU, that has none; where no node is left, one waits for a new one."""
        import ray

        if self._actors and self._kind != _resource(device):
            self.__exit__()
        self._kind = _resource(device)
        kind = ray.remote(Maker).options(num_cpus=1, num_gpus=int(self._kind == "GPU"), max_restarts=0)
        variables = {name: value for name in _VARIABLES if (value := os.environ.get(name))}
        while len(self._actors) < min(max(self._slots(device), 1), most):
            actor = kind.remote(variables)
            self._actors[actor] = {actor.report.remote(): None}
        self.shown["nodes"] = str(sum(node["Alive"] for node in ray.nodes()))

    def _give(self, work: Work, queue: _Queue) -> None:
        """Give each actor a part, and then another one; the last parts go to those that are free."""
        for ahead in range(_AHEAD):
            for actor, calls in self._actors.items():
                if len(calls) != ahead or None in calls.values():
                    continue
                if len(queue.waiting) > ahead * len(self._actors):
                    part, data = queue.next()
                    calls[actor.make.remote(work, part, queue.left[part].name, data)] = part
        parts = [part for calls in self._actors.values() for part in calls.values() if part is not None]
        self.shown["in_flight"] = str(len(parts))

    def _answers(self, queue: _Queue) -> Iterator[tuple[int | None, Any]]:
        """Wait for answers, and yield each with its part (None: of a start); a text says why there is none."""
        import ray

        all_calls = {call: actor for actor, calls in self._actors.items() for call in calls}
        done, _ = ray.wait(list(all_calls), timeout=_POLL_SECONDS)
        for call in done:
            actor = all_calls[call]
            calls = self._actors.get(actor, {})
            if call not in calls:
                continue
            part = calls.pop(call)
            try:
                answer = ray.get(call)
            except ray.exceptions.RayError as error:
                lines = str(error).strip().splitlines()
                answer = " ... ".join(dict.fromkeys((lines[0], lines[-1])))
                # The actor has died, at this part: the next one has nothing to do with it.
                queue.waiting.extendleft(other for other in calls.values() if other is not None)
                del self._actors[actor]
                ray.kill(actor)
            yield part, answer

    def _check_start(self, answer: Mapping[str, str] | str) -> None:
        """Refuse a node whose answers would differ, and nodes on which nothing starts."""
        if isinstance(answer, str):
            self._failed_starts += 1
            if self._failed_starts == TRIES:
                hint = "install kd on each node, with all that the plugins need"
                raise MissingError(f"no process can be started on the nodes: {answer}", hint=hint)
            return
        self._failed_starts = 0
        if fault := fault_of(answer, report(registry.used)):
            raise fault

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            import ray

            ray.kill(actor)
        self._actors.clear()


def _resource(device: str) -> str:
    return "GPU" if device.startswith("cuda") else "CPU"


def _knock(address: str) -> None:
    """Make sure that a server of Ray's kind answers at an address; Ray itself would wait for over a minute."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), _SECONDS / 2) as server:
            server.settimeout(_SECONDS / 2)
            server.sendall(_PREFACE)
            answer = server.recv(16)
    except (OSError, ValueError) as error:
        raise _silent(address, shown(error)) from error
    if answer[3:4] != b"\x04":
        raise _silent(address, "another kind of server answers")


def _silent(address: str, why: str) -> MissingError:
    hint = "`ray status --address ADDRESS` shows whether it runs; RAY_AUTH_MODE=token sends it this machine's token; "
    hint += "leave out --ray-address for a local one"
    return MissingError(f"no Ray cluster answers at {address}: {why}", key="ray_address", hint=hint)
