#!/usr/bin/env bash
# Polars 2.1.0: read_csv looks at the first two bytes of what it gets to see whether it is compressed. A table without a
# header whose first text begins with "x^" (a formula, an emoticon) is taken for a zlib stream and refused, though its
# name ends in .tsv. The same two letters in the second row do no harm.
# What to do: put a header or an empty row before the rows.
# Seen: OSError, "corrupt deflate stream", of a file and of bytes. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check polars==2.1.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import io

import polars as pl

how = {"separator": "\t", "quote_char": None, "infer_schema": False, "has_header": False}
rows = [b"x^2 is never below zero\t1\n", b"a text\t0\n"]
with open("texts.tsv", "wb") as file:
    file.writelines(rows)
for name, source in {"a file": "texts.tsv", "bytes": io.BytesIO(b"".join(rows))}.items():
    try:
        print(name, pl.read_csv(source, **how).rows())
    except OSError as error:
        print(f"{name}: OSError: {error}")
    else:
        raise AssertionError("such a table is read now")
assert pl.read_csv(io.BytesIO(b"".join(rows[::-1])), **how).height == 2
PY
echo "as described"
