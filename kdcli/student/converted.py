"""Word vectors converted once, so that the vectors of a few words are found without reading the others.

A converted file is a ``.safetensors`` file whose metadata names the format ``kd.vectors/1``, with five tensors:
``vectors`` float32 [N, D]; ``hashes`` uint64 [N], a hash of each word, ascending; ``rows`` int64 [N], the row that each
of these hashes belongs to; ``words`` uint8 [bytes], the words in UTF-8 one behind the other; ``offsets`` int64 [N + 1],
where each begins, and where the last one ends.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from kdcli.api import Reporter
from kdcli.errors import DataError
from kdcli.files import atomic
from kdcli.student.vector_files import FORMS, VectorFile, reading

FORMAT = "kd.vectors/1"
_DTYPES = {"vectors": "F32", "hashes": "U64", "rows": "I64", "offsets": "I64", "words": "U8"}
_HEADER_BYTES = 4096
_LONGEST_HEADER = 100_000_000
_ROWS_A_MAP = 1024


def convert(source: Path, output: Path, reporter: Reporter) -> None:
    """Convert a file of word vectors, in one pass that holds the words in memory and not their vectors.

    Every row is parsed and checked. Of a word that occurs several times the first vector is the one that is found.

    Args:
        source: A word2vec (text or binary), GloVe or fastText ``.vec`` file, gzipped or not.
        output: The converted file, ``.safetensors``; it is written whole or not at all.
        reporter: Shows the progress.

    Raises:
        DataError: The source is missing, cut or of another form, or one of its rows is broken.
        KdError: The disk is full, or the output cannot be written.
    """
    if is_safetensors(source):
        raise DataError("this is a safetensors file, not one to convert", file=source, hint=FORMS)
    file = VectorFile(source)
    text, offsets, hashes = bytearray(), array("q", [0]), array("Q")
    with atomic(output) as temporary, temporary.open("wb") as stream:
        stream.seek(_HEADER_BYTES)
        with reporter.progress(f"converting {source.name}", file.count, "words") as progress:
            for word, _, vector in file.rows(lambda _: True, progress.advance):
                stream.write(vector.astype("<f4", copy=False).tobytes())
                text += word
                offsets.append(len(text))
                hashes.append(_hash(word))
        order = np.argsort(hashes, kind="stable")
        index = {
            "hashes": np.array(hashes, "<u8")[order],
            "rows": order.astype("<i8"),
            "offsets": np.array(offsets, "<i8"),
            "words": np.frombuffer(text, np.uint8),
        }
        metadata = {"format": FORMAT, "source": source.name, "words": len(hashes), "dimension": file.dimension}
        _finish(stream, index, metadata)
    reporter.info(f"{output.name}: {len(hashes):,} words, {file.dimension} values each")


def _finish(stream: BinaryIO, index: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write the index behind the vectors, and before them the header, whose numbers are known only now.

    The library writes only what lies in memory. Its format: 8 bytes with the length of the header, the header, which
    is JSON and may end in spaces, and the tensors one behind the other.
    """
    shape = (metadata["words"], metadata["dimension"])
    end = 4 * shape[0] * shape[1]
    # One entry of metadata, as in every file of ours.
    header: dict[str, Any] = {"__metadata__": {"kd": json.dumps(metadata)}}
    header["vectors"] = {"dtype": _DTYPES["vectors"], "shape": shape, "data_offsets": (0, end)}
    for name, values in index.items():
        begin, end = end, end + values.nbytes
        header[name] = {"dtype": _DTYPES[name], "shape": values.shape, "data_offsets": (begin, end)}
        stream.write(values.tobytes())
    written = json.dumps(header).encode().ljust(_HEADER_BYTES - 8)
    stream.seek(0)
    stream.write(len(written).to_bytes(8, "little") + written)


def is_safetensors(path: Path) -> bool:
    """Tell by its first bytes whether a file is in the form of converted ones, of whatever content.

    Raises:
        DataError: The file cannot be read.
    """
    with reading(path), path.open("rb") as stream:
        size, brace = stream.read(8), stream.read(1)
    return brace == b"{" and int.from_bytes(size, "little") <= _LONGEST_HEADER


