"""Write ``docs/cli.md`` from the Typer app and ``docs/api.md`` from the docstrings; ``make docs`` runs this.

Neither page depends on the terminal, the place of kd or other installed packages: the commands come from the app's
own parameters, and the docstrings from the source, which is parsed and not imported.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import griffe

DOCS = Path(__file__).resolve().parent
NOTICE = "<!-- Written by `make docs`: change the source, not this page. -->"

PUBLIC = ("api", "lm", "models", "testing")
"""What plugins may import of ``kdcli``, beside ``load_student`` and its classes."""
PREDICTING = (
    *("student.student.load_student", "student.student.Student"),
    *(f"tasks.answers.{name}" for name in ("Predictions", "Prediction", "LabelSet", "Score")),
    *("student.explain.Explanation", "student.explain.Effect"),
)


def main() -> None:
    """Write both pages."""
    (DOCS / "cli.md").write_text(cli_page(), "utf-8")
    (DOCS / "api.md").write_text(api_page(), "utf-8")


# The command line


def cli_page() -> str:
    """Return the reference of every command, its arguments, options, defaults and examples, as Markdown."""
    from typer.main import get_command

    from kdcli.cli import app

    root = get_command(app)
    commands = list(_commands(root, ("kd",)))
    ends = [(path, command) for path, command in commands if not hasattr(command, "commands")]
    blocks = [
        "# Commands of `kd`",
        NOTICE,
        _plain(root.help),
        _table(("command", ""), ([_link(path), _plain(command.help).partition("\n")[0]] for path, command in ends)),
        "The global flags stand before a command or after it. An option with a default of the profile "
        "overrides that setting; `kd profile show NAME --resolved` prints the profile's values.",
        *_parameters(root),
        *_exit_codes(),
        *(block for path, command in commands for block in _command(path, command)),
    ]
    return "\n\n".join(blocks) + "\n"


def _commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in group.commands:
        command = group.load(name)
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))


def _command(path: tuple[str, ...], command: Any) -> Iterator[str]:
    yield f"{'#' * len(path)} {' '.join(path)}"
    yield _plain(command.help)
    if hasattr(command, "commands"):
        return
    arguments = [parameter.metavar for parameter in command.params if parameter.param_type_name == "argument"]
    yield textwrap.indent(" ".join([*path, *arguments, "[OPTIONS]"]), "    ")
    yield from _parameters(command)
    examples = re.findall(r"\[/bold\]  (.*)", command.epilog or "")
    yield "For example:\n\n" + "\n".join(f"    {example}" for example in examples)


def _parameters(command: Any) -> Iterator[str]:
    """A table for the arguments, and one for each panel of options, in the order of the help."""
    panels: dict[str, list[Any]] = {}
    for parameter in command.params:
        if not parameter.hidden and "completion" not in parameter.name:
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or kind, []).append(parameter)
    for panel, parameters in panels.items():
        rows = [[_names(one), _default(one), _plain(one.help)] for one in parameters]
        yield _table((panel, "default", ""), rows)


def _names(parameter: Any) -> str:
    from kdcli.cli import second_names

    if parameter.param_type_name == "argument":
        return _code(parameter.metavar + (" ..." if parameter.nargs == -1 else ""))
    names = "/".join([*parameter.opts[:1], *second_names(parameter)])
    value = "" if parameter.is_flag else f" {parameter.metavar}"
    return ", ".join(_code(name) for name in (names + value, *parameter.opts[1:]))


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return re.sub(r"[a-z]+(\.[\w.]*\w)+", lambda key: _code(key[0]), parameter.show_default)
    shown = parameter.show_default and parameter.default is not None
    return _code(str(parameter.default)) if shown and not parameter.is_flag else ""


def _exit_codes() -> Iterator[str]:
    from kdcli import errors

    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.KdError)]
    codes = {one.exit_code: (one.__doc__ or "").partition("\n")[0] for one in classes}
    codes = {0: "Done, or nothing to do.", **codes, 1: "It failed while it ran.", 130: "Interrupted."}
    rows = [[str(code), meaning] for code, meaning in sorted(codes.items())]
    yield _table(("exit code", ""), rows)


def _plain(text: str | None) -> str:
    """Return what Rich would show of its markup, as Markdown."""
    from rich.text import Text

    return re.sub(r"[<>*]", r"\\\g<0>", Text.from_markup(text or "").plain.strip())


def _link(path: tuple[str, ...]) -> str:
    return f"[{' '.join(path)}](#{'-'.join(path)})"


def _code(text: str) -> str:
    return f"`{text}`"


def _table(head: tuple[str, ...], rows: Iterable[list[str]]) -> str:
    """Lay out a Markdown table; a bar within a cell would end it."""
    lines = [" | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in row) for row in (head, *rows)]
    return "\n".join(["| " + lines[0] + " |", "|---" * len(head) + "|", *(f"| {line} |" for line in lines[1:])])


# The public modules


def api_page() -> str:
    """Return the reference of the public modules as Markdown, from their docstrings."""
    import griffe

    kdcli = griffe.GriffeLoader(search_paths=[DOCS.parent], allow_inspection=False).load("kdcli")
    assert isinstance(kdcli, griffe.Module)
    modules = [module for name in PUBLIC for module in _modules(kdcli[name])]
    predicting = [kdcli[name] for name in PREDICTING]
    blocks = [
        "# What is public",
        NOTICE,
        "What this page names stays as it is while `api_version` does; everything else in `kdcli` may change with any "
        "version. [plugins.md](plugins.md) shows how plugins use it.",
        "\n".join(f"- {_anchor(name)}" for name in ("kdcli", *(module.path for module in modules))),
        "## kdcli",
        *_docstring(kdcli),
        *(block for member in predicting for block in _member(member)),
        *(block for module in modules for block in _module(module)),
    ]
    return "\n\n".join(blocks) + "\n"


def _anchor(name: str) -> str:
    return f"[{name}](#{name.replace('.', '')})"


def _modules(module: griffe.Module) -> Iterator[griffe.Module]:
    """Yield the module, if it names anything, and its sub-modules, if it does not say itself what is public."""
    if _public(module):
        yield module
    if module.exports is None:
        for name, inner in sorted(module.modules.items()):
            if not name.startswith("_") and not inner.is_alias:
                yield from _modules(inner)


def _public(module: griffe.Module) -> list[Any]:
    """Return what a module's ``__all__`` names, in the order of the source; else what it defines and describes."""
    if module.exports is not None:
        members = [module[str(name)] for name in module.exports]
        members = [member.final_target if member.is_alias else member for member in members]
    else:
        defined = [(name, one) for name, one in module.members.items() if not one.is_alias and not one.is_module]
        members = [one for name, one in defined if one.has_docstring and not name.startswith("_")]
    return sorted(members, key=lambda one: (one.module is not module, one.module.path, one.lineno))


