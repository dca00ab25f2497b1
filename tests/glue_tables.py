"""Little tables of every GLUE task, of our own writing, laid out as GLUE's archives are."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PEOPLE = ["Anna", "Bela", "Carl", "Dora", "Emil", "Frida", "Georg"]
THINGS = ["kettle", "violin", "ladder", "window", "basket", "lantern", "carpet", "bicycle"]
PLACES = ["kitchen", "cellar", "garden", "office", "attic"]
GOOD, BAD = ["lovely", "bright", "moving", "clever"], ["dull", "clumsy", "tired", "empty"]


@dataclass(frozen=True)
class Glue:
    """How GLUE lays a task out.

    Attributes:
        header: The columns of train and dev; empty where there is no header.
        row: The fields of a row, made of its number; the last or the named one is the label.
        label: Which of the fields is the label.
        dev: The dev tables.
        test: The test tables; their rows have a number and no label.
    """

    header: str
    row: Callable[[int], list[str]]
    label: int = -1
    dev: tuple[str, ...] = ("dev",)
    test: tuple[str, ...] = ("test",)
    test_header: str = "index sentence1 sentence2"


def _fact(place: int) -> tuple[str, str, str]:
    person, thing, where = PEOPLE[place % 7], THINGS[place // 3 % 8], PLACES[place // 2 % 5]
    return person, f"{person} left the {thing} in the {where} .", f"The {thing} is in the {where} ."


def _sst2(place: int) -> list[str]:
    word = (GOOD if place % 2 else BAD)[place // 2 % 4]
    return [f"a {word} film about {PEOPLE[place % 7].lower()} 's {THINGS[place // 3 % 8]} ", str(place % 2)]


def _cola(place: int) -> list[str]:
    person, _, _ = _fact(place)
    thing = THINGS[place // 3 % 8]
    good = f"{person} has polished the {thing} in the {PLACES[place // 2 % 5]}."
    bad = f"{person} polished has {thing} the in {PLACES[place // 2 % 5]}."
    return ["kd01", str(place % 2), "" if place % 2 else "*", good if place % 2 else bad]


def _mrpc(place: int) -> list[str]:
    _, one, two = _fact(place)
    other = f'"Nobody" has seen the {THINGS[(place + 5) % 8]} since .'
    return [str(place % 2), str(1000 + place), str(2000 + place), one, two if place % 2 else other]


def _stsb(place: int) -> list[str]:
    _, one, two = _fact(place)
    score = (5.0, 3.8, 1.2, 0.0)[place % 4]
    other = (one, two, f"The {THINGS[place // 3 % 8]} is old .", "It rained all day long .")[place % 4]
    return [*f"{place} main-captions own 2019 {place:04} none none".split(), one, other, f"{score:.3f}"]


def _qqp(place: int) -> list[str]:
    thing, other = THINGS[place // 3 % 8], THINGS[(place // 3 + 3) % 8]
    two = f"What is the way to mend a {thing}?" if place % 2 else f"Where is the {other} sold?"
    return [str(place), str(place), str(500 + place), f"How do I mend a {thing}?", two, str(place % 2)]


def _mnli(place: int) -> list[str]:
    _, one, two = _fact(place)
    label = ("entailment", "neutral", "contradiction")[place % 3]
    other = (two, f"{PEOPLE[(place + 2) % 7]} wants to have it .", two.replace("is in", "was never in"))[place % 3]
    gold = "-" if place % 20 == 7 else label
    return [*f"{place} 31193n 31193 own (a) (b) (ROOT) (ROOT)".split(), one, other, label, gold]


def _entails(place: int, one: str, two: str) -> list[str]:
    return [str(place), one, two, "entailment" if place % 2 else "not_entailment"]


def _qnli(place: int) -> list[str]:
    person, one, _ = _fact(place)
    other = f"The {PLACES[place % 5]} was built in {1800 + place} ."
    return _entails(place, f"Where did {person} leave it?", one if place % 2 else other)


def _rte(place: int) -> list[str]:
    _, one, two = _fact(place)
    other = f"The {THINGS[(place + 4) % 8]} is lost ."
    return _entails(place, f"{one} It stayed there .", two if place % 2 else other)


def _wnli(place: int) -> list[str]:
    thing, where = THINGS[place // 3 % 8], PLACES[place // 2 % 5]
    one = f"The {thing} does not fit the {where} because it is too large ."
    return [str(place), one, f"The {thing if place % 2 else where} is too large .", str(place % 2)]


def _imdb(place: int) -> list[str]:
    words = GOOD if place % 2 else BAD
    lines = [f"I saw the {THINGS[(place + step) % 8]} scene , and it was {words[step]} ." for step in range(4)]
    return ["<br />".join(lines), str(place % 2)]


HUB_TEXTS = {
    **dict.fromkeys(("sst2", "cola"), ("sentence",)),
    **dict.fromkeys(("mrpc", "stsb", "rte", "wnli"), ("sentence1", "sentence2")),
    **dict.fromkeys(("mnli", "ax"), ("premise", "hypothesis")),
    "qqp": ("question1", "question2"),
    "qnli": ("question", "sentence"),
    "imdb": ("text",),
}
"""The text columns on the Hub; its label is a class id, or a float for STS-B."""
SINGLE = "index sentence"
MNLI_PARSES = "sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
TASKS = {
    "sst2": Glue("sentence label", _sst2, test_header=SINGLE),
    "cola": Glue("", _cola, label=1, test_header=SINGLE),
    "mrpc": Glue(
        "Quality,#1 ID,#2 ID,#1 String,#2 String", _mrpc, label=0, test_header="index,#1 ID,#2 ID,#1 String,#2 String"
    ),
    "stsb": Glue(
        "index genre filename year old_index source1 source2 sentence1 sentence2 score",
        _stsb,
        test_header="index genre filename year old_index source1 source2 sentence1 sentence2",
    ),
    "qqp": Glue("id qid1 qid2 question1 question2 is_duplicate", _qqp, test_header="id question1 question2"),
    "mnli": Glue(
        f"index promptID pairID genre {MNLI_PARSES} sentence1 sentence2 label1 gold_label",
        _mnli,
        dev=("dev_matched", "dev_mismatched"),
        test=("test_matched", "test_mismatched"),
        test_header=f"index promptID pairID genre {MNLI_PARSES} sentence1 sentence2",
    ),
    "qnli": Glue("index question sentence label", _qnli, test_header="index question sentence"),
    "rte": Glue("index sentence1 sentence2 label", _rte),
    "wnli": Glue("index sentence1 sentence2 label", _wnli),
    "imdb": Glue("text label", _imdb, test_header="index text"),
}


def write(task: str, folder: Path, sizes: tuple[int, int, int] = (48, 24, 12)) -> None:
    """Write the tables of a task: so many rows of train, of each dev table and of each test table."""
    glue = TASKS[task]
    folder.mkdir(parents=True, exist_ok=True)
    begin = 0
    for name in ("train", *glue.dev, *glue.test):
        size = sizes[(name in glue.dev) + 2 * (name in glue.test)]
        rows = [glue.row(place) for place in range(begin, begin + size)]
        header = _split(glue.test_header if name in glue.test else glue.header)
        if name in glue.test:
            rows = [_unlabelled(glue, header, number, row) for number, row in enumerate(rows)]
        lines = [header, *rows] if header else rows
        (folder / f"{name}.tsv").write_text("".join("\t".join(line) + "\n" for line in lines), "utf-8")
        begin += size


def _unlabelled(glue: Glue, header: list[str], number: int, row: list[str]) -> list[str]:
    """Return a row of a test table: numbered, in the columns of its header."""
    columns = _split(glue.header) or ["source", "label", "mark", "sentence"]
    values = dict(zip(columns, row, strict=True)) | {"index": str(number), "id": str(number)}
    return [values[name] for name in header]


def _split(header: str) -> list[str]:
    return header.split("," if "," in header else " ") if header else []
