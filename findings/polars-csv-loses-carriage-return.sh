#!/usr/bin/env bash
# Polars 2.1.0: read_csv without quoting takes a carriage return off the end of every field, though the fields end in a tab
# and the rows in a line feed. Only the last field of a row can end in the CR of a CRLF. A text that ends in a CR, as
# exports of old Mac texts and of web forms have it, comes back shorter, and nothing is raised.
# What to do: read a file that holds a CR in another way, or put a second CR before each that stands before a tab.
# Seen: sent 'a text\r' and '1', read ('a text', '1'). This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check polars==2.1.0
"$folder/venv/bin/python" - <<'PY'
import io

import polars as pl

how = {"separator": "\t", "quote_char": None, "infer_schema": False, "empty_string_is_null": False, "eol_char": "\n"}


def read(table):
    return pl.read_csv(io.BytesIO(table), **how).rows()


end, inside = read(b"text\tlabel\na text\r\t1\n"), read(b"text\tlabel\na\rtext\t1\n")
print("at the end of a field:", end, "inside of one:", inside)
assert inside == [("a\rtext", "1")]
assert end == [("a text", "1")], "the carriage return stays now"
assert read(b"text\tlabel\na text\r\r\t1\n") == [("a text\r", "1")], "more than one is taken off now"
PY
echo "as described"
