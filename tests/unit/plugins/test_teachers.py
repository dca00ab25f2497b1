from functools import partial

import numpy as np
import pytest
import torch
import transformers
from made_teacher import decoded, make_decoder, raw_logits, rewrite
from notes import Notes
from raising import raising
from scipy.special import expit, log_softmax
from sklearn.metrics import log_loss

from kd_teachers.ensemble import fit_weights
from kdcli import registry
from kdcli.api import DataError, KdError, MissingError
from kdcli.testing import tiny_corpus, tiny_teacher

TEXTS = [*tiny_corpus().train[:6], "", "dull"]
LONG = "the plot is warm and the cast is poor and the music is slow " * 12
NLI = ("contradiction", "neutral", "entailment")


def load(plugin, folder, labels=("dull", "warm", "slow"), max_length=0, long_texts="cut", notes=None, **options):
    how = {"max_length": max_length, "long_texts": long_texts, "device": "cpu", "precision": "fp32"}
    made = registry.options("teachers", plugin, options)
    module = registry.load("teachers", plugin)
    return module.load(str(folder), made, labels=labels, reporter=notes or Notes(), **how)


classified = partial(raw_logits, max_length=64)


def parts(folder):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return transformers.AutoTokenizer.from_pretrained(folder), model


@torch.inference_mode()
def entailed(folder, texts, sentences, output, max_length=64):
    """The logit of entailment of each text and sentence, one forward pass each, pieces put together by hand."""
    tokenizer, model = parts(folder)
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    rows = []
    for text in texts:
        row = []
        for sentence in sentences:
            premise = tokenizer(text, add_special_tokens=False)["input_ids"]
            hypothesis = tokenizer(sentence, add_special_tokens=False)["input_ids"]
            premise = premise[: max_length - len(hypothesis) - 3]
            ids = [cls, *premise, sep, *hypothesis, sep]
            kinds = [0] * (len(premise) + 2) + [1] * (len(hypothesis) + 1)
            row.append(model(torch.tensor([ids]), token_type_ids=torch.tensor([kinds])).logits[0, output].item())
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("names", [NLI, NLI[::-1], ("ENTAILMENT", "not entailed"), ("x", "Entail")])
def test_zero_shot_takes_the_output_that_is_named_entailment(tmp_path, names):
    folder = tiny_teacher(tmp_path / "nli", names)
    labels = ("dull", "warm", "slow and thin")
    teacher = load("zero-shot", folder, labels)
    output = next(number for number, name in enumerate(names) if name.lower().startswith("entail"))
    wanted = entailed(folder, TEXTS, [f"This example is {label}." for label in labels], output)
    found = teacher.logits([TEXTS], 3)
    assert teacher.labels == labels and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    for other in {*range(len(names))} - {output}:
        assert np.abs(found[:, :1] - entailed(folder, TEXTS, ["This example is dull."], other)).max() > 0.1


def test_the_representation_of_zero_shot_is_the_mean_over_its_sentences(tmp_path):
    folder = tiny_teacher(tmp_path / "nli")
    teacher = load("zero-shot", folder)
    logits, states = teacher.represent([TEXTS], 3)
    np.testing.assert_allclose(logits, teacher.logits([TEXTS], 8), atol=1e-5)
    tokenizer, model = parts(folder)
    wanted = 0
    for sentence in teacher.sentences:
        pairs = (tokenizer(text, sentence, return_tensors="pt") for text in TEXTS)
        with torch.inference_mode():
            hidden = [model(**pair, output_hidden_states=True).hidden_states[-1][0].mean(0) for pair in pairs]
        wanted = wanted + torch.stack(hidden).numpy() / len(teacher.sentences)
    np.testing.assert_allclose(states, wanted, atol=1e-5)


