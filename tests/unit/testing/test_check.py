"""A whole plugin at once: what pytest is told, and how checks that make no sense are left out."""

import re
from importlib import import_module
from pathlib import Path

import fake_plugin
import pytest

from kdcli import api
from kdcli.registry import GROUPS
from kdcli.testing import CheckOutcome, check_generator, check_plugin, check_student, check_tagger, fake_dist

READS = "from pathlib import Path\n\n\ndef tag(texts):\n    return Path('nowhere').read_text()\n"
DOCS = Path(__file__).resolve().parents[3] / "docs/plugins.md"


def results(outcomes):
    return {outcome.check: outcome.result for outcome in outcomes}


@pytest.mark.parametrize(
    ("check", "inapplicable"),
    [
        (check_generator, {"bits"}),
        (check_student, {"fast", "fast without torch", "onnx graph"}),
        (check_tagger, set()),
    ],
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
    assert outcome_of("students", "build", broken("students", *lines)).detail == kinds


def test_gradients_may_be_sparse(broken, outcome_of):
    made = broken("students", ("_weight=weight", "_weight=weight, sparse=True"))
    assert outcome_of("students", "gradient", made).result == "passed"


def test_every_failure_is_named(broken):
    lines = ('extra="forbid", ', ""), ("use_attribute_docstrings=True", ""), ("return logits", "return logits[:, 0]")
    with pytest.raises(AssertionError) as caught:
        check_student(broken("students", *lines), options={"bias": False})
    first, *named = str(caught.value).splitlines()
    assert re.fullmatch(r"3 of \d+ checks failed", first)
    assert [line.split(":")[0].strip() for line in named] == ["options unknown", "options described", "output shape"]


def test_what_needs_a_failed_check_is_skipped_and_says_why(broken):
    found = check_plugin("generators", broken("generators", ("range(part.count)", "range(part.count - 1)")))
    by_name = {outcome.check: outcome for outcome in found}
    assert by_name["sample"].result == "failed"
    assert by_name["deterministic"] == CheckOutcome("deterministic", "skipped", "it needs what has not passed: sample")
    assert by_name["load of another folder"].result == by_name["options wrong"].result == "passed"


def test_a_warning_is_one_in_pytest_too(broken):
    made = broken("taggers", ("from kdcli.api", "from kdcli.errors import KdError\nfrom kdcli.api"))
    with pytest.warns(UserWarning, match=r"public imports: .* line \d+: kdcli.errors.KdError; see docs/plugins.md"):
        found = check_tagger(made)
    assert results(found)["public imports"] == "warned"


def test_an_error_of_the_plugin_tells_where(broken):
    made = broken("taggers", ("return [[", "return [1 / 0] and [["))
    with pytest.raises(AssertionError, match=r"came ZeroDivisionError: division by zero \(.*kd_broken.py, line \d+\)"):
        check_tagger(made)
    made = broken("students", ("return logits", "return torch.cat([logits, 3])"))
    with pytest.raises(
        AssertionError, match=r"output shape: expected no error; came TypeError: .*kd_broken.py, line \d+"
    ):
        check_student(made)
    missing = "from kdcli.api import MissingError\n    raise MissingError('no lexicon', hint='pip install it')"
    made = broken("taggers", ("return [[", f"{missing}\n    return [["))
    with pytest.raises(AssertionError, match=r"came no lexicon \(pip install it\); see"):
        check_tagger(made)


def test_the_place_of_an_error_is_the_plugins_own(broken, tmp_path):
    """Not that of the library it has called, and not of ``kd``."""
    made = broken("generators", ("checkpoint.mkdir(parents=True, exist_ok=True)", ""))
    with pytest.raises(AssertionError, match=r"came FileNotFoundError: .*kd_broken.py, line \d+\); see"):
        check_generator(made)
    package = {"kd_own.__init__": "api_version = 2\nfrom kd_own.words import tag", "kd_own.words": READS}
    with fake_dist(tmp_path, "kd-own", {"taggers": {"own": "kd_own"}}, package):
        found = {outcome.check: outcome for outcome in check_plugin("taggers", "own")}
    assert re.search(r"FileNotFoundError: .*words\.py, line 5\); see", found["one tag a word"].detail)


def test_a_plugin_that_exits_fails(broken):
    found = {
        one.check: one for one in check_plugin("taggers", broken("taggers", ("return [[", "exit('enough')\n    [[")))
    }
    assert found["one tag a word"].result == "failed" and "came SystemExit: enough (" in found["one tag a word"].detail


def test_what_prints_is_warned(broken, capsys):
    made = broken("taggers", ("return [[", "print('tagging')\n    return [["))
    with pytest.warns(UserWarning, match=r"prints nothing: expected nothing on stdout.*; came 'tagging"):
        check_tagger(made)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("tagging\n")
    early = broken("taggers", ("api_version =", "print('hello')\napi_version ="))  # it has printed by now
    with pytest.warns(UserWarning, match="came 'hello"):
        check_tagger(early)


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
        (None, "has an entry point to nothing: there is no module kd_own"),
        ("import nowhere_to_be_found", "cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    ],
)
def test_by_name_what_cannot_be_imported_fails_the_first_check(tmp_path, source, says):
    modules = {} if source is None else {"kd_own": source}
    with fake_dist(tmp_path, "kd-own", {"taggers": {"own": "kd_own"}}, modules):
        first, *others = check_plugin("taggers", "own")
    assert first.check == "loads" and first.result == "failed" and says in first.detail
    assert "pip install -U kd-own" in first.detail
    assert {outcome.result for outcome in others} == {"skipped"}


def test_by_name_what_breaks_the_contract_is_told_check_by_check(tmp_path):
    source = "'''Own.'''\napi_version = 3\ndef tag(texts): return [['X'] * len(words) for words in texts]"
    with fake_dist(tmp_path, "kd-own", {"taggers": {"own": "kd_own"}}, {"kd_own": source}):
        found = results(check_plugin("taggers", "own"))
        with pytest.raises(AssertionError, match="api_version 3; this kd has 2"):
            check_tagger("own")
    assert found["loads"] == found["members"] == found["one tag a word"] == "passed"
    assert found["api version"] == "failed" and list(found.values()).count("failed") == 1


def test_every_check_points_to_what_is_there():
    titles = set(re.findall(r"^## (.+)$", DOCS.read_text("utf-8"), re.MULTILINE))
    for checks in (import_module(f"kdcli.testing.{group}").CHECKS for group in GROUPS):
        assert len({check.names[0] for check in checks}) == len(checks)
        for check in checks:
            file, section, *contract = re.split(r", (?:and )?", check.see)
            assert (file, section in titles) == ("docs/plugins.md", True), check.see
            for name in contract:
                found = api
                for part in name.removeprefix("kdcli.api.").split("."):
                    found = getattr(found, part)
