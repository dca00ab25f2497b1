"""The last step of ``kd transfer heavy``: draw samples until there are as many new texts as were asked for.

Draws are made in resumable parts. The number of parts is not known beforehand, since draws are rejected and repeat
known texts. The set is the first new texts in the order of the draws, whatever parts were made beyond, and by whom.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from kdcli import registry
from kdcli.api import Part, QuietReporter, Reporter, Sampler, Samples, Task
from kdcli.config.transfer import HeavySettings
from kdcli.errors import KdError
from kdcli.files import sha256
from kdcli.parts import Engine, Loaded, LocalEngine, Parts
from kdcli.transfer.cleaning import Hashes, clean, hashes, keys, new_texts, plain, select, split_pairs, write_set
from kdcli.transfer.heavy import GeneratorRun, read_prefixes
from kdcli.transfer.novelty import Novelty, novelty

DRAWS = {"cpu": 8_192}  # draws of a part: little is lost when a run is killed
DRAWS_ELSEWHERE = 65_536  # those of a part on a GPU, where they take as little time, and thousands run at once
HALVINGS = 3
"""The first part has an eighth of the draws, the next a quarter, ...: a generator that is no good is found out soon."""
LEAST_NEW = 0.01  # the share of a part's draws that must be new texts, or else the sampling would go on and on


@dataclass(frozen=True)
class SampleResult:
    """What was sampled."""

    rows: int
    originals: int  # training texts, which come first and are all kept
    samples: int  # the new texts
    draws: int
    acceptance: float  # share of the draws that gave a new text; those in excess count too
    rejected: dict[str, int]  # draws that gave no text, by reason
    duplicates: int  # dropped samples; the next two as well
    train_copies: int
    held_out_copies: int
    excess: int  # new texts beyond the number asked for
    novelty: Novelty


def draw_samples(
    *,
    generator: GeneratorRun,
    checkpoint: Path,
    prefixes: Path,
    settings: HeavySettings,
    train: pl.DataFrame,
    held_out: Sequence[pl.DataFrame],
    task: Task,
    output: Path,
    engine: "Engine | None" = None,
    reporter: Reporter = QuietReporter(),
) -> SampleResult:
    """Make a transfer set: the originals, then new texts sampled from a fine-tuned generator.

    None of the held-out texts is kept. A run that was stopped goes on where it was. ``checkpoint`` and ``prefixes`` are
    those that the generator's ``fine_tune`` and ``prefixes`` wrote.

    Raises:
        DataError: The checkpoint or the prefixes cannot be read; a text does not fit into a table of this form.
        KdError: The generator has next to nothing new to say; memory or disk space ran out.
        PluginError: The generator breaks its contract.
    """
    engine = engine or LocalEngine()
    train, held_out = plain(train, task), [plain(table, task) for table in held_out]
    known, held = hashes([train], task), hashes(held_out, task)
    device, starts, sampler = generator.settings.device, read_prefixes(prefixes), generator.load(checkpoint, reporter)
    most = DRAWS.get(device.partition(":")[0], DRAWS_ELSEWHERE)
    old = known[:0] if settings.keep_copies else known
    tally = Tally(settings.num_samples, most, np.concatenate([old, held]))
    fingerprint = {
        "form": "kd.samples/2",
        "checkpoint": sha256(checkpoint)[:16],
        "prefixes": sha256(prefixes)[:16],
        **generator.fingerprint(),
        "draws of a part": most,
        "keep_copies": settings.keep_copies,
        "training and held-out texts": hashlib.sha256(known.tobytes() + b"|" + held.tobytes()).hexdigest()[:16],
    }

    loaded = Loaded(sampler, GeneratorRun.load, (generator, checkpoint), (checkpoint,))
    make_part = SamplePart(generator, loaded, starts, task, most)

    def assemble(paths: list[Path]) -> SampleResult:
        parts = pl.scan_parquet(paths)
        made = parts.select("key").collect()["key"].to_numpy()
        new = new_texts(made, old, held)
        excess = np.flatnonzero(new.keep)[tally.asked :]
        new.keep[excess] = False
        draws, rows = tally.draws, len(train) + tally.asked
        result = SampleResult(
            rows=rows,
            originals=len(train),
            samples=tally.asked,
            draws=draws,
            acceptance=(tally.asked + len(excess)) / draws,
            rejected=dict(tally.rejected),
            duplicates=new.duplicates,
            train_copies=new.train_copies,
            held_out_copies=new.held_out_copies,
            excess=len(excess),
            novelty=novelty(
                samples=select(parts, new.keep),
                train=train,
                task=task,
                seed=generator.settings.seed,
                raw=len(made),
                raw_in_train=int(np.isin(made, known).sum()),
                bits=generator.bits(sampler),
                reporter=reporter,
            ),
        )
        with reporter.progress("assemble", rows) as progress:
            write_set(output, train, task, "heavy", select(parts, new.keep))
            progress.advance(rows)
        return result

    folder, resume = output.with_name(f".{output.name}.samples"), generator.settings.resume
    how: dict[str, Any] = {"more": ["originals-*"], "resume": resume, "engine": engine, "reporter": reporter}
    with engine, Parts(folder, fingerprint, **how) as parts:
        if not parts.finished():
            write_set(folder / f"originals-{output.name}", train, task)  # can a table of this form hold them?
        with reporter.progress("sample", settings.num_samples, "new texts") as progress:
            while not tally.complete:
                todo, size = tally.next_parts(engine.width), partial(size_of, most=most)
                for _ in parts.made(todo, size, make_part, "draws", device=device, files=[checkpoint]):
                    progress.advance(0, **engine.shown)
                new = sum(tally.add(parts.path(part)) for part in todo)
                progress.advance(new, accepted=f"{sum(tally.news) / tally.draws:.1%}")
        return parts.assemble(len(tally.news), assemble)


def size_of(part: int, most: int) -> int:
    """Return the number of draws of a part, where the largest have ``most``."""
    return most >> max(HALVINGS - part, 0)


def first_of(part: int, most: int) -> int:
    """Return the number of a part's first draw."""
    return sum(size_of(earlier, most) for earlier in range(part))


