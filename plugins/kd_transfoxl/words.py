"""Texts as words, and words as tokens.

Hyphens inside words, and commas and points inside numbers, are words of their own, as in WikiText-103: ``1,000
well-known`` is ``1 @,@ 000 well @-@ known``. ``join`` puts them back.
"""

import json
import pickle
import re
import zipfile
from collections.abc import Iterable, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, Literal, Self

import numpy as np
from numpy.typing import NDArray

from kdcli.api import DataError

END = "<eos>"  # ends a text; inside a text it stands for the tab of a pair
UNKNOWN = "<unk>"  # stands for every word outside the vocabulary
FILE = "vocab.txt"  # one word a line, in the order of their ids
PICKLED = ("vocab.pkl", "vocab.bin")

_TORCH = 0x1950A86A20F9469CFC6C  # the number that ``torch.save`` wrote first, before it wrote zip archives
Words = Literal["moses", "whitespace"]
"""How texts are split: by the rules of Moses; or at white space, where they are tokenised already."""
CONFIG = "tokenizer_config.json"

_INSIDE_WORDS = re.compile(r"(?<=[^\W_])-(?=[^\W_])|(?<=\d)[,.](?=\d)")
_INSIDE_NUMBERS = re.compile(r"(?<=\d)[,.](?=\d)")
_SIGN = re.compile(r" ?(?<!\S)@([-,.])@(?!\S) ?")
_ALONE = re.compile(r"(?<!\S)[,.;:?!](?!\S)")
_ATTACHED = re.compile(r"\w[,.;:?!](?!\S)")


def read_vocabulary(folder: Path) -> tuple[Sequence[str], bool]:
    """Return the words of ``vocab.txt``, else of ``vocab.pkl`` or ``vocab.bin``; and whether texts are lower-cased.

    The ids of the words are their indexes.
    """
    file = next((file for file in (folder / name for name in (FILE, *PICKLED)) if file.is_file()), None)
    if file is None:
        hint = f"copy {', '.join(PICKLED)} or {FILE} of the pretrained model into it"
        raise DataError("the folder holds no vocabulary", hint=hint, file=folder)
    words, lower_case = (_read_words(file), False) if file.name == FILE else _read_pickle(file)
    seen = set()
    for number, word in enumerate(words, 1):
        row = number if file.name == FILE else None
        if not isinstance(word, str) or word.split() != [word]:
            raise DataError(f"the vocabulary holds {word!r}, which is not a word", file=file, row=row)
        if word in seen:
            raise DataError(f"the vocabulary holds {word!r} twice", file=file, row=row)
        seen.add(word)
    if missing := [word for word in (END, UNKNOWN) if word not in seen]:
        hint = "is it that of a word-level Transformer-XL?"
        raise DataError(f"the vocabulary has no {missing[0]}", file=file, hint=hint)
    return words, lower_case


