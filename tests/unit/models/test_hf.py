import shutil

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub.errors import EntryNotFoundError
from made_teacher import rewrite
from raising import raising

from kdcli.api import DataError, KdError, MissingError, QuietReporter
from kdcli.errors import UsageError
from kdcli.lm.texts import SPECIAL, train_wordpiece
from kdcli.models import hf
from kdcli.models.device import check_device, fastest_precision, halve_until_it_fits, resolve
from kdcli.models.hf import load_lm_config, load_lm_tokenizer

TEXTS = ["a good film about a dog", "the plot is very dull", "naïve fun"]
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def tokenizer_of(**special):
    return transformers.PreTrainedTokenizerFast(tokenizer_object=train_wordpiece([TEXTS], 80), **(special or SPECIAL))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("saved") / "bert", tokenizer_of()
    transformers.set_seed(0)
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **TINY)
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "bert")


def load_all(folder):
    config, tokenizer = hf.load_config(folder), hf.load_tokenizer(folder)
    return config, tokenizer, hf.load_model(folder, transformers.AutoModelForMaskedLM, config=config)


def test_a_folder_is_loaded_whole_or_with_a_new_head_or_pooler(folder):
    config, tokenizer, model = load_all(folder)
    assert config.vocab_size == len(tokenizer) and not model.training
    assert hf.load_config(folder, num_labels=5).num_labels == 5
    half = hf.load_model(folder, transformers.AutoModelForMaskedLM, precision="bf16")
    assert half.dtype == torch.bfloat16
    words, exact = (one.bert.embeddings.word_embeddings.weight.float() for one in (half, model))
    torch.testing.assert_close(words, exact, atol=1e-3, rtol=1e-2)
    config = hf.load_config(folder, num_labels=3)
    model = hf.load_model(folder, transformers.AutoModelForSequenceClassification, config=config, allow_new="head")
    assert model.classifier.weight.shape == (3, 16)
    with pytest.raises(DataError, match="shape: pooler"):
        hf.load_model(folder, transformers.AutoModel)
    assert hf.load_model(folder, transformers.AutoModel, allow_new="pooler").pooler is not None
    other = transformers.AutoModelForMaskedLM.from_config(transformers.RobertaConfig(vocab_size=99, **TINY))
    other.save_pretrained(folder)
    (folder / "config.json").write_text(config.to_json_string())
    with pytest.raises(DataError, match=r"\d+ tensors are missing .* and others"):
        hf.load_model(folder, transformers.AutoModelForSequenceClassification, allow_new="head")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", None, "config.json is missing"),
        ("config.json", "{", "configuration cannot be read"),
        ("model.safetensors", None, "weights cannot be read"),
        ("model.safetensors", "half of it", "weights cannot be read"),
        ("tokenizer.json", None, "tokenizer"),
        ("tokenizer.json", "{", "tokenizer cannot be read"),
    ],
)
def test_broken_folders(folder, name, text, said):
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text, "utf-8")
    with raising(DataError, said, file=folder) as error:
        load_all(folder)
    assert "\n" not in str(error.value)


def test_weights_that_do_not_fit_are_named(folder):
    said, hint = r"2 tensors are .*: classifier.bias \(missing\), classifier.weight", "fine-tune it first"
    with raising(DataError, said, hint=hint):
        hf.load_model(folder, transformers.AutoModelForSequenceClassification, allow_new="pooler", hint=hint)
    rewrite(folder, max_position_embeddings=32)
    for allowed in ("nothing", "head"):
        with pytest.raises(DataError, match=r"shape: .*position_embeddings.weight \(\[64, 16\], not \[32, 16\]\)"):
            hf.load_model(folder, transformers.AutoModelForMaskedLM, allow_new=allowed)


@pytest.mark.parametrize(("kind", "key"), [("pad", "pad_token"), ("mask", "mask_token"), ("eos", "eos_token")])
def test_a_special_token_that_is_missing(tmp_path, kind, key):
    tokenizer_of(unk_token="[UNK]").save_pretrained(tmp_path)
    with raising(DataError, "the tokenizer has no", file=tmp_path, hint=key):
        hf.load_tokenizer(tmp_path, needs=[kind])


def test_a_masked_model_needs_a_fast_tokenizer(saved, monkeypatch):
    monkeypatch.setattr(transformers.PreTrainedTokenizerFast, "is_fast", property(lambda _: False))
    with raising(DataError, hint="tokenizer.json"):
        load_lm_tokenizer(saved, "masked")


BART = transformers.BartConfig(d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (transformers.BertConfig(**TINY), "causal"),
        (BART, "causal"),
        (transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2), "masked"),
        (BART, "masked"),
        (transformers.BertConfig(is_decoder=True), "masked"),
    ],
    ids=["encoder", "seq2seq", "decoder", "masked seq2seq", "bert as a decoder"],
)
def test_language_models_of_another_kind(tmp_path, config, kind):
    config.save_pretrained(tmp_path)
    said = f"a {config.model_type} model is not a {kind} language model"
    with raising(DataError, said, hint={"causal": "gpt2", "masked": "bert-base-uncased"}[kind]):
        load_lm_config(tmp_path, kind)


def test_the_longest_text(tmp_path, notes):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL.values(), "a"]))
    bare = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    assert bare.model_max_length > 10**9, "a tokenizer from vocab.txt alone has no limit"
    bert, roberta = transformers.BertConfig(), transformers.RobertaConfig(max_position_embeddings=514, pad_token_id=1)
    assert hf.max_length_of(bert, bare) == 512 == hf.max_length_of(roberta, bare)
    bare.model_max_length = 100
    assert hf.max_length_of(bert, bare) == 100
    assert hf.fit_max_length(600, bert, key="teacher.max_length", reporter=notes) == 512
    assert hf.fit_max_length(128, bert, key="teacher.max_length", reporter=notes) == 128
    assert len(notes.warnings) == 1 and notes.warnings[0].startswith("teacher.max_length is 600")