@dataclass(frozen=True)
class SamplePart:
    """Makes a part: clean texts with their hashes (``key``); the file's metadata counts the rejected draws."""

    generator: GeneratorRun
    sampler: Loaded[Sampler]
    prefixes: Mapping[str, Any]
    task: Task
    most: int  # draws of the largest parts

    def __call__(self, number: int, path: Path) -> None:
        """Write part ``number`` to ``path``."""
        part = Part(first_of(number, self.most), size_of(number, self.most), self.generator.settings.seed)
        with registry.blaming("generators", self.generator.generator, "sample"):
            drawn = self.sampler.value.sample(self.prefixes, part)
        if fault := fault_of(drawn, part.count, self.task):
            raise registry.breach("generators", self.generator.generator, fault)
        texts, rejected = cleaned(drawn, self.task)
        texts.with_columns(key=keys(texts)).write_parquet(path, metadata={"rejected": json.dumps(rejected)})


def cleaned(drawn: Samples, task: Task) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the clean texts of a part, and how many draws gave none, by reason ("Cleaning")."""
    texts = pl.Series(list(drawn.texts), dtype=pl.String)
    if task.kind == "pair":
        frame = split_pairs(texts, task.columns)
        lost = {"not two texts with one tab": len(texts) - len(frame)}
    else:
        tab = pl.col("drawn").str.contains("\t", literal=True)
        full = pl.DataFrame({"drawn": texts}).with_columns(clean(pl.col("drawn")).alias(task.columns[0]))
        full = full.filter(pl.col(task.columns[0]) != "")
        frame = full.filter(~tab).select(task.columns)
        lost = {"blank": len(texts) - len(full), "a tab in a single text": len(full) - len(frame)}
    return frame, dict(Counter(drawn.rejected) + Counter(lost))


@dataclass
class Tally:
    """Counts over the parts, from the first on."""

    asked: int  # how many new texts are asked for
    most: int  # draws of the largest parts
    old: Hashes  # hashes of the texts that are not new
    news: list[int] = field(default_factory=list)  # new texts of each part
    rejected: Counter[str] = field(default_factory=Counter)  # draws that gave no text, by reason

    @property
    def draws(self) -> int:
        """The draws of all these parts."""
        return first_of(len(self.news), self.most)

    @property
    def complete(self) -> bool:
        """Whether there are as many new texts as are asked for."""
        return sum(self.news) >= self.asked

    def add(self, path: Path) -> int:
        """Count the next part, unless there are enough, and return how many more of the texts asked for are there."""
        if self.complete:
            return 0
        before = sum(self.news)
        fresh = np.setdiff1d(pl.read_parquet(path, columns=["key"])["key"].to_numpy(), self.old)
        self.old = np.union1d(self.old, fresh)
        self.news.append(len(fresh))
        self.rejected += Counter(json.loads(pl.read_parquet_metadata(path)["rejected"]))
        if not self.complete and len(fresh) < LEAST_NEW * size_of(len(self.news) - 1, self.most):
            raise self._too_few()
        return min(before + len(fresh), self.asked) - before

    def next_parts(self, most: int) -> range:
        """Return the parts to make next, at most so many: as many as it takes if they are like the last one."""
        part, lacking = len(self.news), float(self.asked - sum(self.news))
        rate = self.news[-1] / size_of(part - 1, self.most) if self.news else 1.0
        while lacking > 0 and part - len(self.news) < most:
            lacking -= rate * size_of(part, self.most)
            part += 1
        return range(len(self.news), part)

    def _too_few(self) -> KdError:
        last, found, lost = size_of(len(self.news) - 1, self.most), sum(self.news), self.rejected.total()
        what = f"{found} of {self.draws} draws gave a new text ({found / self.draws:.2%})"
        if last < self.draws:
            what += f", {self.news[-1]} of the last {last}"
        if lost:
            what += f"; rejected: {', '.join(f'{count} {reason}' for reason, count in self.rejected.most_common())}"
        if lost > self.draws / 2:
            hint = "fine-tune the generator for longer, or with a larger max_length, if it is a language model; "
            hint += "else see why it rejects them"
        elif found:
            hint = f"the generator has little more to say: ask for no more, --num-samples {found}"
        else:
            hint = "the generator repeats known texts: fine-tune it for less long, or raise --sample-temperature"
        return KdError(what, key="transfer.heavy.num_samples", hint=hint)


def fault_of(drawn: Any, size: int, task: Task) -> str:
    """Say how the answer of a generator breaks the contract; an empty text where it keeps it."""
    if not isinstance(drawn, Samples):
        return f"returns no Samples, but {type(drawn).__name__}"
    texts, rejected = drawn.texts, drawn.rejected
    if not isinstance(texts, list | tuple):
        return f"returns Samples whose texts are no list, but {type(texts).__name__}"
    if not isinstance(rejected, Mapping) or not all(isinstance(n, int) and n >= 0 for n in rejected.values()):
        return f"returns Samples whose rejected are no counts by reason, but {rejected!r:.80}"
    if len(texts) + sum(rejected.values()) != size:
        return f"was asked for {size} draws, and accounts for {len(texts)} texts and the rejected {dict(rejected)}"
    for text in texts:
        if not isinstance(text, str):
            return f"draws a text that is no string, but {type(text).__name__}: {text!r:.80}"
        if any("\ud800" <= character <= "\udfff" for character in text):
            return f"draws a text with half of a surrogate pair, which is no character: {text!r:.80}"
    if task.kind == "single" and texts and all("\t" in text for text in texts):
        return f"draws single texts with tabs, which stand between the texts of a pair alone: {texts[0]!r:.80}"
    return ""
