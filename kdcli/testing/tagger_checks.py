"""What is checked of a tagger: what ``kd transfer lite`` relies on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kdcli.testing.elsewhere import elsewhere
from kdcli.testing.module_checks import MODULE_CHECKS, PRINTS_NOTHING, Subject, members
from kdcli.testing.outcomes import Check, expect
from kdcli.testing.tiny import tiny_corpus

ODD_TEXTS: tuple[list[str], ...] = (
    [],
    ["[MASK]"],
    ["it", "'s", "n't", "``", "...", "--", "3.14", "1,000"],
    ["na\u00efve", "\u96fb\u5f71", "\U0001f642", "e\u0301"],
    ["x" * 1000],
    ["<br", "/>", "http://a.b/c?d=e", "a_b", "\\"],
)
"""Words as tables have them; a text that is all white space has none."""
_SEE = "docs/plugins.md, Taggers, and kdcli.api.Tagger"


def texts() -> list[list[str]]:
    """Return texts as words, plain ones and odd ones."""
    return [*(text.split() for text in tiny_corpus().train), *map(list, ODD_TEXTS)]


def one_tag_a_word(subject: Subject) -> str:
    """Tag texts, also none and empty ones, and count."""
    tag = subject.plugin.tag
    given = texts()
    found = tag(given)
    _expect_tags(given, found)
    none = tag([])
    expect(list(none) == [], "no tags for no texts", f"{none!r}")
    different = {tag for tags in found for tag in tags}
    return f"{sum(map(len, given))} words, {len(different)} different tags"


def deterministic(subject: Subject) -> str:
    """Tag the same texts twice."""
    first, again = subject.plugin.tag(texts()), subject.plugin.tag(texts())
    _expect_same(first, again, "the same tags for the same texts")
    return "twice the same"


def independent_of_neighbours(subject: Subject) -> str:
    """Tag texts together, in another order, and each alone."""
    given = texts()
    together = subject.plugin.tag(given)
    expected = "the tags of a text not to depend on the other texts"
    _expect_same(together, list(reversed(subject.plugin.tag(given[::-1]))), expected)
    _expect_same(together, [subject.plugin.tag([text])[0] for text in given], expected)
    return f"{len(given)} texts alone and together"


def same_in_another_process(subject: Subject) -> str:
    """Tag in another process, where sets have another order."""
    given = texts()
    there = elsewhere("tags", *subject.address, json.dumps(given))
    _expect_same(subject.plugin.tag(given), there, "the same tags in every process: no order of a set, no hash()")
    return "the same"


CHECKS: tuple[Check[Any], ...] = (
    *MODULE_CHECKS,
    Check(one_tag_a_word, _SEE, (members,)),
    Check(deterministic, _SEE, (one_tag_a_word,)),
    Check(independent_of_neighbours, _SEE, (one_tag_a_word,)),
    Check(same_in_another_process, _SEE, (one_tag_a_word,)),
    PRINTS_NOTHING,
)


def _expect_tags(given: Sequence[Sequence[str]], found: Any) -> None:
    expect(isinstance(found, list), "a list of lists of tags", type(found).__name__)
    expect(len(found) == len(given), f"tags of {len(given)} texts", f"those of {len(found)}")
    for words, tags in zip(given, found, strict=True):
        shown = f"{[word[:20] for word in words]}"
        expect(isinstance(tags, list), f"a list of the tags of {shown}", f"{type(tags).__name__}")
        expect(len(tags) == len(words), f"{len(words)} tags of {shown}", f"{len(tags)}: {tags}")
        expect(all(isinstance(tag, str) and tag for tag in tags), f"tags of {shown} that are texts", f"{tags}")


def _expect_same(first: Sequence[Any], again: Sequence[Any], expected: str) -> None:
    for words, one, other in zip(texts(), first, again, strict=True):
        expect(list(one) == list(other), expected, f"{list(one)} and then {list(other)} of {words}")