def test_zero_shot_with_another_template_what_it_cannot_read_and_its_fingerprint(tmp_path):
    folder = tiny_teacher(tmp_path / "nli")
    found = load("zero-shot", folder, template="the {} plot").logits([TEXTS], 8)
    wanted = entailed(folder, TEXTS, [f"the {label} plot" for label in ("dull", "warm", "slow")], 0)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    for template in ("no place", "{} and {}"):
        with raising(KdError, key="teachers.zero-shot.template"):
            load("zero-shot", folder, template=template)
    long = "warm " * 60
    with raising(DataError, key=long):
        load("zero-shot", folder, ("dull", long))
    with pytest.raises(DataError):
        load("zero-shot", folder, max_length=12)
    for labels in ((), ("one",)):
        with raising(KdError, exit_code=3):
            load("zero-shot", folder, labels)
    with raising(DataError, key="teacher.plugin"):
        load("zero-shot", folder).logits([TEXTS, TEXTS], 8)
    others = [load("zero-shot", folder, ("dull", "warm")), load("transformers", folder)]
    others += [load("zero-shot", folder, **how) for how in ({}, {"template": "{}"}, {"entailment": "1"})]
    prints = {other.fingerprint() for other in others}
    assert len(prints) == 5
    before = load("zero-shot", folder).fingerprint()
    rewrite(folder, "tokenizer_config.json", padding_side="left")
    assert load("zero-shot", folder).fingerprint() not in prints and before in prints


@pytest.mark.parametrize("names", [NLI, NLI[::-1], ("entailment", "other"), ("other", "entailment")])
def test_zero_shot_with_several_labels_is_the_library_s(tmp_path, names):
    folder = tiny_teacher(tmp_path / "nli", names)
    labels = ["dull", "warm", "slow"]
    teacher = load("zero-shot", folder, tuple(labels), multi_label=True)
    assert teacher.multi_label and not load("zero-shot", folder).multi_label
    rewrite(folder, label2id={name: number for number, name in enumerate(names)})
    library = transformers.pipeline("zero-shot-classification", model=str(folder), device="cpu")
    found = teacher.logits([TEXTS[:6]], 4)
    for shares, one in zip(expit(found), library(TEXTS[:6], labels, multi_label=True), strict=True):
        wanted = dict(zip(one["labels"], one["scores"], strict=True))
        assert shares.tolist() == pytest.approx([wanted[label] for label in labels], abs=1e-5)
    assert teacher.fingerprint() != load("zero-shot", folder, tuple(labels)).fingerprint()


def test_zero_shot_with_several_labels_needs_to_know_contradiction(tmp_path):
    folder = tiny_teacher(tmp_path / "nli", ("entailment", "x", "y"))
    with raising(DataError, key="teachers.zero-shot.contradiction"):
        load("zero-shot", folder, multi_label=True)
    sentences = [f"This example is {label}." for label in ("dull", "warm", "slow")]
    wanted = entailed(folder, TEXTS, sentences, 0) - entailed(folder, TEXTS, sentences, 2)
    for contradiction in ("2", "y"):
        found = load("zero-shot", folder, multi_label=True, contradiction=contradiction).logits([TEXTS], 8)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    with raising(KdError, key="teachers.zero-shot.contradiction"):
        load("zero-shot", folder, multi_label=True, contradiction="entailment")


@pytest.mark.parametrize("names", [("LABEL_0", "LABEL_1", "LABEL_2"), ("yes", "no")])
def test_a_model_that_does_not_name_entailment_needs_the_setting(tmp_path, names):
    folder = tiny_teacher(tmp_path / "nli", names)
    with raising(DataError, key="teachers.zero-shot.entailment", hint="teachers.zero-shot.entailment="):
        load("zero-shot", folder)
    wanted = entailed(folder, TEXTS, [f"This example is {label}." for label in ("dull", "warm", "slow")], 1)
    for entailment in ("1", names[1], names[1].upper()):
        found = load("zero-shot", folder, entailment=entailment).logits([TEXTS], 8)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    for entailment in (str(len(names)), "-1", "maybe"):
        with raising(DataError, key="teachers.zero-shot.entailment"):
            load("zero-shot", folder, entailment=entailment)


def test_zero_shot_cuts_the_premise_alone_and_counts_texts_once(tmp_path):
    folder = tiny_teacher(tmp_path / "nli")
    labels = ("dull", "warm and bright and rich", "slow")
    sentences = [f"This example is {label}." for label in labels]
    between = " ".join(LONG.split()[: 64 - 3 - 7])  # cut beside the longest sentence alone
    teacher, texts = load("zero-shot", folder, labels), [LONG, "dull", between]
    np.testing.assert_allclose(teacher.logits([texts], 2), entailed(folder, texts, sentences, 0), atol=1e-5)
    assert teacher.cut == 2
    short = load("zero-shot", folder, labels, max_length=24)
    wanted = entailed(folder, [LONG], sentences, 0, max_length=24)
    np.testing.assert_allclose(short.logits([[LONG]], 2), wanted, atol=1e-5)
    assert (short.max_length, short.cut) == (24, 1)


