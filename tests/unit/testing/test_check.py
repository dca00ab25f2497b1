import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import fake_plugin
import pytest
import torch
from tiny_transfoxl import write_tiny
from transformers import AutoConfig, AutoTokenizer

from kdcli import registry, testing
from kdcli.api import PluginError
from kdcli.registry import GROUPS
from kdcli.testing import CheckOutcome, check_generator, check_plugin, check_student, check_tagger, check_teacher
from kdcli.testing.checks import heavy_modules, in_another_process, run_python

DOCS = Path(__file__).resolve().parents[3] / "docs/plugins.md"


@pytest.mark.parametrize(
    ("check", "inapplicable"),
    [(check_generator, {"bits"}), (check_student, {"fast", "fast without torch"}), (check_tagger, set())],
)
@pytest.mark.filterwarnings("error")
def test_the_fake_keeps_every_contract(check, inapplicable):
    found = check(fake_plugin)
    assert {outcome.check for outcome in found if outcome.result == "skipped"} == inapplicable
    assert {outcome.result for outcome in found} <= {"passed", "skipped"}
    assert all(isinstance(outcome, CheckOutcome) and outcome.detail for outcome in found)


@pytest.mark.parametrize(
    ("lines", "kinds"),
    [
        ([], "single sentences, 2 classes; single sentences, scores; pairs, 3 classes; pairs, scores"),
        ([("pairs = True", "pairs = False")], "single sentences, 2 classes; single sentences, scores"),
        ([("scores = True", "scores = False")], "single sentences, 2 classes; pairs, 3 classes"),
    ],
)
def test_a_student_is_built_for_what_its_flags_promise(broken, outcome_of, lines, kinds):
    assert outcome_of("students", "build", broken(*lines)).detail == kinds


def test_every_failure_is_named_and_what_needs_a_failed_step_is_skipped(broken):
    lines = ("bias=options.bias", "bias=vectors is not None"), ("return logits", "return logits - logits.mean(0)")
    with pytest.raises(AssertionError) as caught:
        check_student(broken(*lines), options={"bias": True})
    first, *named = str(caught.value).splitlines()
    assert re.fullmatch(r"2 of \d+ checks failed", first)
    assert [line.split(":")[0].strip() for line in named] == ["padding", "save and load"]
    found = check_plugin("generators", broken(("range(part.count)", "range(part.count - 1)")))
    by_name = {outcome.check: outcome for outcome in found}
    assert by_name["sample"].result == "failed" and by_name["load"].result == "passed"
    assert by_name["bits"] == CheckOutcome("bits", "skipped", "it needs what has not passed: sample")
    found = {one.check: one for one in check_plugin("taggers", broken(("return [[", "exit('enough')\n    [[")))}
    assert found["one tag a word"].result == "failed" and "came SystemExit: enough (" in found["one tag a word"].detail


def test_an_error_of_the_plugin_tells_where(broken):
    made = broken(("return [[", "return [1 / 0] and [["))
    with pytest.raises(AssertionError, match=r"came ZeroDivisionError: division by zero \(.*kd_broken.py, line \d+\)"):
        check_tagger(made)
    made = broken(("checkpoint.mkdir(parents=True, exist_ok=True)", ""))  # not the library that it has called
    with pytest.raises(AssertionError, match=r"came FileNotFoundError: .*kd_broken.py, line \d+\); see"):
        check_generator(made)
    missing = "from kdcli.api import MissingError\n    raise MissingError('no lexicon', hint='pip install it')"
    with pytest.raises(AssertionError, match=r"came no lexicon \(pip install it\); see"):
        check_tagger(broken(("return [[", f"{missing}\n    return [[")))


def test_an_object_in_place_of_a_module():
    class Tagger:
        api_version = 2

        def tag(self, texts):
            return [["X"] * len(words) for words in texts]

    skipped = {outcome.check for outcome in check_tagger(Tagger()) if outcome.result == "skipped"}
    assert skipped == {"cheap import", "same in another process"}


def test_every_check_points_to_what_is_there():
    titles = set(re.findall(r"^## (.+)$", DOCS.read_text("utf-8"), re.MULTILINE))
    for group in GROUPS:
        checks = import_module(f"kdcli.testing.{group}").CHECKS
        every = [*checks.steps, *checks.others]
        assert len({check.__name__ for check in every}) == len(every)
        assert group.capitalize() in titles


TAGGER = "'''Own.'''\napi_version = 2\ndef tag(texts): return [[WORD] * len(words) for words in texts]\nWORD = 'X'\n"


