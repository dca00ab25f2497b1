#!/usr/bin/env bash
# Polars 2.1.0: a lazy left join gives the rows of the left table in another order, at 1,000 rows already, and without
# asking for the streaming engine; the eager join of the same tables keeps the order. Logits joined to texts and then put
# beside them by position belong to other texts. What to do: maintain_order="left".
# Seen: eager True, lazy False, lazy with maintain_order="left" True. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check polars==2.1.0
"$folder/venv/bin/python" - <<'PY'
import polars as pl

names = [f"text {number}" for number in range(1000)]
texts = pl.DataFrame({"text": names})
logits = pl.DataFrame({"text": names[::-1], "logit": [float(number) for number in range(1000)]})


def ordered(frame):
    return frame["text"].to_list() == names


eager = ordered(texts.join(logits, on="text", how="left"))
lazy = any(not ordered(texts.lazy().join(logits.lazy(), on="text", how="left").collect()) for _ in range(20))
kept = all(
    ordered(texts.lazy().join(logits.lazy(), on="text", how="left", maintain_order="left").collect()) for _ in range(20)
)
print("eager keeps the order:", eager, "lazy:", not lazy, "lazy with maintain_order:", kept)
assert eager and lazy and kept, "the order is kept in another way now"
PY
echo "as described"
