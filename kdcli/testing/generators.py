"""The checks of a generator: everything that ``kd transfer heavy`` relies on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import filterfalse
from pathlib import Path
from typing import Any

import numpy as np

from kdcli.api import DataError, Part, QuietReporter, Samples
from kdcli.errors import shown
from kdcli.testing import checks
from kdcli.testing.checks import Check, Doubt, Failure, Skip, expect, expect_error
from kdcli.testing.processes import SEED, Kind, run_elsewhere, tiny_corpus, tiny_settings, tiny_task
from kdcli.transfer.sampling import fault_of

DRAWS = 48
"""Draws of a part."""
FEW, MANY = 0.1, 0.5
"""Shares of texts that ``kd`` has to clean or reject. A language model writes nonsense now and then: up to the first
share is fine, above the second is a failure."""
_FIRST = Part(0, DRAWS, SEED)


@dataclass
class GeneratorSubject(checks.Subject):
    """A generator under check: for each kind of task its sampler, prefixes and first part."""

    samplers: dict[str, Any] = field(default_factory=dict)
    prefixes: dict[str, Any] = field(default_factory=dict)
    first: dict[str, Samples] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        """The folder of the fine-tuned model: first one for sentences, then in its place one for pairs."""
        return self.folder / "model"

    def load(self, kind: Kind = "single") -> Any:
        """Load the fine-tuned model once more."""
        return self.plugin.load(self.checkpoint, tiny_settings(self.options, kind), QuietReporter())

    def draw(self, part: Part = _FIRST, sampler: Any = None, kind: Kind = "single") -> Samples:
        """Draw a part, by default with the sampler that all checks share."""
        samples: Samples = (sampler or self.samplers[kind]).sample(self.prefixes[kind], part)
        return samples


def fine_tune(subject: GeneratorSubject, kind: Kind = "single") -> str:
    """Fine-tune on 40 texts."""
    folder, corpus = subject.checkpoint, tiny_corpus(kind)
    metrics = subject.plugin.fine_tune(corpus, folder, tiny_settings(subject.options, kind), QuietReporter())
    expect(folder.exists(), f"fine_tune to keep a model in the folder it is given ({kind})", "nothing there")
    text = _json(lambda: dict(metrics), "fine_tune to return a mapping of JSON values", f"{metrics!r}: ")
    return f"{len(corpus.train)} texts: {text if len(text) < 120 else f'{text[:120]}...'}"


def load(subject: GeneratorSubject, kind: Kind = "single") -> str:
    """Load the fine-tuned model, and count what samples begin with."""
    sampler = subject.load(kind)
    missing = [name for name in ("prefixes", "sample") if not callable(getattr(sampler, name, None))]
    lacking = f"{sampler!r} without {', '.join(missing)}"
    expect(not missing, "load to return a sampler with prefixes and sample", lacking)
    prefixes = sampler.prefixes(tiny_corpus(kind))
    expect(isinstance(prefixes, dict), "prefixes to return a dict", f"{type(prefixes).__name__}")
    subject.prefixes[kind] = json.loads(_json(lambda: prefixes, "prefixes to return JSON values"))
    subject.samplers[kind] = sampler
    return f"samples begin with {', '.join(prefixes) or 'nothing'}"


def load_of_another_folder(subject: GeneratorSubject) -> str:
    """Load an empty folder."""
    empty = subject.folder / "empty"
    empty.mkdir()
    expected = "a DataError for a folder that holds no such generator"
    settings = tiny_settings(subject.options, "single")
    error = expect_error(lambda: subject.plugin.load(empty, settings, QuietReporter()), (DataError,), expected)
    return str(error).replace(str(empty), "...")


def sample(subject: GeneratorSubject, kind: Kind = "single") -> str:
    """Draw a part, and count."""
    drawn = subject.first[kind] = subject.draw(kind=kind)
    _expect_samples(drawn, DRAWS, kind)
    lost = f"all {DRAWS} rejected: {dict(drawn.rejected)}; give it options with which it learns more: epochs, lr"
    expect(bool(drawn.texts), "some text", lost)
    return f"{len(drawn.texts)} texts, for example {drawn.texts[0][:60]!r}"


def small_part(subject: GeneratorSubject) -> str:
    """Draw parts of one draw and of five."""
    for count in (1, 5):
        _expect_samples(subject.draw(Part(3, count, SEED)), count)
    return "1 and 5 draws"


def deterministic(subject: GeneratorSubject) -> str:
    """Draw a part twice, with another one between."""
    subject.draw(Part(DRAWS, 9, SEED))
    expected = "the same texts for the same part, whatever was drawn before (draw i depends on the seed and i alone)"
    return _expect_same(subject, subject.draw().texts, expected)


def save_and_load(subject: GeneratorSubject) -> str:
    """Load the checkpoint once more, and draw another part first."""
    again = subject.load()
    subject.draw(Part(DRAWS, 9, SEED), again)
    return _expect_same(subject, subject.draw(sampler=again).texts, "the same texts when it is loaded again")


def same_in_another_process(subject: GeneratorSubject) -> str:
    """Draw a part in another process, where sets have another order, as a resumed run does."""
    arguments = map(json.dumps, (dict(subject.table), subject.prefixes["single"], [0, DRAWS, SEED]))
    other = run_elsewhere("samples", *subject.address, str(subject.checkpoint), *arguments)
    return _expect_same(subject, other, "the same texts in every process: no order of a set, no hash(), no clock")


def other_parts(subject: GeneratorSubject) -> str:
    """Draw the next part, and the same with another seed."""
    first = subject.draw().texts
    for what, part in (("the next part", Part(DRAWS, DRAWS, SEED)), ("another seed", Part(0, DRAWS, SEED + 1))):
        texts = subject.draw(part).texts
        expect(texts != first, f"other texts of {what}", f"the same {len(first)}: {first[:2]}")
    return f"{len(set(first))} different of {len(first)} texts"


def divided_part(subject: GeneratorSubject) -> str:
    """Draw a part as two."""
    half = DRAWS // 2
    two = [text for first in (0, half) for text in subject.draw(Part(first, half, SEED)).texts]
    whole = subject.draw().texts
    if two != whole:
        same = sum(one == other for one, other in zip(two, whole, strict=False))
        raise Doubt("draw i to depend on the seed and i alone", f"{same} of {len(whole)} texts the same in two parts")
    return f"{DRAWS} draws are {half} and {half}"


def sound_texts(subject: GeneratorSubject) -> str:
    """Look for blank texts, tabs in single sentences, and line ends: any that ``str.splitlines`` knows."""
    expected = "texts that are not blank, without tabs and line ends"
    return _mostly(subject, lambda text: bool(text.strip()) and "\t" not in text and _is_line(text), expected)


def fine_tune_again(subject: GeneratorSubject) -> str:
    """Fine-tune on pairs in the same folder, as when settings have changed or ``--force`` is given."""
    try:
        return fine_tune(subject, "pair")
    except OSError as error:
        expected = "fine_tune to replace what an earlier one has left in its folder"
        raise Failure(expected, shown(error)) from None


def pairs(subject: GeneratorSubject) -> str:
    """Draw from the model of pairs, and look for the one tab of each."""
    load(subject, "pair")
    drawn = sample(subject, "pair")
    _expect_same(subject, subject.draw(kind="pair").texts, "the same pairs for the same part", "pair")
    expected = "exactly one tab in a pair, a text on each side of it, and no line end"
    return f"{drawn}; {_mostly(subject, _is_pair, expected, 'pair')}"


def bits(subject: GeneratorSubject) -> str:
    """Measure texts, if the sampler can."""
    sampler = subject.samplers["single"]
    if not hasattr(sampler, "bits"):
        raise Skip("the sampler has no bits")
    texts = list(tiny_corpus().dev)
    found = sampler.bits(texts)
    shape = getattr(found, "shape", None)
    expect(shape == (len(texts),), f"an array of {len(texts)} numbers", f"{type(found).__name__} of shape {shape}")
    expect(bool(np.isfinite(found).all() and (found >= 0).all()), "bits that are finite, and none below 0", f"{found}")
    again = np.array([sampler.bits([text])[0] for text in texts])
    same = bool(np.allclose(found, again, rtol=1e-3, atol=1e-3))
    expect(same, "the bits of a text not to depend on the other texts", f"{found[:3]}, and alone {again[:3]}")
    return f"{found.sum() / sum(map(len, texts)):.2f} a character on dev"


_SEE = "docs/plugins.md, Generators, and kdcli.api."
CHECKS = (
    *checks.MODULE_CHECKS,
    *checks.OPTIONS_CHECKS,
    Check(fine_tune, f"{_SEE}GeneratorPlugin.fine_tune", (checks.options_given,)),
    Check(load, f"{_SEE}GeneratorPlugin.load", (fine_tune,)),
    Check(load_of_another_folder, f"{_SEE}GeneratorPlugin.load", (fine_tune,)),
    Check(sample, f"{_SEE}Sampler.sample", (load,)),
    Check(small_part, f"{_SEE}Sampler.sample", (sample,)),
    Check(deterministic, f"{_SEE}Sampler.sample", (sample,)),
    Check(save_and_load, f"{_SEE}GeneratorPlugin.load", (deterministic,)),
    Check(same_in_another_process, f"{_SEE}Sampler.sample", (deterministic,)),
    Check(other_parts, f"{_SEE}Sampler.sample", (sample,)),
    Check(divided_part, f"{_SEE}Part", (deterministic,)),
    Check(sound_texts, f"{_SEE}Samples", (sample,)),
    Check(bits, f"{_SEE}Sampler", (load,)),
    Check(fine_tune_again, f"{_SEE}GeneratorPlugin.fine_tune", (sample,)),
    Check(pairs, f"{_SEE}Samples", (fine_tune_again,)),
    checks.PRINTS_NOTHING,
)


def _json(values: Callable[[], Any], expected: str, before: str = "") -> str:
    try:
        return json.dumps(values())
    except (TypeError, ValueError) as error:
        raise Failure(expected, f"{before}{error}") from None


def _expect_samples(drawn: Any, count: int, kind: Kind = "single") -> None:
    fault = fault_of(drawn, count, tiny_task(kind))
    expect(not fault, f"kdcli.api.Samples that account for {count} draw{'s' * (count > 1)}", f"a sampler that {fault}")
    odd = [reason for reason in drawn.rejected if not isinstance(reason, str)]
    expect(not odd, "rejected draws by reason, each a str", f"the reasons {odd}")


def _expect_same(subject: GeneratorSubject, again: Sequence[str], expected: str, kind: Kind = "single") -> str:
    """Compare texts with those that were drawn first."""
    first = subject.first[kind].texts
    expect(len(first) == len(again), expected, f"{len(first)} texts and then {len(again)}")
    for place, (one, other) in enumerate(zip(first, again, strict=True)):
        expect(one == other, expected, f"{one!r} and then {other!r}, text {place} of {len(first)}")
    return f"the same {len(first)} texts"


def _is_line(text: str) -> bool:
    return "".join(text.splitlines()) == text


def _is_pair(text: str) -> bool:
    return _is_line(text) and [bool(side.strip()) for side in text.split("\t")] == [True, True]


def _mostly(subject: GeneratorSubject, sound: Callable[[str], bool], expected: str, kind: Kind = "single") -> str:
    """Fail if most texts are unsound, and warn if some are."""
    texts = subject.first[kind].texts
    unsound = list(filterfalse(sound, texts))
    if not unsound:
        return f"{len(texts)} texts"
    actual = f"{len(unsound)} of {len(texts)} otherwise, {unsound[0][:80]!r} for one (kd rejects or cleans them)"
    learned = "; if it has not learned enough, give it options with which it does"
    expect(len(unsound) <= MANY * len(texts), expected, actual + learned)
    if len(unsound) > FEW * len(texts):
        raise Doubt(expected, actual)
    return f"{len(texts)} texts, but for {len(unsound)}"


SUBJECT = GeneratorSubject