class ConvertedVectors:
    """A converted file, of which little more is read than what is asked for.

    Attributes:
        path: The file.
        count: The number of vectors.
        dimension: Size of a vector.

    Raises:
        DataError: The file is cut, damaged, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            metadata = json.loads((file.metadata() or {}).get("kd", "{}"))
            if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
                raise DataError(f"this is no file of word vectors ({FORMAT})", file=path, hint=FORMS)
            self.count, self.dimension = int(metadata["words"]), int(metadata["dimension"])
            promised = {
                "vectors": ("F32", self.count, self.dimension),
                "hashes": ("U64", self.count),
                "rows": ("I64", self.count),
                "offsets": ("I64", self.count + 1),
            }
            tensors = {name: file.get_slice(name) for name in promised}
            if {name: (t.get_dtype(), *t.get_shape()) for name, t in tensors.items()} != promised:
                raise ValueError("the tensors are not those that its metadata promises")

    def words(self) -> Iterator[bytes]:
        """Give all words (UTF-8) in the order of the file that was converted.

        Raises:
            DataError: The file is damaged.
        """
        with self._open() as file:
            text, offsets = file.get_slice("words"), file.get_slice("offsets")
            for begin in range(0, self.count, _ROWS_A_MAP):
                ends = offsets[begin : min(begin + _ROWS_A_MAP, self.count) + 1]
                block = text[int(ends[0]) : int(ends[-1])].tobytes()
                yield from (block[start:stop] for start, stop in pairwise((ends - ends[0]).tolist()))

    def find(self, words: Sequence[bytes]) -> NDArray[np.int64]:
        """Return ``int64 [words]``, the first row of each word (UTF-8); -1 where there is none.

        Raises:
            DataError: The file is damaged.
        """
        found = np.full(len(words), -1, np.int64)
        wanted = np.array([_hash(word) for word in words], np.uint64)
        with self._open() as file:
            hashes = file.get_tensor("hashes")
            begins, ends = np.searchsorted(hashes, wanted), np.searchsorted(hashes, wanted, "right")
            rows, offsets, text = (file.get_slice(name) for name in ("rows", "offsets", "words"))
            for index in np.flatnonzero(begins < ends).tolist():
                word = words[index]
                # Rows of one hash ascend. It may be the hash of other words, too.
                for row in rows[begins[index] : ends[index]].tolist():
                    start, stop = offsets[row : row + 2].tolist()
                    if stop - start == len(word) and (not word or text[start:stop].tobytes() == word):
                        found[index] = row
                        break
        return found

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return ``float32 [rows, dimension]``, the vectors of these rows; zeros where a row is -1.

        Raises:
            DataError: The file is damaged.
        """
        matrix = np.zeros((len(rows), self.dimension), np.float32)
        order = np.argsort(rows, kind="stable")
        order = order[rows[order] >= 0]
        # Pages that were touched, and their neighbours, count as memory in use until the map is closed.
        for start in range(0, len(order), _ROWS_A_MAP):
            part = order[start : start + _ROWS_A_MAP]
            self._fetch(rows[part])
            with self._open() as file:
                vectors = file.get_slice("vectors")
                for index in part.tolist():
                    matrix[index] = vectors[int(rows[index])]
        if not np.isfinite(matrix).all():
            raise self._damaged("a vector holds a value that is not finite")
        return matrix

    def _fetch(self, rows: NDArray[np.int64]) -> None:
        """Have the system bring these rows from the disk all at once, not one after the other when each is read."""
        if hasattr(os, "posix_fadvise"):
            size = 4 * self.dimension
            with reading(self.path), self.path.open("rb") as file:
                for row in rows.tolist():
                    os.posix_fadvise(file.fileno(), _HEADER_BYTES + row * size, size, os.POSIX_FADV_WILLNEED)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            with reading(self.path), safe_open(self.path, framework="numpy") as file:
                yield file
        except (SafetensorError, ArithmeticError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, what: str) -> DataError:
        what = f"the converted word vectors are cut or damaged: {what}"
        return DataError(what, file=self.path, hint="the file is not whole: convert it again")


def _hash(word: bytes) -> int:
    return int.from_bytes(blake2b(word, digest_size=8).digest(), "little")
