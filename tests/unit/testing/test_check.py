"""A whole plugin at once: what pytest is told, and how checks that make no sense are left out."""

import re
from importlib import import_module
from pathlib import Path

import fake_plugin
import pytest

from kdcli.registry import GROUPS
from kdcli.testing import CheckOutcome, check_generator, check_plugin, check_student, check_tagger

DOCS = Path(__file__).resolve().parents[3] / "docs/plugins.md"


def results(outcomes):
    return {outcome.check: outcome.result for outcome in outcomes}


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


def test_every_failure_is_named(broken):
    lines = ("bias=options.bias", "bias=vectors is not None"), ("return logits", "return logits - logits.mean(0)")
    with pytest.raises(AssertionError) as caught:
        check_student(broken(*lines), options={"bias": True})
    first, *named = str(caught.value).splitlines()
    assert re.fullmatch(r"2 of \d+ checks failed", first)
    assert [line.split(":")[0].strip() for line in named] == ["padding", "save and load"]


def test_what_needs_a_failed_step_is_skipped_and_says_why(broken):
    found = check_plugin("generators", broken(("range(part.count)", "range(part.count - 1)")))
    by_name = {outcome.check: outcome for outcome in found}
    assert by_name["sample"].result == "failed" and by_name["load"].result == "passed"
    assert by_name["bits"] == CheckOutcome("bits", "skipped", "it needs what has not passed: sample")


def test_a_warning_is_one_in_pytest_too(broken):
    made = broken(("from kdcli.api", "from kdcli.errors import KdError\nfrom kdcli.api"))
    with pytest.warns(UserWarning, match=r"public imports: .* line \d+: kdcli.errors.KdError; see docs/plugins.md"):
        found = check_tagger(made)
    assert results(found)["public imports"] == "warned"


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


def test_a_plugin_that_exits_fails(broken):
    found = {one.check: one for one in check_plugin("taggers", broken(("return [[", "exit('enough')\n    [[")))}
    assert found["one tag a word"].result == "failed" and "came SystemExit: enough (" in found["one tag a word"].detail


def test_an_object_in_place_of_a_module():
    class Tagger:
        api_version = 2

        def tag(self, texts):
            return [["X"] * len(words) for words in texts]

    found = results(check_tagger(Tagger()))
    skipped = {"cheap import", "public imports", "same in another process"}
    assert {check for check, result in found.items() if result == "skipped"} == skipped


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import nowhere_to_be_found", "cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("api_version = 3\ndef tag(texts): ...", "is written for api_version 3; this kd has 2"),
    ],
)
def test_by_name_what_cannot_be_loaded_fails_the_first_check(make_plugin, source, says):
    make_plugin("kd-own", "[kdcli.taggers]\nown = kd_own\n", source, module="kd_own")
    first, *others = check_plugin("taggers", "own")
    assert first.check == "loads" and first.result == "failed" and says in first.detail
    assert "pip install -U kd-own" in first.detail
    assert {outcome.result for outcome in others} == {"skipped"}


def test_every_check_points_to_what_is_there():
    titles = set(re.findall(r"^## (.+)$", DOCS.read_text("utf-8"), re.MULTILINE))
    for checks in (import_module(f"kdcli.testing.{group}").CHECKS for group in GROUPS):
        every = [*checks.steps, *checks.others]
        assert len({check.__name__ for check in every}) == len(every)
        file, section = checks.see.split(", ")
        assert (file, section in titles) == ("docs/plugins.md", True)
