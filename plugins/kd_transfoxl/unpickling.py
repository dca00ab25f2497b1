"""Pickled vocabularies read without running anything that the file asks for.

A pickle is a program: it names functions, and the reader calls them. Of all names this reader knows only those that a
vocabulary of Transformer-XL holds; and what it calls for them are a builtin type and a class that does nothing.
"""

from __future__ import annotations

import pickle
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from kdcli.api import DataError

_TORCH = 0x1950A86A20F9469CFC6C
"""What ``torch.save`` wrote first, before it wrote zip archives."""


class _LeftOut:
    """Stands for an object that is not needed: it takes whatever it is made of, and keeps nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_TYPES = {
    # A pickle can set attributes of the classes it knows; those of a builtin type are fixed.
    "collections.OrderedDict": dict,
    "collections.Counter": dict,
    # transformers before version 5 pickled all attributes of its tokenizer along with the words.
    "re._compile": _LeftOut,
    "sacremoses.normalize.MosesPunctNormalizer": _LeftOut,
    "sacremoses.tokenize.MosesDetokenizer": _LeftOut,
    "sacremoses.tokenize.MosesTokenizer": _LeftOut,
    "tokenizers.AddedToken": _LeftOut,
    "transformers.tokenization_utils.Trie": _LeftOut,
}


class _Unpickler(pickle.Unpickler):
    """Knows ``_TYPES`` and no others."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for.

        Raises:
            DataError: It is not among those of a vocabulary.
        """
        try:
            return _TYPES[f"{module}.{name}"]
        except KeyError:
            raise _refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        """Refuse what is stored beside the pickle.

        Raises:
            DataError: Always.
        """
        raise _refused("tensor")


def unpickle(path: Path) -> Any:
    """Read a vocabulary as ``pickle.dump`` or ``torch.save`` (in any of its forms) wrote it.

    Returns:
        Dictionaries (also for ``OrderedDict`` and ``Counter``), lists, texts, numbers.

    Raises:
        DataError: The file asks for any other type, which the error names; or it is broken.
    """
    try:
        with path.open("rb") as stream:
            return _read_zip(stream) if zipfile.is_zipfile(stream) else _read(stream)
    except DataError as error:
        raise DataError(error.what, hint=error.hint, file=path) from error
    except Exception as error:  # whatever a broken file makes the unpickler raise
        reason = str(error) or type(error).__name__
        hint = "copy the file again; a download may have been cut short"
        raise DataError(f"the vocabulary cannot be read: {reason}", hint=hint, file=path) from error


def _read(stream: BinaryIO) -> Any:
    """Read the only pickle of a file, or the fourth of those that ``torch.save`` wrote."""
    stream.seek(0)
    found = _load(stream)
    if found == _TORCH:
        _version, _system, found = _load(stream), _load(stream), _load(stream)
    return found


def _read_zip(stream: BinaryIO) -> Any:
    with zipfile.ZipFile(stream) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"an archive with {len(pickles)} pickles")
        return _load(BytesIO(archive.read(pickles[0])))


def _load(stream: BinaryIO) -> Any:
    return _Unpickler(stream, encoding="utf-8").load()


def _refused(name: str) -> DataError:
    hint = "a pickle can run any program: take the file from where the model was published, or make a vocab.txt of it"
    return DataError(f"the vocabulary holds a {name}, and is not read", hint=hint)
