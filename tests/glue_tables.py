"""Little tables of every GLUE task, of our own writing, laid out as GLUE's archives are."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

PEOPLE = ["Anna", "Bela", "Carl", "Dora", "Emil", "Frida", "Georg"]
THINGS = ["kettle", "violin", "ladder", "window", "basket", "lantern", "carpet", "bicycle"]
PLACES = ["kitchen", "cellar", "garden", "office", "attic"]
WORDS = ["dull", "lovely", "clumsy", "bright", "tired", "moving", "empty", "clever"]
CLASSES = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class Glue:
    """How GLUE lays a task out: ``row`` makes the fields of a row from its number, and ``label`` is one of them."""

    header: str  # of train and dev; empty where there is none
    row: Callable[[int], list[str]]
    label: int = -1
    dev: tuple[str, ...] = ("dev",)
    test: tuple[str, ...] = ("test",)  # their rows have a number and no label
    test_header: str = "index sentence1 sentence2"


def single(row):
    thing, place = THINGS[row // 3 % 8], PLACES[row % 5]
    return f"a {WORDS[row % 8]} film about {PEOPLE[row % 7].lower()} 's {thing} in the {place} "


def pair(row):
    """Return two texts that belong together if the row's number is odd."""
    thing, place = THINGS[row // 3 % 8], PLACES[row // 2 % 5]
    other = f"The {thing} is in the {place} ." if row % 2 else f'"Nobody" has seen the {THINGS[(row + 5) % 8]} since .'
    return f"{PEOPLE[row % 7]} left the {thing} in the {place} .", other


def entails(row):
    return [str(row), *pair(row), ("not_entailment", "entailment")[row % 2]]


def mrpc(row):
    return [str(row % 2), str(1000 + row), str(2000 + row), *pair(row)]


def stsb(row):
    score = (0.0, 3.8, 1.2, 5.0)[row % 4]
    return [*f"{row} main-captions own 2019 {row:04} none none".split(), *pair(row), f"{score:.3f}"]


def mnli(row):
    label = CLASSES[row % 3]
    gold = "-" if row % 20 == 7 else label
    return [*f"{row} 31193n 31193 own (a) (b) (ROOT) (ROOT)".split(), *pair(row), label, gold]


HUB_TEXTS = {
    **dict.fromkeys(("sst2", "cola"), ("sentence",)),
    **dict.fromkeys(("mrpc", "stsb", "rte", "wnli"), ("sentence1", "sentence2")),
    **dict.fromkeys(("mnli", "ax"), ("premise", "hypothesis")),
    **{"qqp": ("question1", "question2"), "qnli": ("question", "sentence"), "imdb": ("text",)},
}
"""The text columns on the Hub; its label is a class id, or a float for STS-B."""
SINGLE = "index sentence"
MRPC = "#1 ID,#2 ID,#1 String,#2 String"
STSB = "index genre filename year old_index source1 source2 sentence1 sentence2"
PARSES = "sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
MNLI = f"index promptID pairID genre {PARSES} sentence1 sentence2"
SETS = {name: (f"{name}_matched", f"{name}_mismatched") for name in ("dev", "test")}
QQP = "id qid1 qid2 question1 question2 is_duplicate"
TASKS = {
    "sst2": Glue("sentence label", lambda row: [single(row), str(row % 2)], test_header=SINGLE),
    "cola": Glue("", lambda row: ["x", str(row % 2), "" if row % 2 else "*", single(row)], label=1, test_header=SINGLE),
    "mrpc": Glue(f"Quality,{MRPC}", mrpc, label=0, test_header=f"index,{MRPC}"),
    "stsb": Glue(f"{STSB} score", stsb, test_header=STSB),
    "qqp": Glue(QQP, lambda row: [*map(str, (row, row, 500 + row)), *pair(row), str(row % 2)],
                test_header="id question1 question2"),
    "mnli": Glue(f"{MNLI} label1 gold_label", mnli, **SETS, test_header=MNLI),
    "qnli": Glue("index question sentence label", entails, test_header="index question sentence"),
    "rte": Glue("index sentence1 sentence2 label", entails),
    "wnli": Glue("index sentence1 sentence2 label", lambda row: [str(row), *pair(row), str(row % 2)]),
    "imdb": Glue("text label", lambda row: ["<br />".join([single(row)] * 4), str(row % 2)], test_header="index text"),
}  # fmt: skip


def write(task, folder, sizes=(48, 24, 12)):
    """Write the tables of a task: so many rows of train, of each dev table and of each test table."""
    glue = TASKS[task]
    folder.mkdir(parents=True, exist_ok=True)
    begin = 0
    for name in ("train", *glue.dev, *glue.test):
        size = sizes[(name in glue.dev) + 2 * (name in glue.test)]
        rows = [glue.row(number) for number in range(begin, begin + size)]
        header = _split(glue.test_header if name in glue.test else glue.header)
        if name in glue.test:
            columns = _split(glue.header) or ["source", "label", "mark", "sentence"]
            named = [dict(zip(columns, row, strict=True)) for row in rows]
            numbered = [{**row, "index": str(number), "id": str(number)} for number, row in enumerate(named)]
            rows = [[row[column] for column in header] for row in numbered]
        lines = [header, *rows] if header else rows
        (folder / f"{name}.tsv").write_text("".join("\t".join(line) + "\n" for line in lines), "utf-8")
        begin += size


def _split(header):
    return header.split("," if "," in header else " ") if header else []


TWO = ["entailment", "not_entailment"]
HUB_CLASSES = {
    "sst2": ["negative", "positive"],
    "cola": ["unacceptable", "acceptable"],
    "mrpc": ["not_equivalent", "equivalent"],
    "stsb": None,
    "qqp": ["not_duplicate", "duplicate"],
    "mnli": list(CLASSES),
    "qnli": TWO,
    "rte": TWO,
    "wnli": ["not_entailment", "entailment"],
    "ax": list(CLASSES),
}
"""What the Hub calls the classes."""


def write_split(folder, config, split, columns, names=None, shards=1):
    """Store a split as the Hub stores it: the names of the classes are in the file's metadata."""
    (folder / config).mkdir(parents=True, exist_ok=True)
    features = {"label": {"names": names, "_type": "ClassLabel"}} if names else {}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pl.DataFrame(columns)
    size = -(-len(table) // shards)
    for shard in range(shards):
        path = folder / config / f"{split}-{shard:05}-of-{shards:05}.parquet"
        table[shard * size : (shard + 1) * size].write_parquet(path, metadata=metadata)


def write_hub(folder, task, labels):
    """Store all splits of a task, two rows each; the test set has no labels."""
    dtype = pl.Int64 if HUB_CLASSES[task] else pl.Float32
    matched = ("_matched", "_mismatched") if task == "mnli" else ("",)
    for split in ("train", *(f"{split}{part}" for split in ("validation", "test") for part in matched)):
        columns = {name: [f"{name} {row} of {split}" for row in (0, 1)] for name in HUB_TEXTS[task]}
        found = pl.Series([-1, -1] if split.startswith("test") else labels, dtype=dtype)
        numbers = pl.Series([7, 8], dtype=pl.Int32)
        write_split(folder, task, split, {**columns, "label": found, "idx": numbers}, HUB_CLASSES[task])
    return folder