def _module(module: griffe.Module) -> Iterator[str]:
    yield f"## {module.path}"
    yield from _docstring(module)
    for member in _public(module):
        yield from _member(member)


def _member(member: Any) -> Iterator[str]:
    """Describe a class, a function or a constant."""
    yield f"### {member.name}"
    if member.is_class:
        bases = [str(base) for base in member.bases]
        header = f"class {member.name}({', '.join(bases)})" if bases else f"class {member.name}"
        constructor = member.members.get("__init__")
        if constructor and "dataclass" not in member.labels:  # a dataclass's follows from its fields
            call = re.sub(r"def __init__\((\s*)self,\s*", rf"{member.name}(\1", _header(constructor))
            header += "\n" + call.removesuffix(" -> None")
        yield _python(header)
        yield from _docstring(member)
        for method in member.functions.values():
            if not method.name.startswith("_"):
                yield from _method(method)
        return
    yield _python(_header(member) if member.is_function else member.source)
    yield from _docstring(member)


def _method(method: griffe.Function) -> Iterator[str]:
    yield f"#### {method.parent.name if method.parent else ''}.{method.name}"
    yield _python(_header(method))
    yield from _docstring(method)


def _header(function: griffe.Function) -> str:
    """Return the lines of a function's signature, as its source has them."""
    lines = textwrap.dedent(function.source)
    node = ast.parse(lines).body[0]
    assert isinstance(node, ast.FunctionDef)
    return "\n".join(lines.splitlines()[node.lineno - 1 : node.body[0].lineno - 1]).removesuffix(":")


def _docstring(described: Any) -> Iterator[str]:
    """Lay out the sections of a Google docstring; a class's fields come with their types and defaults."""
    fields = _fields(described) if described.is_class else {}
    about: dict[str, str] = {}
    if described.docstring:
        for section in described.docstring.parse("google", returns_named_value=False, returns_multiple_items=False):
            kind = section.kind.value
            if kind == "attributes":
                about |= {item.name: item.description for item in section.value}
            elif kind == "parameters":
                yield "Arguments:\n\n" + _items((_code(item.name), item.description) for item in section.value)
            elif kind in ("returns", "yields"):
                # As written: griffe takes what stands before a colon for the type.
                written = re.search(rf"^{kind.capitalize()}:\n((?:    .*\n?|\n)+)", described.docstring.value, re.M)
                assert written
                yield f"{kind.capitalize()}: " + _text(textwrap.dedent(written[1]))
            elif kind == "raises":
                yield "Raises:\n\n" + _items((_code(item.annotation), item.description) for item in section.value)
            else:
                assert kind == "text", f"{described.path}: a section of {kind} has no layout yet"
                yield _text(section.value)
    if fields or about:
        undeclared = [(_code(name), text) for name, text in about.items() if name not in fields]
        declared = [(_code(how), about.get(name, text)) for name, (how, text) in fields.items()]
        yield "Attributes:\n\n" + _items([*declared, *undeclared])


def _fields(one: griffe.Class) -> dict[str, tuple[str, str]]:
    """Return a class's fields and properties: how each is declared, and its own docstring or comment."""
    found = {}
    for name, field in one.attributes.items():
        if not name.startswith("_") and name != "model_config" and field.annotation is not None:
            declared = f"{name}: {field.annotation}" if "property" in field.labels else " ".join(field.source.split())
            how, _, note = declared.partition(" # ")
            found[name] = how, field.docstring.value if field.docstring else note
    return found


def _items(items: Iterable[tuple[str, str]]) -> str:
    described = [f"{name}: {_text(text)}" if text else name for name, text in items]
    return "\n".join("- " + item.replace("\n", "\n  ") for item in described)


def _text(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text.strip(), flags=re.DOTALL)


def _python(code: str) -> str:
    return f"```python\n{code}\n```"


if __name__ == "__main__":
    main()
