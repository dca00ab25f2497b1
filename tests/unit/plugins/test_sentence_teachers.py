import json
import sys

import joblib
import numpy as np
import pytest
import torch
import transformers
from made_teacher import Hostile, raw_logits, rewrite
from notes import Notes
from raising import raising
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.svm import LinearSVC

from kdcli import registry
from kdcli.api import DataError, KdError, MissingError
from kdcli.testing import check_teacher, tiny_corpus, tiny_teacher

PAIRS = [list(column) for column in zip(*(text.split("\t") for text in tiny_corpus("pair").train[:8]), strict=True)]
TEXTS = [*tiny_corpus().train[:20], ""]
COLOURS = ("red", "green", "blue")
LONG = "the plot is warm and the cast is poor but i found music " * 12


def load(plugin, folder, max_length=0, long_texts="cut", precision="fp32", **options):
    how = {"max_length": max_length, "long_texts": long_texts, "device": "cpu", "precision": precision}
    made = registry.options("teachers", plugin, options)
    return registry.load("teachers", plugin).load(str(folder), made, labels=(), reporter=Notes(), **how)


@pytest.mark.parametrize(("labels", "problem"), [(COLOURS, None), (("score",), "regression")])
def test_a_cross_encoder_gives_raw_logits_whatever_its_settings_say(tmp_path, labels, problem):
    folder = tiny_teacher(tmp_path / "model", labels)
    settings = {"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "6.2.0"}
    rewrite(folder, problem_type=problem, sentence_transformers=settings)
    teacher = load("cross-encoder", folder)
    found = teacher.logits(PAIRS, 3)
    assert teacher.labels == (() if len(labels) == 1 else labels) and found.dtype == np.float32
    np.testing.assert_allclose(found, raw_logits(folder, *PAIRS), atol=1e-5)
    assert found.max() > 1  # no sigmoid


def test_a_cross_encoder_that_the_library_has_saved(tmp_path):
    library = pytest.importorskip("sentence_transformers")
    plain = tiny_teacher(tmp_path / "model", ("score",))
    folder = tmp_path / "saved"
    library.CrossEncoder(str(plain), local_files_only=True).save_pretrained(str(folder))
    assert json.loads((folder / "config_sentence_transformers.json").read_text())["activation_fn"].endswith("Sigmoid")
    np.testing.assert_allclose(load("cross-encoder", folder).logits(PAIRS, 8), raw_logits(plain, *PAIRS), atol=1e-5)


def test_what_is_no_cross_encoder(tmp_path):
    folder = tiny_teacher(tmp_path / "model")
    with raising(DataError, key="teacher.plugin"):
        load("cross-encoder", folder).logits([TEXTS], 8)
    rewrite(folder, problem_type="regression")
    with raising(DataError, key="problem_type"):
        load("cross-encoder", folder)
    transformers.BertModel.from_pretrained(folder).save_pretrained(folder)
    with raising(DataError, key="architectures", says="BertModel"):
        load("cross-encoder", folder)


def test_the_cross_encoder_keeps_the_contract():
    found = {outcome.check: outcome for outcome in check_teacher("cross-encoder")}
    assert {name for name, outcome in found.items() if outcome.result != "passed"} == {"long texts"}
    assert found["logits"].detail == "pairs" and found["long texts"].result == "skipped"


def make_setfit(folder, head, labels=None, normalize=False):
    """A body of one tiny layer with mean pooling, and a head that was fitted on its embeddings."""
    library = pytest.importorskip("sentence_transformers")
    encoder = tiny_teacher(folder.parent / f"{folder.name}-encoder")
    transformers.BertModel.from_pretrained(encoder).save_pretrained(encoder)
    library.SentenceTransformer(str(encoder), local_files_only=True).save(str(folder))
    settings = {"labels": labels, "normalize_embeddings": normalize}
    (folder / "config_setfit.json").write_text(json.dumps(settings))
    joblib.dump(head, folder / "model_head.pkl")
    return folder


@torch.inference_mode()
def embedded(folder, texts=TEXTS, max_length=64, normalize=False):
    """The mean of the last layer's states of each text alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        inputs = tokenizer([text], truncation=True, max_length=max_length, return_tensors="pt")
        rows.append(model(**inputs).last_hidden_state[0].mean(0))
    vectors = torch.stack(rows)
    return (torch.nn.functional.normalize(vectors) if normalize else vectors).numpy()


def fitted(head, folder, targets, **how):
    head.fit(embedded(folder, **how), targets)
    joblib.dump(head, folder / "model_head.pkl")
    return head


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


THREE = np.arange(len(TEXTS)) % 3


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    ("head", "targets", "labels", "names"),
    [
        (LogisticRegression(), THREE % 2, ["no", "yes"], ("no", "yes")),
        (LogisticRegression(), THREE, list(COLOURS), COLOURS),
        (LogisticRegression(), np.array(COLOURS)[THREE], list(COLOURS), ("blue", "green", "red")),
        (LogisticRegression(), np.array(["yes", "no"])[THREE % 2], None, ("no", "yes")),
        (LogisticRegression(), THREE + 1, None, ("1", "2", "3")),
        (LogisticRegression(solver="liblinear"), THREE % 2, None, ("0", "1")),
        (OneVsRestClassifier(LogisticRegression()), THREE, list(COLOURS), COLOURS),
        (OneVsRestClassifier(LogisticRegression()), THREE % 2, ["no", "yes"], ("no", "yes")),
    ],
)
def test_the_softmax_of_setfits_logits_is_the_heads_probabilities(tmp_path, head, targets, labels, names, normalize):
    folder = make_setfit(tmp_path / "model", None, labels, normalize)
    head = fitted(head, folder, targets, normalize=normalize)
    teacher = load("setfit", folder, trust=True)
    found = teacher.logits([TEXTS], 3)
    assert teacher.labels == names and found.dtype == np.float32 and np.ptp(found, axis=0).min() > 0.01
    wanted = head.predict_proba(embedded(folder, normalize=normalize))  # in the order of classes_
    np.testing.assert_allclose(softmax(found), wanted, atol=1e-4)


def test_a_head_without_probabilities_gives_its_decision_function(tmp_path):
    folder = make_setfit(tmp_path / "model", None, list(COLOURS))
    head = fitted(LinearSVC(), folder, THREE)
    wanted = head.decision_function(embedded(folder))
    np.testing.assert_allclose(load("setfit", folder, trust=True).logits([TEXTS], 8), wanted, atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_head_of_setfits_own(tmp_path, temperature):
    setfit = pytest.importorskip("setfit")
    torch.manual_seed(3)
    head = setfit.SetFitHead(in_features=16, out_features=3, temperature=temperature, device="cpu")
    folder = make_setfit(tmp_path / "model", head, list(COLOURS))
    teacher = load("setfit", folder, trust=True)
    found = teacher.logits([TEXTS], 8)
    wanted = embedded(folder) @ head.linear.weight.detach().numpy().T + head.linear.bias.detach().numpy()
    np.testing.assert_allclose(found, wanted / temperature, atol=1e-3)
    np.testing.assert_allclose(softmax(found), head.predict_proba(torch.tensor(embedded(folder))).detach(), atol=1e-4)
    many = setfit.SetFitHead(in_features=16, out_features=3, multitarget=True, device="cpu")
    joblib.dump(many, folder / "model_head.pkl")
    with pytest.raises(DataError):
        load("setfit", folder, trust=True)


@pytest.mark.parametrize(
    "head", [OneVsRestClassifier(LogisticRegression()), MultiOutputClassifier(LogisticRegression())]
)
def test_heads_of_several_labels_are_refused(tmp_path, head):
    folder = make_setfit(tmp_path / "model", None, list(COLOURS))
    targets = np.stack([THREE % 2, THREE == 0, THREE == 1], axis=1).astype(int)
    fitted(head, folder, targets)
    rows = np.array(head.predict_proba(embedded(folder)))
    if rows.ndim == 2:
        assert np.abs(rows.sum(1) - 1).max() > 0.1  # what a softmax of their logarithms would hide
    with raising(DataError, file=folder / "model_head.pkl"):
        load("setfit", folder, trust=True)


def test_the_pickle_is_read_on_explicit_trust_alone_and_a_missing_library_names_what_to_install(tmp_path, monkeypatch):
    folder = tiny_teacher(tmp_path / "model")
    joblib.dump(Hostile(tmp_path / "ran"), folder / "model_head.pkl")
    with raising(KdError, key="teachers.setfit.trust", exit_code=3, hint="teachers.setfit.trust=true"):
        load("setfit", folder)
    assert not (tmp_path / "ran").exists()
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    (folder / "model_head.pkl").write_bytes(b"")
    with raising(MissingError, hint="pip install 'kdcli[setfit]'"):
        load("setfit", folder, trust=True)


def test_what_is_no_model_of_setfit(tmp_path):
    folder = make_setfit(tmp_path / "model", {"no": "head"})
    with pytest.raises(DataError, match="dict"):
        load("setfit", folder, trust=True)
    (folder / "model_head.pkl").write_bytes(b"broken")
    with pytest.raises(DataError, match="cannot be read"):
        load("setfit", folder, trust=True)
    (folder / "model_head.pkl").write_bytes(b"cnowhere_to_be_found\nHead\n.")
    with pytest.raises(MissingError, match="nowhere_to_be_found"):
        load("setfit", folder, trust=True)
    (folder / "model_head.pkl").unlink()
    with pytest.raises(DataError, match=r"model_head\.pkl"):
        load("setfit", folder, trust=True)


def test_setfit_cuts_counts_follows_its_files_and_keeps_the_contract(tmp_path):
    folder = make_setfit(tmp_path / "model", None, list(COLOURS))
    head = fitted(LogisticRegression(), folder, THREE)
    teacher = load("setfit", folder, max_length=16, trust=True)
    texts = [LONG, "dull", "warm [MASK]", "warm " * 14]
    wanted = head.decision_function(embedded(folder, texts, 16))
    np.testing.assert_allclose(teacher.logits([texts], 2), wanted, atol=1e-4)
    assert (teacher.max_length, teacher.cut) == (16, 1)
    before = teacher.fingerprint()
    assert load("setfit", folder, trust=True).fingerprint() == before
    fitted(LogisticRegression(C=9), folder, THREE)
    after = teacher.fingerprint()
    rewrite(folder, "1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    assert len({before, after, teacher.fingerprint()}) == 3
    found = {outcome.check: outcome for outcome in check_teacher("setfit", model=folder, options={"trust": True})}
    assert {outcome.result for outcome in found.values()} == {"passed"}
    assert found["logits"].detail == "single texts" and found["long texts"].detail == "read by cut"
