"""Every plugin that kd brings keeps the contract, checked as a third party's is."""

from pathlib import Path

import pytest
from tiny_transfoxl import write_tiny

from kdcli import registry
from kdcli.testing import check_generator, check_student, check_tagger, check_teacher, tiny_corpus, tiny_teacher

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
        options = options | {"model": write_tiny(tmp_path / "model", tiny_corpus().train)}
    found = {one.check: one for one in CHECK[plugin.group](plugin.name, options=options)}
    assert found["public imports"].result == "passed"
    left_out = {check for check, outcome in found.items() if outcome.result == "skipped"}
    assert left_out <= {"bits", "fast", "fast without torch"}
    assert {check for check, outcome in found.items() if outcome.result == "warned"} <= {"divided part"}


@pytest.mark.parametrize("name", ["ensemble", "transformers", "zero-shot"])
def test_teachers(name, tmp_path):
    options = {"models": [str(tiny_teacher(tmp_path / "one"))]} if name == "ensemble" else {}
    model = tiny_teacher(tmp_path / "two") if name == "ensemble" else ""
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
