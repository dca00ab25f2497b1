#!/usr/bin/env bash
# Polars 2.1.0: read_ndjson and scan_ndjson infer the columns from the first 100 objects. A key that occurs later for the
# first time is dropped, with all its values, and nothing is raised. A table of texts of which few are labelled loses its
# labels so. What to do: infer_schema_length=None, or give the schema.
# Seen: columns ['text'] of 150 objects, the last of which has a label too. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check polars==2.1.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import json

import polars as pl

rows = [{"text": f"number {number}"} for number in range(149)] + [{"text": "the last", "label": "good"}]
with open("texts.jsonl", "w") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
read, scanned = pl.read_ndjson("texts.jsonl"), pl.scan_ndjson("texts.jsonl").collect()
print("read_ndjson", read.columns, "scan_ndjson", scanned.columns, "rows", read.height)
assert read.columns == scanned.columns == ["text"] and read.height == 150, "the late key is kept now"
assert pl.read_ndjson("texts.jsonl", infer_schema_length=None)["label"].drop_nulls().to_list() == ["good"]
PY
echo "as described"
