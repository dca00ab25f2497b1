"""``kd join``: each row of the transfer set with its logits and its label."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.errors import DataError, UsageError
from kdcli.files import sha256
from kdcli.tables.parquet import ROWS, slices, stream
from kdcli.tables.read import ROW_NUMBER, shown
from kdcli.tables.write import write_table
from kdcli.tasks.labels import in_order, label_texts, split_sets
from kdcli.tasks.text_set import STATES, open_texts
from kdcli.teacher.external import Values, read_external
from kdcli.teacher.logits import Logits, labels_of, logit_columns, read_logits, state_column

ORIGINAL = "original"


@dataclass(frozen=True)
class JoinResult:
    """The result of a join."""

    rows: int
    original: int  # rows of the task's own
    labels: dict[str, int] = field(default_factory=dict)  # rows of each label; empty for scores
    agreement: float | None = None  # share of the original rows whose gold label is the teacher's choice
    unanswered: int = 0  # rows that are left out, since the teacher has left their texts without an answer


def join(
    *,
    transfer: Path,
    logits: Path,
    task: Task,
    label: Literal["teacher", "gold"] = "teacher",
    values: Values = "auto",
    rescale: bool = False,
    output: Path,
    reporter: Reporter = QuietReporter(),
) -> JoinResult:
    """Write the transfer set with the columns ``label`` and ``logits_0..``, its rows in their order.

    ``transfer`` is a table, in which no row is original without the column ``source``, or plain lines of texts.
    ``label`` is that of original rows: the teacher's choice, or their own. Other rows get the teacher's choice; for
    scores that is the logit. ``values`` says what logits from elsewhere are. ``rescale`` gives the teacher's scores the
    mean and the spread of the gold ones. Rows that the teacher has left without an answer are left out.
    """
    for path in (transfer, logits):
        if output.exists() and path.exists() and output.samefile(path):
            raise UsageError("the output is one of the inputs", file=output, hint="give it another name")
    texts = open_texts(transfer, task, reporter)
    columns = [name for name in texts.collect_schema().names() if name != ROW_NUMBER]
    has_gold = {"source", "label"} <= set(columns)
    if label == "gold" and not has_gold:
        hint = f"the columns are {', '.join(columns)}"
        raise DataError("gold labels need the columns source and label", file=transfer, hint=hint)
    if "source" not in columns:
        effect = "all its rows count as fabricated, and get the teacher's label"
        reporter.info(f"{transfer.name} has no column source: {effect}")
    if logits.suffix == ".safetensors":
        found = read_logits(logits, task)
        if found.metadata.get("transfer_sha256") != sha256(transfer):
            what = f"{logits.name} was made for another transfer set or another form of it"
            reporter.warn(f"{what}: its texts are looked up")
    else:
        found = read_external(logits, transfer=transfer, task=task, reporter=reporter, values=values)
    if task.is_score and has_gold:
        found = _scaled(found, texts, task, rescale, reporter)
    joining = _Joining(transfer, task, found, gold=label == "gold")
    schema: dict[str, pl.DataType] = {name: pl.String() for name in (*task.columns, "source", "label")}
    schema |= {f"logits_{number}": pl.Float32() for number in range(task.outputs)}
    schema |= {} if found.states is None else {STATES: pl.Array(pl.Float16, found.states.shape[1])}
    wanted = [*task.columns, *(name for name in ("source", "label") if name in columns), ROW_NUMBER]
    with reporter.progress("join") as progress:

        def batches(*_: Any) -> Iterator[pl.DataFrame]:
            for batch in slices(texts.select(wanted), ROWS):
                yield joining.join(batch)
                progress.advance(len(batch))

        write_table(output, stream(batches, schema))
    agreement = None
    if total := joining.gold_labels.total():
        agreement, commonest = joining.agreed / total, max(joining.gold_labels.values()) / total
        if agreement <= commonest:
            reporter.warn(
                f"the teacher's choice is the gold label of {agreement:.1%} of the original rows, and the commonest "
                f"label is that of {commonest:.1%}: are these its logits, the labels in this order?"
            )
    if joining.unanswered:
        reporter.warn(f"{joining.unanswered:,} rows are left out, since the teacher has not answered them")
    labels = {name: joining.labels[name] for name in task.labels}
    return JoinResult(joining.rows, joining.original, labels, agreement, joining.unanswered)


def _scaled(found: Logits, texts: pl.LazyFrame, task: Task, rescale: bool, reporter: Reporter) -> Logits:
    """Compare the teacher's scores of original rows with the gold ones; with ``rescale``, bring them to their scale."""
    numbered = texts.with_row_index("number").filter(pl.col("source").cast(pl.String) == ORIGINAL)
    rows = numbered.select("number", *task.columns, pl.col("label").cast(pl.Float64, strict=False)).drop_nulls()
    table = rows.collect()
    place = found.rows([table[name] for name in task.columns], 0)
    if found.hashes is None:
        place = table["number"].to_numpy().astype(np.int64)
    there = place >= 0
    gold, own = table["label"].to_numpy()[there], found.logits[place[there], 0].astype(np.float64)
    if len(gold) < 2 or not gold.std() or not own.std():
        return found
    scale = gold.std() / own.std()
    if rescale:
        logits = ((found.logits - own.mean()) * scale + gold.mean()).astype(np.float32)
        reporter.info(f"scores rescaled: times {scale:.4g}, then by {gold.mean() - own.mean() * scale:+.4g}")
        return replace(found, logits=logits)
    if not 0.5 < scale < 2 or abs(gold.mean() - own.mean()) > gold.std():
        means = f"mean {own.mean():.3g}, spread {own.std():.3g}, and gold has {gold.mean():.3g} and {gold.std():.3g}"
        reporter.warn(f"the teacher's scores are of another scale: {means}; --rescale (join.rescale) changes that")
    return found


