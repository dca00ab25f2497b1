import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = (
    ("errors",),
    ("files", "api"),
    ("config", "registry", "tables", "tasks"),
    ("parts", "models"),
    ("lm",),
    ("transfer", "teacher", "student"),
    ("evaluate", "export", "report", "download", "run", "serve"),
    ("distillation",),
    ("testing", "scaffold"),
    ("cli",),
    ("__main__",),
)
"""Rooms from the bottom to the top: each imports those below it, and those beside it as long as no circle comes up."""
APART = ("transfer", "teacher", "student"), ("testing", "scaffold")
"""Rooms of one layer that do not import each other."""
PUBLIC = {"kdcli.api", "kdcli.lm", "kdcli.models", "kdcli.testing"}
HEIGHT = {room: height for height, layer in enumerate(LAYERS) for room in layer}

SCAFFOLD = ROOT / "kdcli" / "scaffold"
TEMPLATES = [path for path in sorted(SCAFFOLD.rglob("*.py")) if path.parent != SCAFFOLD]
OURS = [path for path in sorted((ROOT / "kdcli").rglob("*.py")) if path not in TEMPLATES]
PLUGINS = [*sorted((ROOT / "plugins").rglob("*.py")), *TEMPLATES]


def imported(path):
    """Return every dotted name that a file imports, inside functions too, but not for type checkers alone."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def file_of(name, root=ROOT):
    """Return the file of a module or of the module that holds a name; None for other people's."""
    for folder in (root, root / "plugins"):
        for parts in (name.split("."), name.split(".")[:-1]):
            path = folder.joinpath(*parts)
            for file in (path.with_suffix(".py"), path / "__init__.py"):
                if parts and file.exists():
                    return file
    return None


def room_of(path, root=ROOT):
    return path.relative_to(root / "kdcli").parts[0].removesuffix(".py")


def upward(path, root=ROOT):
    """Return what a file imports from rooms above its own, or beside it where these keep apart."""
    room, found = room_of(path, root), []
    for name in imported(path):
        other = file_of(name, root)
        if other and other.is_relative_to(root / "kdcli") and (there := room_of(other, root)) not in (room, "__init__"):
            apart = any({room, there} <= set(rooms) for rooms in APART)
            if HEIGHT[there] > HEIGHT[room] or apart:
                found.append(name)
    return sorted(found)


def circle(files, root=ROOT):
    """Return a circle of files that import each other; the door ``kdcli/__init__.py`` imports when it is used."""
    door = root / "kdcli" / "__init__.py"
    graph = {path: {file_of(name, root) for name in imported(path)} - {None, path, door} for path in files}
    try:
        TopologicalSorter({path: others for path, others in graph.items() if path != door}).prepare()
    except CycleError as error:
        return [path.relative_to(root).as_posix() for path in error.args[1]]
    return []


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    if path.parent != ROOT / "kdcli" or path.name != "__init__.py":
        assert room_of(path) in HEIGHT, "a new room: give it a layer in this test"
        assert upward(path) == []


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins_import_the_public_contract_alone(path):
    ours = {name for name in imported(path) if name.split(".")[0] == "kdcli"}
    assert [name for name in ours if not any(f"{name}.".startswith(f"{public}.") for public in PUBLIC)] == []


def test_no_file_imports_in_a_circle():
    assert circle([*OURS, *PLUGINS]) == []


def test_the_tests_can_fail(tmp_path):
    for room, text in (("tables", "import kdcli.run"), ("run", "def f():\n    from kdcli.tables import x")):
        (tmp_path / "kdcli" / room).mkdir(parents=True)
        (tmp_path / "kdcli" / room / "__init__.py").write_text(text)
    tables, run = (tmp_path / "kdcli" / room / "__init__.py" for room in ("tables", "run"))
    assert (upward(tables, tmp_path), upward(run, tmp_path)) == (["kdcli.run"], [])
    assert set(circle([tables, run], tmp_path)) == {"kdcli/tables/__init__.py", "kdcli/run/__init__.py"}
