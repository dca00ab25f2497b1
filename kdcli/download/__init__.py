"""The sources of ``kd data get``: their addresses, and the size and SHA-256 that several independent places publish."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from kdcli.config.table import nearest
from kdcli.errors import UsageError

Kind = Literal["task", "vectors", "texts"]

GLUE = "nyu-mll/glue"
"""GLUE's dataset on the Hub; each task is a folder of Parquet files in it."""


@dataclass(frozen=True)
class Source:
    """A task, word vectors or transfer sets that ``kd data get`` gets.

    ``address`` is the URL of a file or the name of a dataset on the Hub. ``size`` and ``sha256`` are given where they
    are known for sure. ``member`` is the one file that is wanted of an archive.
    """

    name: str
    kind: Kind
    about: str
    address: str
    cite: str
    size: int | None = None
    sha256: str | None = None
    member: str = ""

    @property
    def is_dataset(self) -> bool:
        """Whether it is a dataset, and not a file."""
        return self.kind == "task"

    @property
    def is_url(self) -> bool:
        """Whether the address is a URL, and not a dataset's name or a path."""
        return "://" in self.address

    @property
    def file_name(self) -> str:
        """The name of its file, as the address ends."""
        name = Path(unquote(urlsplit(self.address).path) if self.is_url else self.address).name
        return name if name not in ("", "..") else self.name


@dataclass(frozen=True)
class SourceFile:
    """A file in the folder of a source; ``rows`` where they are counted."""

    path: str
    size: int
    rows: int | None = None


def _task(name: str, rows: str, cite: str, address: str = GLUE) -> Source:
    return Source(name, "task", f"train, dev, test: {rows} rows", address, cite)


_GLUE = "Wang et al. 2019, gluebenchmark.com"
_GLOVE = "Pennington, Socher, Manning 2014, PDDL 1.0"
_FASTTEXT = "Mikolov et al. 2018, CC BY-SA 3.0"


def _glove_6b(dimension: int) -> Source:
    return Source(
        f"glove.6B.{dimension}d",
        "vectors",
        f"GloVe, Wikipedia and Gigaword, 400,000 words, {dimension}-d",
        "https://nlp.stanford.edu/data/glove.6B.zip",
        _GLOVE,
        862_182_613,
        "617afb2fe6cbd085c235baf7a465b96f4112bd7f7ccb2b2cbd649fed9cbcf2fb",
        f"glove.6B.{dimension}d.txt",
    )


SOURCES = (
    _task("sst2", "67,349, 872, 1,821", f"Socher et al. 2013; {_GLUE}"),
    _task("cola", "8,551, 1,043, 1,063", f"Warstadt, Singh, Bowman 2019; {_GLUE}"),
    _task("mrpc", "3,668, 408, 1,725", f"Dolan, Brockett 2005; {_GLUE}"),
    _task("stsb", "5,749, 1,500, 1,379", f"Cer et al. 2017; {_GLUE}"),
    _task("qqp", "363,846, 40,430, 390,965", f"Quora question pairs; {_GLUE}"),
    _task("mnli", "392,702, 9,815 + 9,832, 9,796 + 9,847", f"Williams, Nangia, Bowman 2018; {_GLUE}"),
    _task("qnli", "104,743, 5,463, 5,463", f"Rajpurkar et al. 2016; {_GLUE}"),
    _task("rte", "2,490, 277, 3,000", f"Bentivogli et al. 2009; {_GLUE}"),
    _task("wnli", "635, 71, 146", f"Levesque, Davis, Morgenstern 2012; {_GLUE}"),
    Source("ax", "task", "GLUE's diagnostics, for MNLI's student: 1,104 rows", GLUE, _GLUE),
    _task("imdb", "22,500, 2,500, 25,000, and 50,000 unlabelled", "Maas et al. 2011", "stanfordnlp/imdb"),
    *(_glove_6b(dimension) for dimension in (50, 100, 200, 300)),
    Source(
        "glove.840B.300d",
        "vectors",
        "GloVe, Common Crawl, 2.2 million words, 300-d",
        "https://nlp.stanford.edu/data/glove.840B.300d.zip",
        _GLOVE,
        2_176_768_927,
        "c06db255e65095393609f19a4cfca20bf3a71e20cc53e892aafa490347e3849f",
        "glove.840B.300d.txt",
    ),
    Source(
        "word2vec.300d",
        "vectors",
        "word2vec, Google News, 3 million words, 300-d: paper A's",
        # A mirror: the authors' own place is a page that wants a browser.
        "https://huggingface.co/LoganKilpatrick/GoogleNews-vectors-negative300/resolve/main/GoogleNews-vectors-negative300.bin.gz",
        "Mikolov et al. 2013, Apache 2.0",
        1_647_046_227,
        "21c05ae916a67a4da59b1d006903355cced7de7da1e42bff9f0504198c748da8",
    ),
    Source(
        "fasttext.crawl.300d",
        "vectors",
        "fastText, Common Crawl, 2 million words, 300-d",
        "https://dl.fbaipublicfiles.com/fasttext/vectors-english/crawl-300d-2M.vec.zip",
        _FASTTEXT,
        1_523_785_255,
        "5bfffffbabdab299d4c9165c47275e8f982807a6eaca37ee1f71d3a79ddb544d",
        "crawl-300d-2M.vec",
    ),
    Source(
        "fasttext.wiki-news.300d",
        "vectors",
        "fastText, Wikipedia and news, 1 million words, 300-d",
        "https://dl.fbaipublicfiles.com/fasttext/vectors-english/wiki-news-300d-1M.vec.zip",
        _FASTTEXT,
        None,
        "bdeb85f44892c505953e3654183e9cb0d792ee51be0992460593e27198d746f8",
        "wiki-news-300d-1M.vec",
    ),
    Source(
        "distillation-data",
        "texts",
        "the transfer sets of paper B",
        # So an earlier README of d-bert; a later one names git.uwaterloo.ca/r33tang/distillation-data.
        "https://nlp.nyc3.digitaloceanspaces.com/distillation-data.zip",
        "Tang, Lu, Lin 2019",
    ),
)


def find(name: str) -> Source:
    """Return the source of this name.

    Raises:
        UsageError: There is none; suggests the nearest.
    """
    by_name = {source.name: source for source in SOURCES}
    if name not in by_name:
        close = nearest(name, by_name)
        hint = f"did you mean {close}?" if close else "`kd data list` names what there is"
        raise UsageError(f"nothing is named {name}", hint=hint)
    return by_name[name]
