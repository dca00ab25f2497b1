"""What is checked of a generator: what ``kd transfer heavy`` relies on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdcli.api import DataError, GeneratorSettings, Part, QuietReporter, Samples
from kdcli.errors import shown
from kdcli.testing.elsewhere import elsewhere
from kdcli.testing.module_checks import MODULE_CHECKS, OPTIONS_CHECKS, PRINTS_NOTHING, Subject, options_given
from kdcli.testing.outcomes import Check, Failure, Skipped, Warned, expect
from kdcli.testing.tiny import Kind, tiny_corpus, tiny_task

DRAWS = 48
"""Draws of a part."""
FEW, MANY = 0.1, 0.5
"""Shares of texts that ``kd`` must mend or reject: up to the first is no matter, since a language model now and then
writes nonsense; above the second is no accident."""
SEED = 7
_SEE = "docs/plugins.md, Generators, and kdcli.api."
_FIRST = Part(0, DRAWS, SEED)


def settings_of(options: Any, kind: Kind) -> GeneratorSettings:
    """Return the settings that plugins are checked with."""
    return GeneratorSettings(options, kind, seed=SEED, device="cpu", precision="fp32")


@dataclass
class GeneratorSubject(Subject):
    """A generator that is checked, and what has been made with it: one fine-tuned model for each kind of task.

    Attributes:
        samplers: Those that were loaded, by kind.
        starts: What their samples begin with, as it comes back from the file that ``kd`` keeps it in.
    """

    samplers: dict[str, Any] = field(default_factory=dict)
    starts: dict[str, Any] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        """The folder of the fine-tuned model: first one for sentences, then in its place one for pairs."""
        return self.folder / "model"

    def load(self, kind: Kind = "single") -> Any:
        """Load the fine-tuned model once more."""
        return self.plugin.load(self.checkpoint, settings_of(self.options, kind), QuietReporter())

    def draw(self, part: Part = _FIRST, sampler: Any = None, kind: Kind = "single") -> Samples:
        """Draw a part, by default with the sampler that all checks share."""
        samples: Samples = (sampler or self.samplers[kind]).sample(self.starts[kind], part)
        return samples


def fine_tune(subject: GeneratorSubject) -> str:
    """Fine-tune on 40 sentences."""
    return _fine_tune(subject, "single")


def load(subject: GeneratorSubject) -> str:
    """Load what was fine-tuned, and count what samples begin with."""
    return _load(subject, "single")


def load_of_another_folder(subject: GeneratorSubject) -> str:
    """Load an empty folder."""
    empty = subject.folder / "empty"
    empty.mkdir()
    expected = "a DataError for a folder that holds no such generator"
    try:
        subject.plugin.load(empty, settings_of(subject.options, "single"), QuietReporter())
    except DataError as error:
        return str(error).replace(str(empty), "...")
    except Exception as error:
        raise Failure(expected, shown(error)) from None
    raise Failure(expected, "none")


def sample(subject: GeneratorSubject) -> str:
    """Draw a part, and count."""
    return _sample(subject, "single")


def small_part(subject: GeneratorSubject) -> str:
    """Draw parts of one draw and of five."""
    for count in (1, 5):
        _expect_samples(subject.draw(Part(3, count, SEED)), count, "single")
    return "1 and 5 draws"


def deterministic(subject: GeneratorSubject) -> str:
    """Draw a part twice, with another one between."""
    first = subject.draw()
    subject.draw(Part(DRAWS, 9, SEED))
    expected = "the same texts for the same part, whatever was drawn before (draw i depends on the seed and i alone)"
    _expect_same(first.texts, subject.draw().texts, expected)
    return "the same texts again"


def save_and_load(subject: GeneratorSubject) -> str:
    """Load the checkpoint once more, and draw another part first."""
    again = subject.load()
    subject.draw(Part(DRAWS, 9, SEED), again)
    _expect_same(subject.draw().texts, subject.draw(sampler=again).texts, "the same texts when it is loaded again")
    return "the same texts"


def same_in_another_process(subject: GeneratorSubject) -> str:
    """Draw a part in another process, where sets have another order, as a run that goes on does."""
    table, starts = json.dumps(dict(subject.table)), json.dumps(subject.starts["single"])
    given = (str(subject.checkpoint), table, starts, json.dumps([0, DRAWS, SEED]))
    there = elsewhere("samples", *subject.address, *given)
    expected = "the same texts in every process: no order of a set, no hash(), no seed of the clock"
    _expect_same(subject.draw().texts, there, expected)
    return "the same texts"


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
        raise Warned("draw i to depend on the seed and i alone", f"{same} of {len(whole)} texts the same in two parts")
    return f"{DRAWS} draws are {half} and {half}"


def no_tabs(subject: GeneratorSubject) -> str:
    """Look for tabs in single sentences."""
    return _mostly(subject.draw().texts, lambda text: "\t" not in text, "no tab in a single sentence")


def no_line_ends(subject: GeneratorSubject) -> str:
    """Look for line ends: any that ``str.splitlines`` knows."""
    return _mostly(subject.draw().texts, _is_line, "no line end in a text")


def not_blank(subject: GeneratorSubject) -> str:
    """Look for blank texts, which are to be counted as rejected."""
    return _mostly(subject.draw().texts, lambda text: bool(text.strip()), "texts that are not blank")


def fine_tune_again(subject: GeneratorSubject) -> str:
    """Fine-tune on pairs in the same folder, as when settings have changed or ``--force`` is given."""
    try:
        return _fine_tune(subject, "pair")
    except OSError as error:
        expected = "fine_tune to replace what an earlier one has left in its folder"
        raise Failure(expected, shown(error)) from None


def pairs(subject: GeneratorSubject) -> str:
    """Draw from what was fine-tuned on pairs, and look for the one tab of each."""
    _load(subject, "pair")
    drawn = _sample(subject, "pair")
    texts = subject.draw(kind="pair").texts
    _expect_same(texts, subject.draw(kind="pair").texts, "the same pairs for the same part")
    both = "exactly one tab in a pair, a text on each side of it, and no line end"
    return f"{drawn}; {_mostly(texts, _is_pair, both)}"


def bits(subject: GeneratorSubject) -> str:
    """Measure texts, if the sampler can."""
    import numpy as np

    sampler = subject.samplers["single"]
    if not hasattr(sampler, "bits"):
        raise Skipped("the sampler has no bits")
    texts = list(tiny_corpus().dev)
    found = sampler.bits(texts)
    shape = getattr(found, "shape", None)
    expect(shape == (len(texts),), f"an array of {len(texts)} numbers", f"{type(found).__name__} of shape {shape}")
    expect(bool(np.isfinite(found).all() and (found >= 0).all()), "bits that are finite, and none below 0", f"{found}")
    again = np.array([sampler.bits([text])[0] for text in texts])
    same = bool(np.allclose(found, again, rtol=1e-3, atol=1e-3))
    expect(same, "the bits of a text not to depend on the other texts", f"{found[:3]}, and alone {again[:3]}")
    return f"{found.sum() / sum(map(len, texts)):.2f} a character on dev"


CHECKS: tuple[Check[Any], ...] = (
    *MODULE_CHECKS,
    *OPTIONS_CHECKS,
    Check(fine_tune, f"{_SEE}Generator.fine_tune", (options_given,)),
    Check(load, f"{_SEE}Generator.load", (fine_tune,)),
    Check(load_of_another_folder, f"{_SEE}Generator.load", (fine_tune,)),
    Check(sample, f"{_SEE}Sampler.sample", (load,)),
    Check(small_part, f"{_SEE}Sampler.sample", (sample,)),
    Check(deterministic, f"{_SEE}Sampler.sample", (sample,)),
    Check(save_and_load, f"{_SEE}Generator.load", (deterministic,)),
    Check(same_in_another_process, f"{_SEE}Sampler.sample", (deterministic,)),
    Check(other_parts, f"{_SEE}Sampler.sample", (sample,)),
    Check(divided_part, f"{_SEE}Part", (deterministic,)),
    Check(no_tabs, f"{_SEE}Samples", (sample,)),
    Check(no_line_ends, f"{_SEE}Samples", (sample,)),
    Check(not_blank, f"{_SEE}Samples", (sample,)),
    Check(bits, f"{_SEE}Sampler", (load,)),
    Check(fine_tune_again, f"{_SEE}Generator.fine_tune", (sample,)),
    Check(pairs, f"{_SEE}Samples", (fine_tune_again,)),
    PRINTS_NOTHING,
)


def _fine_tune(subject: GeneratorSubject, kind: Kind) -> str:
    folder, corpus = subject.checkpoint, tiny_corpus(kind)
    metrics = subject.plugin.fine_tune(corpus, folder, settings_of(subject.options, kind), QuietReporter())
    expect(folder.exists(), f"fine_tune to keep a model in the folder it is given ({kind})", "nothing there")
    try:
        text = json.dumps(dict(metrics))
    except (TypeError, ValueError) as error:
        raise Failure("fine_tune to return a mapping of JSON values", f"{metrics!r}: {error}") from None
    return f"{len(corpus.train)} texts: {text if len(text) < 120 else f'{text[:120]}...'}"


def _load(subject: GeneratorSubject, kind: Kind) -> str:
    sampler = subject.load(kind)
    missing = [name for name in ("starts", "sample") if not callable(getattr(sampler, name, None))]
    expect(not missing, "load to return a sampler with starts and sample", f"{sampler!r} without {', '.join(missing)}")
    starts = sampler.starts(tiny_corpus(kind))
    expect(isinstance(starts, dict), "starts to return a dict", f"{type(starts).__name__}")
    try:
        subject.starts[kind] = json.loads(json.dumps(starts))
    except (TypeError, ValueError) as error:
        raise Failure("starts to return JSON values", f"{error}") from None
    subject.samplers[kind] = sampler
    return f"samples begin with {', '.join(starts) or 'nothing'}"


def _sample(subject: GeneratorSubject, kind: Kind) -> str:
    drawn = subject.draw(kind=kind)
    _expect_samples(drawn, DRAWS, kind)
    lost = f"all {DRAWS} rejected: {dict(drawn.rejected)}; give it options with which it learns more: epochs, lr"
    expect(bool(drawn.texts), "some text", lost)
    return f"{len(drawn.texts)} texts, for example {drawn.texts[0][:60]!r}"


def _expect_samples(drawn: Any, count: int, kind: Kind) -> None:
    # What stops a run has to stop the check, so one function looks for both.
    from kdcli.transfer.draws import fault_of

    fault = fault_of(drawn, count, tiny_task(kind))
    expect(not fault, f"kdcli.api.Samples that account for {count} draw{'s' * (count > 1)}", f"a sampler that {fault}")
    odd = [reason for reason in drawn.rejected if not isinstance(reason, str)]
    expect(not odd, "rejected draws by reason, each a str", f"the reasons {odd}")


def _expect_same(first: Sequence[str], again: Sequence[str], expected: str) -> None:
    if list(first) == list(again):
        return
    if len(first) != len(again):
        raise Failure(expected, f"{len(first)} texts and then {len(again)}")
    place = next(place for place, (one, other) in enumerate(zip(first, again, strict=True)) if one != other)
    raise Failure(expected, f"{first[place]!r} and then {again[place]!r}, text {place} of {len(first)}")


def _is_line(text: str) -> bool:
    return "".join(text.splitlines()) == text


def _is_pair(text: str) -> bool:
    return _is_line(text) and [bool(side.strip()) for side in text.split("\t")] == [True, True]


def _mostly(texts: Sequence[str], sound: Callable[[str], bool], expected: str) -> str:
    """Fail where most texts are unsound, and warn where some are."""
    unsound = [text for text in texts if not sound(text)]
    if not unsound:
        return f"{len(texts)} texts"
    came = f"{len(unsound)} of {len(texts)} otherwise, {unsound[0][:80]!r} for one (kd rejects or mends them)"
    learned = "; if it has not learned enough, give it options with which it does"
    expect(len(unsound) <= MANY * len(texts), expected, came + learned)
    if len(unsound) > FEW * len(texts):
        raise Warned(expected, came)
    return f"{len(texts)} texts, but for {len(unsound)}"
