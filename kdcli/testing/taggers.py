"""The checks of a tagger: everything that ``kd transfer lite`` relies on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kdcli.testing.checks import MODULE_CHECKS, PRINTS_NOTHING, Check, Subject, expect, members
from kdcli.testing.processes import run_elsewhere, tiny_corpus

ODD_TEXTS: tuple[list[str], ...] = (
    [],
    ["[MASK]"],
    ["it", "'s", "n't", "``", "...", "--", "3.14", "1,000"],
    ["na\u00efve", "\u96fb\u5f71", "\U0001f642", "e\u0301"],
    ["x" * 1000],
    ["<br", "/>", "http://a.b/c?d=e", "a_b", "\\"],
)
"""Words as tables have them; a text of white space alone has none."""
TEXTS = [*(text.split() for text in tiny_corpus().train), *ODD_TEXTS]
_SEE = "docs/plugins.md, Taggers, and kdcli.api.TaggerPlugin"


def one_tag_a_word(subject: Subject) -> str:
    """Tag texts, also none and empty ones, and count."""
    found: Any = subject.plugin.tag(TEXTS)
    expect(isinstance(found, list), "a list of lists of tags", type(found).__name__)
    expect(len(found) == len(TEXTS), f"tags of {len(TEXTS)} texts", f"those of {len(found)}")
    for words, tags in zip(TEXTS, found, strict=True):
        shown = f"{[word[:20] for word in words]}"
        expect(isinstance(tags, list), f"a list of the tags of {shown}", f"{type(tags).__name__}")
        expect(len(tags) == len(words), f"{len(words)} tags of {shown}", f"{len(tags)}: {tags}")
        expect(all(isinstance(tag, str) and tag for tag in tags), f"tags of {shown} that are texts", f"{tags}")
    none = subject.plugin.tag([])
    expect(list(none) == [], "no tags for no texts", f"{none!r}")
    return f"{sum(map(len, TEXTS))} words, {len({tag for tags in found for tag in tags})} different tags"


def deterministic(subject: Subject) -> str:
    """Tag the same texts twice."""
    _expect_same(subject.plugin.tag(TEXTS), subject.plugin.tag(TEXTS), "the same tags for the same texts")
    return "twice the same"


def independent_of_neighbours(subject: Subject) -> str:
    """Tag texts together, in another order, and each alone."""
    together = subject.plugin.tag(TEXTS)
    expected = "the tags of a text not to depend on the other texts"
    _expect_same(together, list(reversed(subject.plugin.tag(TEXTS[::-1]))), expected)
    _expect_same(together, [subject.plugin.tag([text])[0] for text in TEXTS], expected)
    return f"{len(TEXTS)} texts alone and together"


def same_in_another_process(subject: Subject) -> str:
    """Tag in another process, where sets have another order."""
    other = run_elsewhere("tags", *subject.address, json.dumps(TEXTS))
    _expect_same(subject.plugin.tag(TEXTS), other, "the same tags in every process: no order of a set, no hash()")
    return "the same"


CHECKS = (
    *MODULE_CHECKS,
    Check(one_tag_a_word, _SEE, (members,)),
    Check(deterministic, _SEE, (one_tag_a_word,)),
    Check(independent_of_neighbours, _SEE, (one_tag_a_word,)),
    Check(same_in_another_process, _SEE, (one_tag_a_word,)),
    PRINTS_NOTHING,
)


def _expect_same(first: Sequence[Any], again: Sequence[Any], expected: str) -> None:
    for words, one, other in zip(TEXTS, first, again, strict=True):
        expect(list(one) == list(other), expected, f"{list(one)} and then {list(other)} of {words}")


SUBJECT = Subject
