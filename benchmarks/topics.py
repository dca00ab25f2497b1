"""A multi-label table of QQP's first questions, with topics by keywords: for the figures of multi-label tasks.

    python benchmarks/topics.py DATA/QQP topics

A question has the topics of the words in it, and a duplicate also those of its second question, so that words alone do
not decide. Each question stands once in train and once in dev.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import polars as pl

TOPICS = {
    "money": "money invest investment bank loan price salary pay rupees rupee notes dollar earn cost stock tax",
    "education": "college university school exam study student students learn degree engineering mba course teacher",
    "technology": "phone computer laptop software programming java python android iphone app google facebook website",
    "health": "health weight doctor disease diet pain medicine sleep skin hair cancer pregnancy eat food exercise body",
    "relationships": "love girlfriend boyfriend relationship girl guy marry marriage sex wife husband date friend",
    "politics": "trump hillary clinton president modi government election war china minister vote political country",
    "travel": "travel trip visit visa hotel flight city tourist airport train places",
    "language": "english language word words write writing speak spanish grammar sentence mean meaning accent",
}
WORDS = {topic: set(words.split()) for topic, words in TOPICS.items()}


def topics(text: str) -> str:
    """Return the topics of a text."""
    found = set(re.findall(r"[a-z]+", text.lower()))
    return "|".join(topic for topic, words in WORDS.items() if found & words)


def main() -> None:
    source, output = map(Path, sys.argv[1:])
    output.mkdir(exist_ok=True)
    for split in ("train", "dev"):
        table = pl.read_csv(source / f"{split}.tsv", separator="\t", quote_char=None, infer_schema=False)
        both = pl.when(pl.col("is_duplicate") == "1").then(pl.concat_str("question1", "question2", separator=" "))
        labelled = table.select(
            text="question1", topics=both.otherwise("question1").map_elements(topics, return_dtype=pl.String)
        )
        labelled.unique("text", keep="first", maintain_order=True).write_csv(output / f"{split}.csv")


if __name__ == "__main__":
    main()