@pytest.mark.parametrize("way", ["mean", "max"])
def test_zero_shot_in_windows_of_the_premise(tmp_path, way):
    folder = tiny_teacher(tmp_path / "nli")
    sentences = [f"the plot is {label}" for label in ("dull", "warm")]  # of four pieces
    how = {"max_length": 32, "long_texts": way, "template": "the plot is {}"}
    found = load("zero-shot", folder, ("dull", "warm"), **how).logits([[LONG, "dull"]], 4)
    words = LONG.split()
    stride, room = 32 // 4, 32 - 3 - 4
    starts = [0]
    while starts[-1] + room < len(words):
        starts.append(starts[-1] + room - stride)
    windows = [" ".join(words[start : start + room]) for start in starts]
    wanted = getattr(entailed(folder, windows, sentences, 0), way)(axis=0)
    np.testing.assert_allclose(found[0], wanted, atol=1e-5)
    np.testing.assert_allclose(found[1:], entailed(folder, ["dull"], sentences, 0), atol=1e-5)


@pytest.mark.parametrize("way", ["mean", "max"])
@pytest.mark.parametrize("max_length", [16, 0])
def test_windows_overlap_by_a_quarter(tmp_path, way, max_length):
    folder = tiny_teacher(tmp_path / "model")
    teacher = load("transformers", folder, max_length=max_length, long_texts=way)
    size = max_length or 64
    middle = " ".join(LONG.split()[:40])
    found = teacher.logits([["dull", LONG, middle, ""]], 3)
    for text, logits in zip(["dull", LONG, middle, ""], found, strict=True):
        words, room, step = text.split(), size - 2, size - 2 - size // 4
        starts = range(0, max(1, len(words) - room + step), step)
        windows = [" ".join(words[start : start + room]) for start in starts]
        np.testing.assert_allclose(logits, getattr(classified(folder, windows), way)(axis=0), atol=1e-5)
    assert teacher.cut == (2 if max_length else 1)


def test_windows_of_pairs_are_of_the_first_text(tmp_path):
    folder = tiny_teacher(tmp_path / "model")
    found = load("transformers", folder, max_length=32, long_texts="mean").logits([[LONG], ["dull"]], 3)
    words, room, step = LONG.split(), 32 - 4, 32 - 4 - 8
    windows = [" ".join(words[start : start + room]) for start in range(0, len(words) - room + step, step)]
    wanted = [entailed(folder, windows, ["dull"], output).mean() for output in range(3)]
    np.testing.assert_allclose(found[0], wanted, atol=1e-5)


@pytest.mark.parametrize("pad_in_config", [None, 1, 7])
def test_a_decoder_is_padded_on_the_right_with_its_tokenizers_padding(tmp_path, pad_in_config):
    folder = make_decoder(tmp_path / "decoder", pad_in_config)
    texts = [*tiny_corpus().train[:8], "warm", "the plot [SEP]"]
    for batch in (1, 4, 32):
        found = load("transformers", folder).logits([texts], batch)
        np.testing.assert_allclose(found, decoded(folder, texts), atol=1e-5)


def make_two(tmp_path, names=("no", "maybe", "yes"), others=("Yes", "no", "MAYBE")):
    one, two = tiny_teacher(tmp_path / "one", names), tiny_teacher(tmp_path / "two", others)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(two)
    torch.manual_seed(99)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(two)
    return one, two


@pytest.mark.parametrize(("weights", "shares"), [((), (0.5, 0.5)), ((3, 1), (0.75, 0.25))])
def test_an_ensemble_averages_logits_by_the_names_of_labels(tmp_path, weights, shares):
    one, two = make_two(tmp_path)
    teacher = load("ensemble", one, models=[str(two)], weights=weights)
    wanted = shares[0] * classified(one, TEXTS) + shares[1] * classified(two, TEXTS)[:, [1, 2, 0]]
    found = teacher.logits([TEXTS], 3)
    assert teacher.labels == ("no", "maybe", "yes") and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    members = [load("transformers", folder) for folder in (one, two)]
    assert teacher.parameters == sum(member.parameters for member in members)
    assert teacher.megabytes == pytest.approx(sum(member.megabytes for member in members))
    listed = load("ensemble", one, models=[str(two), str(one)], weights=weights[::-1])
    np.testing.assert_allclose(listed.logits([TEXTS], 3), wanted[:, [2, 0, 1]], atol=1e-5)


