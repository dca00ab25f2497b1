#!/usr/bin/env bash
# torchmetrics 1.9.0: a MetricCollection compares the counts of its metrics after the first batch, and keeps one set of
# counts from then on for those that are equal. F1 at the threshold 0.5 and F1 at 0.9 count the same in a batch of which
# the model is sure; accuracy with and without the rows of one class does in a batch that has none of them. From the
# second batch on they are one metric, the one whose name comes first, and nothing is said. The same batches in another
# order give other values. Who compares thresholds, or evaluates a good model or a sorted table, sees no difference.
# What to do: MetricCollection(..., compute_groups=False).
# Seen: F1 of 0.8 and 0.8 where 0.8 and 1 are right, accuracy of 0.5 and 0.5 where 0.5 and 1 are right; with the batches
# turned round, or with compute_groups=False, all are right. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 torchmetrics==1.9.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
from torch import tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryF1Score, MulticlassAccuracy


def values(metrics, batches, **options):
    """Return the value of each metric after the batches."""
    together = MetricCollection({name: metric.clone() for name, metric in metrics.items()}, **options)
    for predicted, labels in batches:
        together.update(predicted, labels)
    return {name: round(float(value), 4) for name, value in together.compute().items()}


thresholds = {f"F1 from {part}": BinaryF1Score(threshold=part / 100) for part in (50, 90)}
sure = tensor([0.99, 0.01]), tensor([1, 0])
unsure = tensor([0.60, 0.20, 0.95, 0.10]), tensor([0, 0, 1, 0])
rows = {
    "all rows": MulticlassAccuracy(3, average="micro"),
    "without class 0": MulticlassAccuracy(3, average="micro", ignore_index=0),
}
without, with_it = (tensor([1, 2]), tensor([1, 2])), (tensor([1, 2]), tensor([0, 0]))
for metrics, batches, wanted in (
    (thresholds, (sure, unsure), {"F1 from 50": 0.8, "F1 from 90": 1.0}),
    (rows, (without, with_it), {"all rows": 0.5, "without class 0": 1.0}),
):
    found = values(metrics, batches)
    apart = values(metrics, batches, compute_groups=False)
    turned = values(metrics, batches[::-1])
    print(f"together {found}, each for itself {apart}, the batches turned round {turned}")
    assert apart == wanted and turned == wanted
    assert set(found.values()) == {wanted[min(wanted)]}, "they are counted each for itself now"
PY
echo "as described"
