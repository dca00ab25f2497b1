import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from commands import all_commands
from typer.main import get_command

from kdcli.cli import app, second_names

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), DOCS.parent / "README.md"]

SPEC = spec_from_file_location("generate", DOCS / "generate.py")
generate = module_from_spec(SPEC)
SPEC.loader.exec_module(generate)
WRITTEN = {"cli.md": generate.cli_page, "api.md": generate.api_page}


@pytest.mark.parametrize("page", WRITTEN)
def test_a_page_is_up_to_date(page):
    assert (DOCS / page).read_text("utf-8") == WRITTEN[page](), "run `make docs`"


def test_every_command_and_each_of_its_options_is_in_the_reference():
    page = generate.cli_page()
    for path, command in all_commands(get_command(app)):
        path = ("kd", *path)
        section = re.search(rf"^#+ {' '.join(path)}\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
        assert section, path
        for parameter in command.params:
            for name in (*parameter.opts, *second_names(parameter)) if parameter.opts[0][0] == "-" else ():
                assert re.search(rf"^\| .*`(--\S+/)?{name}[` /]", section[1], re.MULTILINE), (path, name)
            off = set(parameter.secondary_opts) - set(second_names(parameter))
            assert not [name for name in off if name in section[1]], "a switch that is off needs no second name"
        assert re.search(rf"^    {' '.join(path)}\b", section[1].partition("For example:")[2], re.MULTILINE), path


def test_every_public_name_is_in_the_reference_and_the_same_everywhere():
    import kdcli.api
    import kdcli.testing

    page = generate.api_page()
    for module in kdcli.api, kdcli.testing:
        section = re.search(rf"^## {module.__name__}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)[1]
        assert {name for name in module.__all__ if f"\n### {name}\n" not in section} == set()
    assert "Args:" not in page and "Raises:\n    " not in page and "``" not in page.replace("```", "")
    section = (DOCS / "plugins.md").read_text("utf-8").partition("\n## What is public\n")[2].partition("\n## ")[0]
    assert [name for name in (*generate.PUBLIC, "load_student") if f"`kdcli.{name}`" not in section] == []


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)):
        if not target.startswith("http"):
            file, _, anchor = target.partition("#")
            other = page.parent / file if file else page
            assert other.exists(), target
            assert not anchor or anchor in anchors(other), target
