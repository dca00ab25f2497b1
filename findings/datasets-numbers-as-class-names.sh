#!/usr/bin/env bash
# datasets 5.2.0: with features=Features({"label": ClassLabel(names=["-1", "0", "1"]), ...}) load_dataset takes the
# labels -1, 0, 1 of a CSV for the names of the classes, and those of the same table in JSON or Parquet for their
# numbers: there 0 is the class "-1", 1 is the class "0", and -1 is no label at all. Stars from 1 to 5 are one too high,
# as long as nobody has given a 5. from_dict, from_pandas and cast_column take integers for numbers, too. Nothing is
# raised, since the numbers lie within the range and -1 is allowed as "not known". A model that was trained on one file
# and is tested on the other is right on nothing.
# What to do: read the labels without features, then cast_column("label", Value("string")), and that to ClassLabel.
# Seen: names "-1", "0", "1" of the CSV, None, "-1", "0" of JSON and Parquet; stars 1 to 4 of the CSV are 2 to 5 of
# JSON; by way of a string all are right. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6
HF_HUB_OFFLINE=1 HF_HOME="$folder/hub" venv/bin/python - 2>/dev/null <<'PY'
import pandas as pd
from datasets import ClassLabel, Dataset, Features, Value, load_dataset

WRITE = {"csv": {"index": False}, "json": {"orient": "records", "lines": True}, "parquet": {"index": False}}


def names(table):
    """Return the name of each row's class, None where it has none."""
    return [table.features["label"].int2str(number) if number >= 0 else None for number in table["label"][:]]


def read(labels, classes):
    """Return the names of the same table from each kind of file, and by way of a string."""
    table = pd.DataFrame({"text": [f"text {number}" for number in labels], "label": labels})
    kinds = ClassLabel(names=classes)
    features = Features({"text": Value("string"), "label": kinds})
    found = {}
    for kind, options in WRITE.items():
        file = f"{len(classes)}.{kind}"
        getattr(table, f"to_{kind}")(file, **options)
        found[kind] = names(load_dataset(kind, data_files=file, features=features, split="train"))
        plain = load_dataset(kind, data_files=file, split="train").cast_column("label", Value("string"))
        assert names(plain.cast_column("label", kinds)) == [str(label) for label in labels], "a string is wrong, too"
    found["from_pandas"] = names(Dataset.from_pandas(table, features=features))
    found["from_dict"] = names(Dataset.from_dict(table.to_dict("list"), features=features))
    found["cast_column"] = names(Dataset.from_pandas(table).cast_column("label", kinds))
    print(f"labels {labels}:", ", ".join(f"{kind} {row}" for kind, row in found.items()))
    return found


for labels, classes, shifted in (
    ([-1, 0, 1], ["-1", "0", "1"], [None, "-1", "0"]),
    ([1, 2, 3, 4], ["1", "2", "3", "4", "5"], ["2", "3", "4", "5"]),
):
    for kind, row in read(labels, classes).items():
        wanted = [str(label) for label in labels] if kind == "csv" else shifted
        assert row == wanted, f"{kind} is read otherwise now"
PY
echo "as described"
