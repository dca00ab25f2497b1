"""The checks of a tagger: everything that ``kd transfer lite`` relies on."""

from collections.abc import Sequence
from typing import Any

from kdcli.testing import tiny_corpus
from kdcli.testing.checks import Checks, Subject, cheap_import, expect, loads

TEXTS: list[list[str]] = [
    *(text.split() for text in tiny_corpus().train),
    [],  # a text of white space alone has no words
    ["[MASK]"],
    ["it", "'s", "n't", "``", "...", "--", "3.14", "1,000"],
    ["na\u00efve", "\u96fb\u5f71", "\U0001f642", "e\u0301"],
    ["x" * 1000],
    ["<br", "/>", "http://a.b/c?d=e", "a_b", "\\"],
]


def one_tag_a_word(subject: Subject) -> str:
    """Tag texts, also none and empty ones, and count."""
    found: Any = subject.plugin.tag(TEXTS)
    expect(isinstance(found, list), "a list of lists of tags", type(found).__name__)
    expect(len(found) == len(TEXTS), f"tags of {len(TEXTS)} texts", f"those of {len(found)}")
    for words, tags in zip(TEXTS, found, strict=True):
        shown = f"{[word[:20] for word in words]}"
        right = isinstance(tags, list) and all(isinstance(tag, str) and tag for tag in tags)
        expect(right, f"a list of the tags of {shown}, which are texts", tags)
        expect(len(tags) == len(words), f"{len(words)} tags of {shown}", f"{len(tags)}: {tags}")
    none = subject.plugin.tag([])
    expect(list(none) == [], "no tags for no texts", f"{none!r}")
    return f"{sum(map(len, TEXTS))} words, {len({tag for tags in found for tag in tags})} different tags"


def independent_of_neighbours(subject: Subject) -> str:
    """Tag texts together, once more in another order, and each alone."""
    together = subject.plugin.tag(TEXTS)
    expected = "the same tags for the same text, whatever the other texts"
    _expect_same(together, subject.plugin.tag(TEXTS[::-1])[::-1], expected)
    _expect_same(together, [subject.plugin.tag([text])[0] for text in TEXTS], expected)
    return f"{len(TEXTS)} texts alone and together"


def same_in_another_process(subject: Subject) -> str:
    """Tag in another process, where sets have another order."""
    other = subject.elsewhere(tags_of_texts)
    _expect_same(subject.plugin.tag(TEXTS), other, "the same tags in every process: no order of a set, no hash()")
    return "the same"


def tags_of_texts(plugin: Any) -> Any:
    """Return the tags of all texts."""
    return plugin.tag(TEXTS)


CHECKS = Checks(Subject, (loads, one_tag_a_word), (independent_of_neighbours, same_in_another_process, cheap_import))


def _expect_same(first: Sequence[Any], again: Sequence[Any], expected: str) -> None:
    for words, one, other in zip(TEXTS, first, again, strict=True):
        expect(list(one) == list(other), expected, f"{list(one)} and then {list(other)} of {words}")