def unpickle(path: Path) -> Any:
    """Read a vocabulary that ``pickle.dump`` or ``torch.save`` (in any of its forms) wrote, as builtin types.

    A pickle is a program: it names functions, and the reader calls them. This one knows ``_TYPES`` alone, and is a
    ``DataError`` for any other, and for a broken file.
    """
    try:
        with path.open("rb") as stream:
            if zipfile.is_zipfile(stream):
                with zipfile.ZipFile(stream) as archive:
                    (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
                    return _load(BytesIO(archive.read(name)))
            stream.seek(0)
            value = _load(stream)
            # Behind its number, torch.save wrote a version and the system first.
            return [_load(stream) for _ in range(3)][-1] if value == _TORCH else value
    except Exception as error:  # a broken file makes the unpickler raise anything
        what = f"the vocabulary cannot be read: {str(error) or type(error).__name__}"
        hint = "copy the file again from where the model was published, or make a vocab.txt of it"
        raise DataError(what, hint=hint, file=path) from error


class _Ignored:
    """Replaces an object that is not needed: it accepts any arguments, and keeps nothing."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


_TYPES = {
    # A pickle can set attributes of the classes it names; those of a builtin type are fixed.
    "collections.OrderedDict": dict,
    "collections.Counter": dict,
    # transformers before version 5 pickled all attributes of its tokenizer along with the words.
    "re._compile": _Ignored,
    "sacremoses.normalize.MosesPunctNormalizer": _Ignored,
    "sacremoses.tokenize.MosesDetokenizer": _Ignored,
    "sacremoses.tokenize.MosesTokenizer": _Ignored,
    "tokenizers.AddedToken": _Ignored,
    "transformers.tokenization_utils.Trie": _Ignored,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _TYPES:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}")
        return _TYPES[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it holds a tensor")


def _load(stream: BinaryIO) -> Any:
    return _Unpickler(stream, encoding="utf-8").load()


def _read_words(path: Path) -> list[str]:
    try:
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"the vocabulary is not UTF-8: {error}", file=path) from error
    return ["".join(line.split()[:1]) for line in lines]  # some files have counts behind the words


def _read_pickle(path: Path) -> tuple[list[str], bool]:
    value = unpickle(path)
    ids = value.get("sym2idx") if isinstance(value, dict) else None
    if not isinstance(ids, dict) or not all(isinstance(number, int) for number in ids.values()):
        raise DataError("the file holds no vocabulary: sym2idx, the id of each word, is missing", file=path)
    words = sorted(ids, key=ids.__getitem__)
    if [ids[word] for word in words] != list(range(len(words))):
        raise DataError("the ids of the words are not 0, 1, 2 and so on", file=path)
    if value.get("delimiter") == "":
        raise DataError("the vocabulary is one of characters, and the model knows words", file=path)
    return words, bool(value.get("lower_case"))


def split(text: str, words: Words) -> list[str]:
    """Split a text into words, as in WikiText-103; the rules of Moses also normalise quotes and other punctuation."""
    if words == "whitespace":
        return _INSIDE_WORDS.sub(r" @\g<0>@ ", text).split()
    moses = _moses()
    tokenized = moses.tokenizer.tokenize(
        moses.normalizer.normalize(text.strip()),
        aggressive_dash_splits=True,
        return_str=True,
        escape=False,
        protected_patterns=["<eos>", "<unk>", "<formula>"],
    )
    return _INSIDE_NUMBERS.sub(r" @\g<0>@ ", tokenized).split()


def join(words: Iterable[str], rules: Words) -> str:
    """Join the words that ``split`` returns.

    With ``whitespace`` the result is the text, with one space between words, but for signs (``@-@``) that stood in it
    already. ``moses`` attaches punctuation to words.
    """
    text = _SIGN.sub(r"\1", " ".join(words))
    return text if rules == "whitespace" else _moses().detokenizer.detokenize(text.split(" "))


def detect_words(texts: Iterable[str]) -> Words:
    """Return ``whitespace`` if most punctuation of the texts stands alone: they are tokenised already, and stay so."""
    alone = attached = 0
    for text in texts:
        alone += len(_ALONE.findall(text))
        attached += len(_ATTACHED.findall(text))
    return "whitespace" if alone > attached else "moses"


class WordTokenizer:
    """Texts as the ids of their words, with the methods of a Hugging Face tokenizer that ``kdcli.lm`` needs.

    A tab is ``<eos>``, which also ends a text. A word outside the vocabulary is ``<unk>``, and so is one that spells
    ``<eos>``.
    """

    def __init__(self, vocabulary: Sequence[str], words: Words, lower_case: bool = False) -> None:
        self.vocabulary, self.words, self.lower_case = vocabulary, words, lower_case
        self._ids = self.get_vocab()
        self.eos_token_id = self._ids.pop(END)
        self.unk_token_id = self._ids[UNKNOWN]

    @classmethod
    def from_pretrained(cls, folder: Path, words: Words | None = None) -> Self:
        """Read the files of ``save_pretrained``, or the vocabulary of a published model, which has Moses's words."""
        (vocabulary, lower_case), config = read_vocabulary(folder), _read_config(folder / CONFIG)
        return cls(vocabulary, words or config.get("words", "moses"), bool(config.get("lower_case", lower_case)))

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:
        """Write ``vocab.txt`` and ``tokenizer_config.json`` into a folder."""
        config = {"words": self.words, "lower_case": self.lower_case}
        Path(folder, CONFIG).write_text(json.dumps(config, indent=2) + "\n", "utf-8", newline="\n")
        Path(folder, FILE).write_text("\n".join(self.vocabulary) + "\n", "utf-8", newline="\n")

    def __len__(self) -> int:
        return len(self.vocabulary)

    def get_vocab(self) -> dict[str, int]:
        """Return the id of each word."""
        return {word: number for number, word in enumerate(self.vocabulary)}

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        """Return ``input_ids``: the tokens of each text, without the ``<eos>`` that ends it."""
        return {"input_ids": [self._encode(text) for text in texts]}

    def batch_decode(self, rows: Sequence[Sequence[int] | NDArray[np.integer]], **_: Any) -> list[str]:
        """Decode several texts; see ``decode``."""
        return [self.decode(row) for row in rows]

    def decode(self, tokens: Sequence[int] | NDArray[np.integer], **_: Any) -> str:
        """Return the text of tokens; each ``<eos>`` is a tab."""
        sides: list[list[str]] = [[]]
        for token in np.asarray(tokens).tolist():
            if token == self.eos_token_id:
                sides.append([])
            else:
                sides[-1].append(self.vocabulary[token])
        return "\t".join(join(side, self.words) for side in sides)

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = []
        for side in text.split("\t"):
            side = side.lower() if self.lower_case else side
            tokens += [self._ids.get(word, self.unk_token_id) for word in split(side, self.words)]
            tokens.append(self.eos_token_id)
        return tokens[:-1]


@cache
def _moses() -> SimpleNamespace:
    from sacremoses import MosesDetokenizer, MosesPunctNormalizer, MosesTokenizer

    kinds = {"normalizer": MosesPunctNormalizer, "tokenizer": MosesTokenizer, "detokenizer": MosesDetokenizer}
    return SimpleNamespace(**{name: kind("en") for name, kind in kinds.items()})


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text("utf-8"))
        if config.get("words", "moses") not in ("moses", "whitespace"):
            raise ValueError(f"words = {config['words']!r}")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"the tokenizer's configuration cannot be read: {error}", file=path) from error
    return dict(config)
