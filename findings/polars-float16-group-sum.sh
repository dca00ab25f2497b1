#!/usr/bin/env bash
# Polars 2.1.0: the sum of a Float16 column within a group, and of the values of an Array or List of Float16, is added up
# in float16, one value after another: beyond 2,048 an added 1 is lost. 3,000 ones have the sum 3000 as a column and 2048
# as a group; the mean is right in both. Sums of small integers are widened (Int8 to Int64), these are not. Who keeps
# embeddings or logits in half precision and divides a group's sum by its size gets another centroid than by mean().
# What to do: cast to Float32 before the sum, or take mean() times the count.
# Seen: column 3000, group 2048, array 2048, list 2048, cast 3000, mean 1. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check polars==2.1.0
"$folder/venv/bin/python" - <<'PY'
import polars as pl

COUNT = 3000
ones = [1.0] * COUNT
frame = pl.DataFrame({"label": [0] * COUNT, "value": pl.Series(ones, dtype=pl.Float16)})
value = pl.col("value")
grouped = frame.group_by("label").agg(total=value.sum(), mean=value.mean(), cast=value.cast(pl.Float32).sum())
found = {
    "column": frame["value"].sum(),
    "group": grouped["total"][0],
    "array": pl.Series([ones], dtype=pl.Array(pl.Float16, COUNT)).arr.sum()[0],
    "list": pl.Series([ones], dtype=pl.List(pl.Float16)).list.sum()[0],
    "cast": grouped["cast"][0],
    "mean": grouped["mean"][0],
}
print(", ".join(f"{name} {value:g}" for name, value in found.items()))
wanted = {"column": 3000, "group": 2048, "array": 2048, "list": 2048, "cast": 3000, "mean": 1}
assert found == wanted, "it is added up in another way now"
PY
echo "as described"