def test_models_that_are_not_there(tmp_path, saved, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    waits = []  # a download tries again for half a minute before it says that there is no network
    monkeypatch.setattr("time.sleep", waits.append)
    for weights in (True, False):
        with raising(MissingError, hint="folder") as error:
            hf.find_model("nobody/nothing-of-the-kind", QuietReporter(), key="x.y", weights=weights)
        assert (error.value.exit_code, error.value.key, waits) == (6, "x.y", [])
        for name in (tmp_path / "nothing", "./models/bert"):
            with pytest.raises(MissingError, match="no such folder"):
                hf.find_model(name, QuietReporter(), weights=weights)
        with pytest.raises(DataError, match="is a file"):
            hf.find_model(saved / "config.json", QuietReporter(), weights=weights)
    with pytest.raises(DataError, match=r"config\.json"):
        hf.find_model(tmp_path, QuietReporter())
    assert hf.find_model(tmp_path, QuietReporter(), weights=False) == tmp_path


def test_a_cached_model_needs_no_network(tmp_path, saved, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--encoder/snapshots/0123"
    shutil.copytree(saved, snapshot)
    (tmp_path / "models--some--encoder/refs").mkdir()
    (tmp_path / "models--some--encoder/refs/main").write_text("0123")
    assert hf.find_model("some/encoder", QuietReporter()) == snapshot
    (snapshot / "config.json").rename(snapshot / "adapter_config.json")
    assert hf.find_model("some/encoder", QuietReporter(), adapters=True) == snapshot
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(MissingError):
        hf.find_model("some/encoder", QuietReporter())
    assert hf.find_model("some/encoder", QuietReporter(), weights=False) == snapshot


def test_the_hub_is_asked_for_the_weights_in_their_safe_form_first(tmp_path, monkeypatch):
    asked = []

    def download(name, **options):
        if options.get("local_files_only"):
            raise FileNotFoundError
        asked.append(options)
        assert {"*.json", "*.txt", "vocab.pkl", "vocab.bin"} < set(options["allow_patterns"])
        (tmp_path / "config.json").touch()
        if options["allow_patterns"][-1].endswith(".bin"):
            (tmp_path / "pytorch_model.bin").touch()
        return str(tmp_path)

    looked = []

    def look(url, timeout):
        looked.append(url.rsplit("/", 1)[1])
        if looked == ["config.json"]:
            raise EntryNotFoundError("404")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", look)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(MissingError):
        hf.find_model("some/encoder", QuietReporter())
    assert not asked, "a repository that holds no model is not fetched"
    assert hf.find_model("some/encoder", QuietReporter()) == tmp_path
    assert [one["allow_patterns"][-1] for one in asked] == ["*.safetensors", "pytorch_model*.bin"]
    looked.clear()
    assert hf.find_model("some/adapter", QuietReporter(), adapters=True) == tmp_path
    assert looked == ["config.json", "adapter_config.json"]
    for more, left_out in (((), ["*/*"]), (("*/config.json", "head.pkl"), None)):  # those of sub-folders on request
        assert hf.find_model("some/encoder", QuietReporter(), more=more) == tmp_path
        assert asked[-1]["ignore_patterns"] == left_out and set(more) <= set(asked[-1]["allow_patterns"])


FULL = "CUDA out of memory. Tried to allocate 20.00 MiB."


def fits(limit, error=torch.OutOfMemoryError):
    def run(batch):
        if batch > limit:
            raise error(FULL)
        return batch * 10

    return run


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_batch_is_halved_until_it_fits(error, notes):
    assert halve_until_it_fits(fits(8, error), 48, reporter=notes) == (60, 6)
    assert len(notes.warnings) == 3
    assert halve_until_it_fits(fits(8, error), 4096, count=30, reporter=notes) == (70, 7)
    assert halve_until_it_fits(fits(99), 48, count=3, reporter=notes) == (480, 48), "a small part changes nothing"


def test_what_cannot_be_halved():
    for run, options in ((fits(0), {}), (fits(8), {"auto": False})):
        with raising(KdError, "not enough memory", key="a.b", hint="do this"):
            halve_until_it_fits(run, 16, reporter=QuietReporter(), key="a.b", hint="do this", **options)

    def broken(batch):
        raise RuntimeError("the model is broken")

    with pytest.raises(RuntimeError, match="broken"):
        halve_until_it_fits(broken, 16, reporter=QuietReporter())


def test_precisions_of_a_device_and_the_fastest(monkeypatch):
    check_device("cpu", "bf16", "generator")
    with raising(UsageError, hint="use --precision bf16 or fp32"):
        check_device("cpu", "fp16", "generator")
    taken = {torch.float32: 3.0, torch.bfloat16: 1.0}

    def repeat(trial, number, repeat):
        return [taken[trial().dtype]] * repeat

    monkeypatch.setattr("timeit.repeat", repeat)
    assert fastest_precision("cpu") == "bf16"
    taken[torch.bfloat16] = 2.5  # not worth the rounding
    assert fastest_precision("cpu") == "fp32"
    assert fastest_precision("mps") == "fp32"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there():
    assert resolve("cpu") == "cpu"
    for device in ("cuda", "cuda:1"):
        with raising(MissingError, key="device"):
            check_device(device, "fp32", "teacher")
