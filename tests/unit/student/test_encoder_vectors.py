import numpy as np
import pytest
import torch
from raising import raising
from sklearn.decomposition import PCA
from tokenizers import Tokenizer
from tokenizers.models import WordLevel, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from kdcli.api import QuietReporter
from kdcli.errors import MissingError
from kdcli.student import encoder_vectors as module
from kdcli.student.encoder_vectors import encoder_pieces, encoder_vectors, encoder_words

HIDDEN = 16
WHOLE = ["film", "dull", "bright", "slow", "sharp", "plot", "wit", "tears", "song", "noise", "charm", "star"]
WORDS = [*WHOLE, *(a + b for a in WHOLE[:6] for b in WHOLE[6:]), "film-plot-wit", "dullslowplotsongfilm", "unheard"]


def make_encoder(folder, mask="[MASK]"):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", mask, "-", *WHOLE, *(f"##{word}" for word in WHOLE)]
    tokenizer = Tokenizer(WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": mask}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)
    torch.manual_seed(0)
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    fast.save_pretrained(folder)
    BertModel(BertConfig(vocab_size=len(pieces), initializer_range=0.5, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder"))


def plain_states(encoder, words):
    """One word a forward pass, nothing padded: the states between [CLS] and [SEP], averaged."""
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    model = BertModel.from_pretrained(encoder).eval()
    with torch.no_grad():
        outputs = [model(torch.tensor([tokenizer.encode(word).ids])) for word in words]
    states = [output.last_hidden_state[0, 1:-1].mean(0) for output in outputs]
    return torch.stack(states).double().numpy()


def plain_projection(states, dimension):
    """Project by scikit-learn's PCA, with the sign and the scale of our convention."""
    pca = PCA(dimension, svd_solver="full").fit(states)
    largest = np.take_along_axis(pca.components_, np.abs(pca.components_).argmax(1)[:, None], axis=1)[:, 0]
    components = pca.transform(states) * np.sign(largest)
    return components * 0.25 / np.sqrt(3) / components.std()


@pytest.mark.parametrize("dimension", [1, 5, HIDDEN])
def test_vectors_are_the_pca_of_averaged_states(encoder, dimension):
    vectors = encoder_vectors(encoder, WORDS, dimension, device="cpu")
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(WORDS), dimension)
    np.testing.assert_allclose(vectors, plain_projection(plain_states(encoder, WORDS), dimension), atol=1e-5)


def test_vectors_do_not_depend_on_the_batches(encoder, monkeypatch):
    expected = encoder_vectors(encoder, WORDS, 8, device="cpu")
    for size in (1, 7):
        monkeypatch.setattr(module, "_BATCH", size)
        np.testing.assert_allclose(encoder_vectors(encoder, WORDS, 8, device="cpu"), expected, atol=1e-5)


def test_words_without_pieces_very_long_ones_few_words_and_many_dimensions(encoder, notes):
    vectors = encoder_vectors(encoder, ["\u200b", *WORDS, ""], 8, device="cpu")
    assert not vectors[[0, -1]].any()
    np.testing.assert_allclose(vectors[1:-1], encoder_vectors(encoder, WORDS, 8, device="cpu"), atol=1e-6)
    vectors = encoder_vectors(encoder, [*WORDS, "film-" * 5_000], 8, device="cpu")
    assert np.isfinite(vectors).all()
    vectors = encoder_vectors(encoder, WORDS[:4], 8, device="cpu")
    assert vectors[:, :3].std(axis=0).min() > 0.01
    np.testing.assert_allclose(vectors[:, 3:], 0, atol=1e-5)
    assert not encoder_vectors(encoder, WORDS[:1], 8, device="cpu").any()
    found = encoder_vectors(encoder, WORDS, 1000, device="cpu", reporter=notes)
    assert found.shape == (len(WORDS), HIDDEN)
    assert len(notes.warnings) == 1 and "1000" in notes.warnings[0]
    np.testing.assert_array_equal(found, encoder_vectors(encoder, WORDS, found.shape[1], device="cpu"))


def test_special_words_are_the_encoders_own(tmp_path):
    encoder = make_encoder(tmp_path, mask="<mask>")
    vectors = encoder_vectors(encoder, ["[MASK]", "[PAD]", *WORDS, "unheard-of"], 8, device="cpu")
    named = plain_states(encoder, ["<mask>", "[PAD]", *WORDS, "unheard-of"])
    np.testing.assert_allclose(vectors, plain_projection(named, 8), atol=1e-5)


def test_words_and_pieces_of_a_wordpiece_vocabulary(encoder):
    words = [*WORDS, "##film", "##wit"]
    vectors = encoder_vectors(encoder, words, 8, device="cpu")
    ids = Tokenizer.from_file(str(encoder / "tokenizer.json")).get_vocab()
    model = BertModel.from_pretrained(encoder).eval()
    with torch.no_grad():
        inside = [model(torch.tensor([[2, ids[piece], 3]])).last_hidden_state[0, 1] for piece in words[-2:]]
    states = np.concatenate([plain_states(encoder, WORDS), torch.stack(inside).double().numpy()])
    np.testing.assert_allclose(vectors, plain_projection(states, 8), atol=1e-5)
    found = list(encoder_pieces(encoder, QuietReporter()))
    assert found == [f"##{word}" for word in WHOLE]
    words = list(encoder_words(encoder, QuietReporter()))
    assert words == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "-", *WHOLE]


def test_half_precision_weights_are_computed_in_full(encoder, tmp_path):
    make_encoder(tmp_path)
    BertModel.from_pretrained(encoder).half().save_pretrained(tmp_path)
    vectors = encoder_vectors(tmp_path, WORDS, 4, device="cpu")
    np.testing.assert_allclose(vectors, encoder_vectors(encoder, WORDS, 4, device="cpu"), atol=0.02)


@pytest.mark.parametrize("mark", ["\u0120", "\u2581"])
def test_the_words_of_other_vocabularies_are_those_that_a_mark_begins(tmp_path, mark):
    pieces = ["<s>", f"{mark}film", "ing", f"{mark}dull", "s", f"{mark}d", "!", "##", "###"]  # RoBERTa has such, too
    pieces.append(f"{mark}na\u00efve")
    tokenizer = Tokenizer(WordLevel({piece: number for number, piece in enumerate(pieces)}, unk_token="<s>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<s>").save_pretrained(tmp_path)
    BertConfig(vocab_size=10).save_pretrained(tmp_path)
    named = ["na\u00efve"] if mark == "\u2581" else []  # byte-level BPE writes it otherwise
    assert list(encoder_words(tmp_path, QuietReporter())) == ["film", "dull", "d", *named]
    assert list(encoder_pieces(tmp_path, QuietReporter())) == ["##ing", "##s", "d"]


def test_an_encoder_that_is_not_there_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with raising(MissingError, key="student.vectors") as caught:
        encoder_vectors("no/such/folder", WORDS, 4, device="cpu")
    assert "\n" not in caught.value.what
