import json
from pathlib import Path

import pytest
import torch
from raising import raising
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from kd_transfoxl.model import TransfoXLConfig, TransfoXLLMHeadModel
from kdcli.api import DataError

REFERENCE = sorted((Path(__file__).parent / "reference" / "model").glob("*.safetensors"))
NAMES = ["plain_softmax", "untied"]
NO_WEIGHT = "transformer.pos_emb.inv_freq"
SMALL = {
    **{"vocab_size": 40, "cutoffs": [8, 15, 28], "div_val": 2, "d_model": 12, "d_embed": 12, "n_head": 2, "d_head": 5},
    **{"d_inner": 20, "n_layer": 2, "mem_len": 5, "clamp_len": 3, "dropout": 0.0},
}


def about(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["about"])


def loud(model):
    """Make the weights of a new model so great that everything matters."""
    for name, weights in model.named_parameters():
        nn.init.normal_(weights, 1.0 if "layer_norm.weight" in name else 0.0, 0.3)
    return model.eval()


def build(seed=0, **changes):
    torch.manual_seed(seed)
    return loud(TransfoXLLMHeadModel(TransfoXLConfig(**{**SMALL, **changes})))


def words_of(rows, time, seed=0, vocabulary=40):
    return torch.randint(1, vocabulary, (rows, time), generator=torch.Generator().manual_seed(seed))


def ties(model):
    """Return the names of weights that share their memory."""
    names = {}
    for name, weights in model.state_dict().items():
        names.setdefault(weights.data_ptr(), []).append(name)
    return sorted(sorted(group) for group in names.values() if len(group) > 1)


@pytest.mark.parametrize("path", REFERENCE, ids=NAMES)
@torch.no_grad()
def test_the_numbers_are_those_of_transformers(path, tmp_path):
    expected = load_file(path)
    tensors = {name.removeprefix("weights."): value for name, value in expected.items() if "weights." in name}
    # A folder in the form of the published checkpoint.
    (tmp_path / "config.json").write_text(json.dumps(about(path)["config"]))
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    model, report = TransfoXLLMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert model.state_dict().keys() == tensors.keys() - {NO_WEIGHT}
    assert ties(model) == about(path)["ties"]
    words = expected["0.input_ids"]
    found = model.crit.log_probs(model.transformer(words).flatten(0, 1)).view(*words.shape, -1)
    torch.testing.assert_close(found, expected["0.log_probs"], rtol=0, atol=1e-5)
    torch.testing.assert_close(model(words).losses, expected["0.losses"], rtol=0, atol=1e-5)
    assert expected["0.log_probs"].std() > 1


@torch.no_grad()
def test_losses_are_of_real_words_alone_and_half_precision_is_close():
    model, words = build(), words_of(3, 7)
    mask = torch.ones_like(words)
    for row, length in enumerate((7, 4, 1)):
        mask[row, length:], words[row, length:] = 0, 0
    chances = model.crit.log_probs(model.transformer(words)[:, :-1].flatten(0, 1)).view(3, 6, -1)
    picked = -chances.gather(2, words[:, 1:, None])[:, :, 0]
    found = model(words, attention_mask=mask).losses
    torch.testing.assert_close(found, picked * mask[:, 1:], rtol=0, atol=1e-5)
    assert (found > 0).sum() == 9
    assert torch.equal(model(words).losses[0], found[0])
    alone = model(words[1:2, :4]).losses
    torch.testing.assert_close(alone, found[1:2, :3], rtol=0, atol=1e-5)
    model, words = build(), words_of(4, 8)
    exact = model(words).losses
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(words).losses
    half = model.to(torch.bfloat16)(words).losses
    for losses in (mixed, half):
        assert losses.dtype == torch.float32
        assert (losses - exact).abs().mean() < 0.1
    sines = model.transformer.sines(torch.arange(999, -1, -1), torch.bfloat16)
    assert sines.dtype == torch.bfloat16
    model.config.clamp_len = -1
    far = model.transformer.sines(torch.tensor([1000, 1001]), torch.bfloat16)
    assert not torch.equal(far[0], far[1])


@pytest.mark.parametrize("path", REFERENCE, ids=NAMES)
def test_a_saved_model_is_the_same_one(path, tmp_path):
    model = loud(TransfoXLLMHeadModel(TransfoXLConfig(**about(path)["config"])))
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert len(saved) == len(model.state_dict()) - sum(len(group) - 1 for group in ties(model))
    assert AutoConfig.from_pretrained(tmp_path).to_diff_dict() == model.config.to_diff_dict()
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is TransfoXLLMHeadModel and not any(report.values())
    assert ties(again) == ties(model)
    for name, weights in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weights), name
    with torch.no_grad():
        again.transformer.word_emb.emb_layers[0].weight[3] += 1
    own = torch.equal(again.crit.out_layers[0].weight, model.crit.out_layers[0].weight)
    assert own != model.config.tie_word_embeddings


def test_published_keys_are_kept(tmp_path):
    keys = {"tie_weight": True, "tgt_len": 128, "ext_len": 0, "task_specific_params": {"a": {"b": 1}}, "adaptive": True}
    config = TransfoXLConfig(n_token=300, cutoffs=[20, 40], tie_projs=[False, True, True], sample_softmax=-1, **keys)
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is TransfoXLConfig and again.vocab_size == 300 == again.n_token
    assert {key: getattr(again, key) for key in keys} == keys
    default = TransfoXLConfig()
    assert default.tie_projs == [False, True, True, True] and default.num_hidden_layers == 18


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"attn_type": 2}, "attn_type"),
        ({"pre_lnorm": True}, "pre_lnorm"),
        ({"untie_r": False}, "untie_r"),
        ({"vocab_size": 28}, "cutoffs"),
        ({"cutoffs": [15, 8, 28]}, "cutoffs"),
        ({"tie_projs": [True]}, "tie_projs"),
        ({"div_val": 3}, "d_embed"),
        ({"d_model": 13}, "d_model"),
        ({"mem_len": -1}, "mem_len"),
        ({"mem_len": 0}, "mem_len"),
    ],
)
def test_a_configuration_without_a_model_is_refused(changes, key):
    with raising(DataError, key=key, hint=True):
        TransfoXLLMHeadModel(TransfoXLConfig(**{**SMALL, **changes}))


@pytest.mark.parametrize("path", REFERENCE, ids=NAMES)
def test_every_parameter_gets_a_gradient(path):
    """Training by several processes waits for all of them, whatever words a batch has."""
    model = loud(TransfoXLLMHeadModel(TransfoXLConfig(**about(path)["config"])))
    model(words_of(2, 5, vocabulary=6)).losses.sum().backward()
    assert all(weights.grad is not None for weights in model.parameters())