def test_another_process_finds_the_modules_of_this_one_and_names_a_plugin_that_fails_there(tmp_path, monkeypatch):
    (tmp_path / "kd_beside.py").write_text("print('beside')")
    assert run_python("-c", "import kd_beside").code == 1
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run_python("-c", "import kd_beside").stdout == "beside\n"
    assert run_python("-c", "import os; print(os.environ['A'])", environ={"A": "b"}).stdout == "b\n"
    with pytest.raises(PluginError, match="ModuleNotFoundError: No module named 'kd_no'"):
        in_another_process(heavy_modules, ("", "kd_no"), ())


def test_the_current_folder_is_not_searched(tmp_path, monkeypatch):
    """Unless this process searches it: a ``random.py`` there is none of Python's."""
    for name in ("random", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "shape.py").write_text(TAGGER)
    done = testing.run_cli("plugins", "check", "shape", "--code", "shape.py", "--json", cwd=tmp_path)
    assert done.code == 0 and {one["result"] for one in done.json["plugins"][0]["checks"]} == {"passed"}, done
    for name in ("random", "json"):
        (tmp_path / f"{name}.py").unlink()
    (tmp_path / "test_shape.py").write_text(
        "import shape\nfrom kdcli.testing import check_tagger\n\n"
        "def test_it():\n    assert {one.result for one in check_tagger(shape)} == {'passed'}\n"
    )
    done = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "test_shape.py", cwd=tmp_path)
    assert done.code == 0 and "1 passed" in done.stdout, done


def test_a_teacher_knows_the_words_and_leaves_the_random_state_alone(tmp_path, capfd):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    folder = testing.tiny_teacher(tmp_path / "one")
    assert torch.equal(torch.random.get_rng_state(), before) and capfd.readouterr() == ("", "")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.unk_token_id not in tokenizer(" ".join(testing.tiny_corpus().train))["input_ids"]
    assert AutoConfig.from_pretrained(folder).id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    names = AutoConfig.from_pretrained(testing.tiny_teacher(tmp_path / "two", ("no", "yes"))).id2label
    assert names == {0: "no", 1: "yes"}
    again = testing.tiny_teacher(tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_importing_it_costs_nothing_and_needs_no_pytest():
    code = "import sys, kdcli.testing; print(*{'pytest', '_pytest', 'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


CHECK = {"generators": check_generator, "students": check_student}
SMALL = {
    "gpt2": {"model": "tiny", "lr": 1e-2, "batch_size": 8, "epochs": 20},
    "transfoxl": {"lr": 1e-2, "batch_size": 5, "epochs": 6, "max_length": 40},
    "mlm": {"model": "tiny", "vocab_size": 400, "lr": 5e-3, "batch_size": 8, "epochs": 4},
    "bilstm": {"hidden": 6, "fc": 5},
}
"""The options with which each is small; the others are so as they are."""
OURS = [plugin for group in registry.GROUPS for plugin in registry.plugins(group) if plugin.is_ours]
SHARED = Path(__file__).resolve().parents[4] / "shared/nltk_data"


@pytest.mark.parametrize("plugin", [plugin for plugin in OURS if plugin.group in CHECK], ids=lambda plugin: plugin.name)
def test_generators_and_students(plugin, tmp_path):
    options = SMALL.get(plugin.name, {})
    if plugin.name == "transfoxl":
        options = options | {"model": write_tiny(tmp_path / "model", testing.tiny_corpus().train)}
    found = {one.check: one for one in CHECK[plugin.group](plugin.name, options=options)}
    left_out = {check for check, outcome in found.items() if outcome.result == "skipped"}
    assert left_out <= {"bits", "fast", "fast without torch"}


@pytest.mark.parametrize("name", ["ensemble", "transformers", "zero-shot"])
def test_teachers(name, tmp_path):
    options = {"models": [str(testing.tiny_teacher(tmp_path / "one"))]} if name == "ensemble" else {}
    model = testing.tiny_teacher(tmp_path / "two") if name == "ensemble" else ""
    found = {outcome.check: outcome for outcome in check_teacher(name, model=model, options=options)}
    assert {outcome.result for outcome in found.values()} == {"passed"}
    assert found["long texts"].detail == "read by cut, mean, max"
    assert found["logits"].detail == ("single texts" if name == "zero-shot" else "single texts, pairs")


@pytest.mark.parametrize("name", [plugin.name for plugin in OURS if plugin.group == "taggers"])
def test_taggers(name, monkeypatch):
    if name == "nltk":
        import nltk

        if not SHARED.exists():
            pytest.skip("shared data is not there")
        monkeypatch.setenv("NLTK_DATA", str(SHARED))  # for the other process
        monkeypatch.setattr(nltk.data, "path", [str(SHARED), *nltk.data.path])
    assert {outcome.result for outcome in check_tagger(name)} == {"passed"}
