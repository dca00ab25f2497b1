#!/usr/bin/env bash
# fastparquet 2026.9.0: a column of Parquet's logical type FLOAT16, as Polars 2.1.0 and pyarrow 26.0.1 write it, is read
# without an error as a column of byte strings, two bytes a value; pyarrow and DuckDB read the numbers. Teachers'
# representations that are kept in half precision come out as bytes wherever pandas reads by this engine.
# What to do: pandas.read_parquet(..., engine="pyarrow"); or NumPy's frombuffer(value, "<f2") on the bytes.
# Seen: pyarrow [0.5, -2.0], fastparquet [b'\x008', b'\x00\xc0'], from their bytes [0.5, -2.0]. It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check polars==2.1.0 pyarrow==26.0.1 fastparquet==2026.9.0 \
    pandas==3.1.1 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

wanted = [0.5, -2.0]
pl.DataFrame({"value": pl.Series(wanted, dtype=pl.Float16)}).write_parquet(f"{sys.argv[1]}/polars.parquet")
pq.write_table(pa.table({"value": pa.array(np.array(wanted, np.float16))}), f"{sys.argv[1]}/pyarrow.parquet")
for writer in ("polars", "pyarrow"):
    read = {
        engine: pd.read_parquet(f"{sys.argv[1]}/{writer}.parquet", engine=engine)["value"].tolist()
        for engine in ("pyarrow", "fastparquet")
    }
    numbers = [float(np.frombuffer(value, "<f2")[0]) for value in read["fastparquet"]]
    print("written by", writer, "read by", read, "the bytes are", numbers)
    assert read["pyarrow"] == numbers == wanted, "pyarrow reads it in another way now"
    assert all(isinstance(value, bytes) for value in read["fastparquet"]), "fastparquet reads it in another way now"
PY
echo "as described"
