import shutil
import sys

import numpy as np
import pytest
import torch
import transformers
from made_teacher import rewrite
from raising import raising
from safetensors.torch import load_file, save_file

from kdcli.api import QuietReporter, Task
from kdcli.errors import DataError, KdError, MissingError
from kdcli.models.classifier import load_classifier
from kdcli.models.hf import ADAPTER, find_model
from kdcli.teacher.model import TeacherSource

peft = pytest.importorskip("peft")
TEXTS = ["a good film", "bad", "the plot is dull but the actors not", "", "it was great and very very good"]
FIVE = Task("stars", "single", ("1", "2", "3", "4", "5"))


def load(folder, **how):
    return load_classifier(folder, reporter=QuietReporter(), **how)


def with_head(base, outputs, tokens=0):
    """Load a base model with a head of so many outputs, and so many tokens more."""
    how = {"num_labels": outputs, "ignore_mismatched_sizes": True}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, **how)
    if tokens:
        model.resize_token_embeddings(model.config.vocab_size + tokens)
    return model


def adapt(base, name="adapter", *, outputs=3, tokenizer=False, tokens=0, kind=peft.LoraConfig, **how):
    """Save an adapter of a base model as its trainer would, all of its weights random; return its folder."""
    folder = base.parent / name
    torch.manual_seed(1)
    model = with_head(base, outputs, tokens)
    how = {"task_type": "SEQ_CLS", **how}
    if kind is peft.LoraConfig:
        how = {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"], "init_lora_weights": False, **how}
    adapted = peft.get_peft_model(model, kind(**how))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(folder)
    if tokenizer:
        transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@torch.inference_mode()
def by_peft(folder, base, outputs=3, tokens=0):
    """Logits of each text alone by PEFT itself, without merging: ``[texts, outputs]``."""
    model = peft.PeftModel.from_pretrained(with_head(base, outputs, tokens), folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    return torch.cat([model(**tokenizer([text], return_tensors="pt")).logits for text in TEXTS]).numpy()


@pytest.mark.parametrize("outputs", [1, 2, 5])
@pytest.mark.parametrize("base", ["classifier", "encoder"])
def test_the_adapters_head_answers_without_the_bases_names(tiny_teacher, base, outputs):
    folder = tiny_teacher(labels=("entailment", "contradiction"))
    if base == "encoder":  # with its pooler, as BERT's pretraining leaves it
        weights = load_file(folder / "model.safetensors")
        tiny_teacher(model_class=transformers.BertForMaskedLM)
        kept = {name: tensor for name, tensor in weights.items() if "class" not in name}
        save_file(kept, folder / "model.safetensors", {"format": "pt"})
    adapter = adapt(folder, outputs=outputs)
    teacher = load(adapter)
    assert teacher.labels == tuple(f"LABEL_{number}" for number in range(outputs) if outputs > 1)
    got = teacher.logits([TEXTS], 2)
    assert got.shape == (5, outputs) and np.ptp(got, axis=0).min() > 0.01
    np.testing.assert_allclose(got, by_peft(adapter, folder, outputs), atol=1e-5)
    assert not any("lora" in name for name, _ in teacher.model.named_parameters())


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_lower_precision_is_that_of_all_weights(tiny_teacher, precision, dtype):
    adapter = adapt(tiny_teacher(initializer_range=0.2))
    teacher = load(adapter, precision=precision)
    assert {tensor.dtype for tensor in teacher.model.parameters()} == {dtype}
    assert 0 < np.abs(teacher.logits([TEXTS], 5) - load(adapter).logits([TEXTS], 5)).max() < 0.2


def test_a_task_reads_five_outputs_in_its_order_and_says_so(tiny_teacher, notes):
    adapter = adapt(tiny_teacher(), outputs=5)
    teacher = TeacherSource(str(adapter)).load(FIVE, reporter=notes)
    assert teacher.logits([TEXTS]).shape == (5, 5)
    assert any("LABEL_4 as 5" in warning for warning in notes.warnings)


def test_names_and_tokenizer_are_those_in_the_adapters_own_folder(tiny_teacher):
    adapter = adapt(tiny_teacher(problem_type="multi_label_classification"), tokenizer=True)
    rewrite(adapter / "config.json", id2label={"0": "praise", "1": "complaint", "2": "question"})
    assert load(adapter).labels == ("praise", "complaint", "question")
    rewrite(adapter / "config.json", id2label={"0": "praise", "1": "complaint"})
    with raising(DataError, key="id2label", file=adapter / "config.json"):
        load(adapter)
    base = tiny_teacher()
    both = adapt(base, "one"), adapt(base, "two", tokenizer=True)
    rewrite(both[1] / "tokenizer_config.json", model_max_length=8)
    assert [load(adapter).max_length for adapter in both] == [32, 8]


def test_everything_it_depends_on_is_in_the_fingerprint(tiny_teacher):
    base = tiny_teacher()
    adapter, plain = adapt(base), load(base)
    teacher = load(adapter)
    assert teacher.megabytes == plain.megabytes + (adapter / "adapter_model.safetensors").stat().st_size / 1e6
    assert teacher.parameters_without_embeddings == plain.parameters_without_embeddings + 17  # a third output
    found = [plain.fingerprint(), teacher.fingerprint()]
    assert load(adapter).fingerprint() == found[1]
    for file, values in ((base / "config.json", {"hidden_act": "relu"}), (adapter / ADAPTER, {"lora_alpha": 16})):
        rewrite(file, **values)
        found.append(load(adapter).fingerprint())
    assert len(set(found)) == 4


def test_weights_in_the_old_form(tiny_teacher):
    base = tiny_teacher()
    adapter = adapt(base)
    expected = by_peft(adapter, base)
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    teacher = load(adapter)
    np.testing.assert_allclose(teacher.logits([TEXTS], 5), expected, atol=1e-5)
    assert teacher.megabytes > load(base).megabytes


def test_a_head_that_was_not_saved_is_an_error_unless_lora_changed_the_bases(tiny_teacher):
    adapter = adapt(tiny_teacher(), task_type=None)
    with raising(DataError, "classifier", key="modules_to_save", file=adapter):
        load(adapter)
    base = tiny_teacher()
    adapter = adapt(base, outputs=2, task_type=None, target_modules="all-linear")
    np.testing.assert_allclose(load(adapter).logits([TEXTS], 5), by_peft(adapter, base, 2), atol=1e-5)
    tensors = load_file(base / "model.safetensors")
    save_file({name: tensors[name] for name in tensors if "classifier" not in name}, base / "model.safetensors",
              {"format": "pt"})  # fmt: skip
    with raising(DataError, r"classifier\.weight", hint="modules_to_save"):
        load(adapter)


def test_layers_that_are_new_and_were_not_saved_are_an_error(tiny_teacher):
    """ModernBERT puts a layer below its head, which a pretrained model does not have and PEFT does not save."""
    base = tiny_teacher()
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    special = {"vocab_size": 30, "pad_token_id": 0, "eos_token_id": 3, "bos_token_id": 2, "cls_token_id": 2}
    config = transformers.ModernBertConfig(**small, **special, sep_token_id=3)
    transformers.ModernBertModel(config).save_pretrained(base)
    with raising(DataError, r"head\.dense\.weight", file=base, hint="modules_to_save"):
        load(adapt(base, target_modules=["Wqkv"]))
    saved = load(adapt(base, "saved", target_modules=["Wqkv"], modules_to_save=["head"]))
    assert saved.logits([TEXTS], 2).shape == (5, 3)


@pytest.mark.parametrize("how", [{}, {"tokens": 2}, {"tokens": 2, "trainable_token_indices": [31]}])
def test_a_decoder_with_tokens_of_its_own(tiny_teacher, how):
    base = tiny_teacher()
    config = transformers.GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2, n_positions=32, pad_token_id=0)
    transformers.GPT2Model(config).save_pretrained(base)
    adapter = adapt(base, target_modules=["c_attn"], fan_in_fan_out=True, **how)
    expected = by_peft(adapter, base, tokens=how.get("tokens", 0))
    teacher = load(adapter)
    np.testing.assert_allclose(teacher.logits([TEXTS], 3), expected, atol=1e-5)
    assert len(teacher.model.get_input_embeddings().weight) == 30 + how.get("tokens", 0)


def test_a_base_that_was_moved(tiny_teacher):
    base = tiny_teacher()
    adapter = adapt(base)
    before = load(adapter).logits([TEXTS], 5)
    moved = shutil.move(base, base.parent / "moved")
    for name, kind in ((str(base), MissingError), ("./base", MissingError), (None, DataError), ("", DataError)):
        rewrite(adapter / ADAPTER, base_model_name_or_path=name)
        key = "base_model_name_or_path"
        with raising(kind, file=adapter / ADAPTER, key=key, says=name or "", hint=key):
            load(adapter)
    rewrite(adapter / ADAPTER, base_model_name_or_path=str(moved))
    np.testing.assert_array_equal(load(adapter).logits([TEXTS], 5), before)


def test_another_models_adapter_and_prompts(tiny_teacher):
    adapter = adapt(tiny_teacher())
    for sizes in ({"num_hidden_layers": 1}, {"num_hidden_layers": 3}, {"hidden_size": 32}):
        tiny_teacher(**sizes)
        with raising(DataError, file=adapter):
            load(adapter)
    adapter = adapt(tiny_teacher(), kind=peft.PromptTuningConfig, num_virtual_tokens=2)
    with raising(DataError, "PROMPT_TUNING", key="peft_type"):
        load(adapter)


@pytest.mark.parametrize(
    ("name", "text"),
    [(ADAPTER, "{"), (ADAPTER, "[]"), ("adapter_model.safetensors", None),
     ("adapter_model.safetensors", "half"), ("config.json", "{")],
)  # fmt: skip
def test_broken_files(tiny_teacher, name, text):
    adapter = adapt(tiny_teacher())
    (adapter / name).unlink(missing_ok=True)
    if text is not None:
        (adapter / name).write_text(text)
    with pytest.raises(DataError) as error:
        load(adapter)
    assert error.value.file and error.value.file.startswith(str(adapter)) and "\n" not in str(error.value)


def test_what_else_needs_a_model_gets_no_adapter_and_without_peft(tiny_teacher, monkeypatch):
    with raising(KdError, "adapter", key="generators.gpt2.model", exit_code=4):
        find_model(adapt(tiny_teacher()), QuietReporter(), key="generators.gpt2.model")
    adapter = adapt(tiny_teacher())
    monkeypatch.setitem(sys.modules, "peft", None)
    with raising(MissingError, hint="pip install 'kdcli[peft]'"):
        load(adapter)
