"""A distribution made on the spot, as if pip had installed it."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def fake_dist(
    folder: str | Path,
    name: str,
    entry_points: Mapping[str, Mapping[str, str]],
    modules: Mapping[str, str] | None = None,
    *,
    version: str = "1.0",
) -> Iterator[Path]:
    """Install a distribution for as long as the block lasts, in this process and those that it starts.

        with fake_dist(tmp_path, "kd-mine", {"taggers": {"mine": "kd_mine"}}, {"kd_mine": "api_version = 1 ..."}):

    Args:
        folder: Where it is written, in a folder of its own.
        name: The distribution's name.
        entry_points: For each group, ``generators``, ``students`` or ``taggers``, its plugins: name to module.
        modules: The source text of each module, by dotted name; a package is named ``package.__init__``.
        version: The distribution's version.

    Yields:
        The folder that stands for ``site-packages``.
    """
    modules = modules or {}
    site = Path(folder) / f"{name}-{version}"
    info = site / f"{re.sub(r'[-_.]+', '_', name)}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8")
    (info / "entry_points.txt").write_text(_ini(entry_points), "utf-8")
    for module, source in modules.items():
        path = site.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, "utf-8")
    tops = {module.partition(".")[0] for module in modules}
    before = os.environ.get("PYTHONPATH")
    _forget(tops)
    sys.path.insert(0, str(site))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(site), *([before] if before else [])])
    importlib.invalidate_caches()
    try:
        yield site
    finally:
        sys.path.remove(str(site))
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
        _forget(tops)


def _ini(entry_points: Mapping[str, Mapping[str, str]]) -> str:
    lines = []
    for group, plugins in entry_points.items():
        lines += [f"[kdcli.{group.removeprefix('kdcli.')}]", *(f"{name} = {place}" for name, place in plugins.items())]
    return "".join(f"{line}\n" for line in lines)


def _forget(tops: set[str]) -> None:
    """Drop modules that were imported from elsewhere under the same name."""
    for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
        del sys.modules[name]