class _Joining:
    """One pass over a transfer set, which counts as it goes."""

    def __init__(self, path: Path, task: Task, logits: Logits, *, gold: bool) -> None:
        self.path, self.task, self.logits, self.gold = path, task, logits, gold
        self.rows = self.original = self.agreed = self.unanswered = 0
        self.labels: Counter[str] = Counter()
        self.gold_labels: Counter[str] = Counter()

    def join(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of a batch with logits, sources and labels, those without an answer left out."""
        place = self._places([batch[name] for name in self.task.columns], batch[ROW_NUMBER])
        if (unanswered := self.logits.unanswered(self.logits.logits[place])).any():
            self.unanswered += int(unanswered.sum())
            batch, place = batch.filter(~unanswered), place[~unanswered]
        values, states = self.logits.logits[place], self.logits.states
        texts, numbers = [batch[name] for name in self.task.columns], batch[ROW_NUMBER]
        nothing = pl.Series([None] * len(batch), dtype=pl.String)
        columns = [*logit_columns(values), *state_column(None if states is None else states[place])]
        source = batch["source"].cast(pl.String) if "source" in batch.columns else nothing.fill_null("corpus")
        original = (source == ORIGINAL).fill_null(False)
        own = label_texts(batch["label"], self.path) if "label" in batch.columns else nothing
        gold = own.set(~original if self.task.multi_label else ~original | (own == ""), None)
        labels = chosen = labels_of(values, self.task)
        if self.gold:
            self._check_gold(gold, original, numbers)
            labels = gold.zip_with(gold.is_not_null(), chosen)
        self.rows += len(batch)
        self.original += int(original.sum())
        if not self.task.is_score:
            each = split_sets(labels).explode().drop_nulls() if self.task.multi_label else labels
            self.labels.update(dict(each.value_counts().iter_rows()))
            gold, chosen = (in_order(one) for one in (gold, chosen)) if self.task.multi_label else (gold, chosen)
            self.gold_labels.update(dict(gold.drop_nulls().value_counts().iter_rows()))
            self.agreed += int((gold == chosen).sum())
        return pl.DataFrame([*texts, source.alias("source"), labels.alias("label"), *columns])

    def _places(self, texts: Sequence[pl.Series], numbers: pl.Series) -> NDArray[np.int64]:
        """Return the row of the logits of each of some texts."""
        place = self.logits.rows(texts, self.rows)
        if len(place) and place.min() < 0:
            row = int(np.argmin(place))
            what = f"this text has no logits: {shown(' | '.join(column[row] for column in texts))}"
            hint = "the logits are those of another transfer set, or texts were changed since: export them again"
            raise DataError(what, file=self.path, row=numbers[row], hint=hint)
        values = self.logits.logits[place]
        finite = np.isfinite(values).all(axis=1) | self.logits.unanswered(values)
        if not finite.all():
            row = int(np.argmin(finite))
            raise DataError("the logits of this text are not finite", file=self.path, row=numbers[row])
        return place

    def _check_gold(self, gold: pl.Series, original: pl.Series, numbers: pl.Series) -> None:
        wrong = original & gold.is_null()
        if self.task.multi_label:
            known = pl.element().is_in(self.task.labels)
            wrong |= ~split_sets(gold).list.eval(known).list.all().fill_null(True)
        elif self.task.labels:
            wrong |= gold.is_not_null() & ~gold.is_in(self.task.labels).fill_null(False)
        if wrong.any():
            row = int(wrong.arg_true()[0])
            what = f"label {gold[row]!r} is not one of the task's"
            what = what if gold[row] else "this original row has no gold label"
            hint = None if self.task.is_score else f"the labels are {', '.join(self.task.labels)}"
            raise DataError(what, file=self.path, row=numbers[row], key="label", hint=hint)