@pytest.mark.parametrize("kind", ["classes", "score", "sets"])
def test_weights_fitted_to_gold_labels_are_the_best_of_a_grid(kind):
    draw = np.random.default_rng(3)
    gold = draw.random((200, 3)) < 0.4 if kind == "sets" else draw.integers(3, size=200)
    right = {"classes": np.eye(3)[gold.astype(int)], "score": gold[:, None], "sets": 2 * gold - 1.0}[kind]
    noise = np.array([0.5, 1.0, 4.0])[:, None, None]  # the third model is of no use
    logits = (right + noise * draw.normal(size=(3, *right.shape))).astype(np.float32)

    def loss(weights):
        mean = np.tensordot(weights, logits, axes=1)
        if kind == "score":
            return ((mean[:, 0] - gold) ** 2).mean()
        if kind == "sets":
            return np.mean([log_loss(*columns) for columns in zip(gold.T, expit(mean.astype(float)).T, strict=True)])
        return -log_softmax(mean.astype(float), 1)[np.arange(200), gold].mean()

    steps = np.arange(0, 1.0001, 0.02)
    grid = [(one, two, 1 - one - two) for one in steps for two in steps if one + two < 1.0001]
    found = fit_weights(logits, gold)
    assert sum(found) == pytest.approx(1, abs=1e-3) and min(found) >= 0
    assert loss(found) <= min(map(loss, grid)) + 1e-6
    assert np.abs(np.array(found) - min(grid, key=loss)).max() < 0.02


def test_an_ensemble_fits_its_weights_unless_they_are_given(tmp_path):
    one, two = make_two(tmp_path)
    gold = classified(two, TEXTS)[:, [1, 2, 0]].argmax(1)  # what the second model says
    found = load("ensemble", one, models=[str(two)]).fit([TEXTS], gold, 3)["weights"]
    assert found[1] > 0.5 and sum(found) == pytest.approx(1, abs=1e-3)
    assert load("ensemble", one, models=[str(two)], weights=[2, 1]).fit([TEXTS], gold, 3) == {}
    one, two = make_two(tmp_path, ("score",), ("points",))
    teacher = load("ensemble", one, models=[str(two)])
    assert teacher.labels == ()
    wanted = (classified(one, TEXTS) + classified(two, TEXTS)) / 2
    np.testing.assert_allclose(teacher.logits([TEXTS], 8), wanted, atol=1e-5)


@pytest.mark.parametrize("others", [("yes", "no"), ("a", "b", "c"), ("score",)])
def test_an_ensemble_with_different_labels_is_an_error_that_names_both(tmp_path, others):
    one, two = make_two(tmp_path, others=others)
    with raising(DataError, key="teachers.ensemble.models", says=(str(one), str(two))):
        load("ensemble", one, models=[str(two)])


def test_an_ensemble_needs_two_models_has_the_lowest_limit_and_follows_its_files(tmp_path):
    one, two = make_two(tmp_path)
    both = {"models": [str(two)]}
    for options in ({}, {"models": [str(one)]}, {**both, "weights": [1]}, {**both, "weights": [0, 0]}):
        with raising(KdError, exit_code=3) as caught:
            load("ensemble", one, **options)
        assert caught.value.key.startswith(f"teachers.ensemble.{'weights' if 'weights' in options else 'models'}")
    with raising(MissingError, key="teachers.ensemble.models"):
        load("ensemble", one, models=[str(tmp_path / "nowhere")])
    rewrite(two, "tokenizer_config.json", model_max_length=16)
    teacher = load("ensemble", one, models=[str(two)])
    teacher.logits([[LONG, "dull", "warm " * 20]], 2)
    assert (teacher.max_length, teacher.cut) == (16, 2)
    before = teacher.fingerprint()
    assert load("ensemble", one, models=[str(two)]).fingerprint() == before
    rewrite(two, id2label={"0": "yes", "1": "no", "2": "maybe"})
    assert load("ensemble", one, models=[str(two)]).fingerprint() != before
