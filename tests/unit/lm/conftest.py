import pytest
import torch
from decoding import loud
from tokenizers import ByteLevelBPETokenizer, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast

from kdcli.api import GeneratorSettings
from kdcli.lm import LanguageModelOptions

END = "<|endoftext|>"
TEXTS = ["a good film about a bad dog", "the plot is very dull , and the actors are great", "naïve but great fun"]
TEXTS += ["a great film , and very good fun", "it was dull", "the dog is good and the film is bad", "very bad"]
TEXTS += ["fun fun fun !"]


@pytest.fixture(scope="session")
def tokenizer():
    """GPT-2's kind, with 20 merges: most tokens are letters."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(TEXTS, vocab_size=277, special_tokens=[END], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=END, eos_token=END, unk_token=END)


@pytest.fixture(scope="session")
def spaced_tokenizer():
    """Llama's kind, which puts a space before all that it encodes."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bpe.decoder = decoders.Sequence([decoders.Metaspace(prepend_scheme="first"), decoders.ByteFallback()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    bpe.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=310, special_tokens=special, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture
def make_model(tokenizer):
    def make(*, seed=0, words=None, scale=6.0, **config):
        torch.manual_seed(seed)
        end = tokenizer.eos_token_id
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": end, "eos_token_id": end}
        made = GPT2Config(**{"vocab_size": words or len(tokenizer), **sizes, **config})
        return loud(AutoModelForCausalLM.from_config(made), scale)

    return make


@pytest.fixture
def make_settings():
    """Return a function that makes settings for a CPU; what it does not know are the options."""

    def make(*, options=LanguageModelOptions, seed=3, precision="fp32", **values):
        known = GeneratorSettings.__dataclass_fields__
        own = {name: values.pop(name) for name in list(values) if name in known and name != "batch_size"}
        at_once = values.pop("rows", "auto")
        return GeneratorSettings(
            options(**values), kind="single", seed=seed, device="cpu", precision=precision, batch_size=at_once, **own
        )

    return make
