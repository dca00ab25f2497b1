"""Imports run one way, and plugins stand on the public contract alone."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASE = {"", "errors", "api", "mistakes"}
DATA = BASE | {"data"}
BELOW = DATA | {"tasks", "profile", "registry"}
MODELS = {"training", "generation"}
ENGINES = {"transfer", "teacher", "student", "report"}
MAY_IMPORT = {
    "": set(),
    "errors": {""},
    "api": {"", "errors"},
    "mistakes": {"", "errors"},
    "embedding": {"", "errors"},
    "inference": {"", "errors", "api"},
    "registry": BASE,
    "data": BASE,
    "profile": BASE | {"registry"},
    "tasks": DATA | {"profile"},
    "training": DATA,
    "generation": BELOW | {"training"},
    **dict.fromkeys(ENGINES, BELOW | MODELS),
    "scaffold": BELOW,
    "testing": BELOW | ENGINES | MODELS,
    "pipeline": BELOW | ENGINES | MODELS,
    "cli": BELOW | ENGINES | MODELS | {"pipeline", "scaffold", "testing"},
    "__main__": {"cli"},
}
SCAFFOLD = ROOT / "kdcli" / "scaffold"
"""Its folders are plugins to be: they keep the rule of plugins."""
PUBLIC = {"kdcli.api", "kdcli.lm", "kdcli.models.embedding", "kdcli.models.inference", "kdcli.testing"}


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every dotted name a file imports, wherever in it; ``from kdcli import x`` is ``kdcli.x``."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(name: str) -> str:
    """``kdcli.tables.read.read_table`` -> ``data``; ``kdcli.__version__`` -> the package itself."""
    first = name.split(".")[1] if "." in name else ""
    there = (ROOT / "kdcli" / first).is_dir() or (ROOT / "kdcli" / f"{first}.py").exists()
    return first if first and there else ""


def faults(path: Path, room: str) -> list[str]:
    rooms = {name: room_of(name) for name in imported(path) if name.split(".")[0] == "kdcli"}
    return [name for name, other in rooms.items() if other != room and other not in MAY_IMPORT[room]]


TEMPLATES = [path for path in modules(SCAFFOLD) if path.parent != SCAFFOLD]
OURS = [path for path in modules(ROOT / "kdcli") if path not in TEMPLATES]
PLUGINS = modules(ROOT / "plugins") + TEMPLATES


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    room = path.relative_to(ROOT / "kdcli").parts[0].removesuffix(".py").replace("__init__", "")
    assert room in MAY_IMPORT, f"a new room: say in this test what {room} may import"
    assert faults(path, room) == []


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins_import_the_public_contract_alone(path):
    ours = {name for name in imported(path) if name.split(".")[0] == "kdcli"}
    assert [name for name in ours if not any(f"{name}.".startswith(f"{public}.") for public in PUBLIC)] == []


def test_the_test_can_fail(tmp_path):
    path = tmp_path / "tables.py"
    path.write_text("def f():\n    from kdcli.tasks.task import task_from\nimport kdcli.run\nimport kdcli.api\n")
    assert sorted(faults(path, "data")) == ["kdcli.run", "kdcli.tasks.task.task_from"]


def test_nothing_imports_in_a_circle():
    """Rooms can be put in an order in which each imports only earlier ones."""
    placed: set[str] = set()
    while len(placed) < len(MAY_IMPORT):
        ready = {room for room, others in MAY_IMPORT.items() if room not in placed and others <= placed}
        assert ready, set(MAY_IMPORT) - placed
        placed |= ready
