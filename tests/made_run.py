"""Run folders as ``kd run-all`` leaves them, made without training anything."""

import json

import numpy as np
import polars as pl

HOSTILE = "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\"> & </script>"
VERSIONS = {"python": "3.11.7", "kdcli": "0.1.0", "torch": "2.13.0"}
NOVELTY = {
    **{f"{kind}distinct_{n}": 0.1 * n for kind in ("equal_", "equal_train_") for n in (1, 2, 3)},
    **dict.fromkeys(("samples", "words", "equal_words", "scored"), 40),
    **{"mean_length": 4.0, "train_mean_length": 3.0, "examples": ["one"]},
    **{"in_train": 0.0123, "bits_per_character": 1.75},
}
EXAMPLE = {"rules": ["masked"], "before": "a fine film", "after": f"a [MASK] {HOSTILE}"}
RESULTS = {
    "lite": {
        **{"rows": 100, "originals": 10, "fabricated": 90, "duplicates": 5, "held_out_copies": 0, "drop_rate": 0.05},
        "counts": {"words": 1000, "words_masked": 101, "words_replaced": 99, "texts_cut": 20},
        "examples": [EXAMPLE],
    },
    "sample": {
        **{"rows": 50, "originals": 10, "draws": 64, "samples": 40, "duplicates": 3, "train_copies": 1, "excess": 20},
        **{"held_out_copies": 0, "rejected": {"broken characters": 2}, "acceptance": 0.94, "novelty": NOVELTY},
    },
    "corpus": {
        **{"rows": 50, "originals": 10, "read": 99, "usable": 41, "kept": 40, "examples": ["one"]},
        **{"unpaired": 0, "blank": 1, "too_long": 2, "duplicates": 3, "train_copies": 4, "held_out_copies": 5},
    },
    "mix": {"rows": 140, "originals": 10, "kept": {"lite": 90, "heavy": 40}, "dropped": {"lite": 0, "heavy": 2}},
    "teacher": {"metrics": {"accuracy": 0.9, "pearson": 0.9}, "grid": {"0.0005": 0.9}},
}


def write_run(
    root, *, labels=("no", "yes"), pairs=False, tables=("dev",), rows=60, seeds=1, half=False, settings="", metric=None
):
    """Write a run of so many seeds, each scored table of so many rows, and return its folder.

    Without ``labels`` it is one of scores from 0 to 5. ``half`` leaves off after the transfer set; ``settings`` are
    more lines of the profile.
    """
    metric = metric or ("accuracy" if labels else "pearson")
    root.mkdir(parents=True)
    lines = [f'name = "made"\nkind = "{"pair" if pairs else "single"}"', f'metric = "{metric}"']
    lines += [f"labels = {json.dumps(labels)}"] if labels else ["score_range = [0.0, 5.0]"]
    head = '# made, resolved by kd\n\nseed = 7\n\n[transfer]\nmethod = "lite+heavy"\n\n[task]\n'
    (root / "profile.toml").write_text(head + "\n".join(lines) + f"\n{settings}")
    texts = ("sentence1", "sentence2") if pairs else ("sentence",)
    draws = np.random.default_rng(3)
    _write_transfer(root, texts, max(1, len(labels)), draws, joined=not half)
    names = ["lite", "sample", "mix"]
    if not half:
        names += ["teacher", "export", "join", "encode"]
        names += [f"{kind}{seed}" for kind in ("student", "baseline") for seed in ("", "-seed8", "-seed9")[:seeds]]
        names.append("results")
        _write_results(root, labels, texts, tables, rows, seeds, metric, draws)
        _write_curves(root, metric)
    write_lock(root, {name: entry(name) for name in names})
    return root


def write_lock(root, entries):
    (root / "kd.lock").write_text(json.dumps({"format": 2, "stages": entries}))


def entry(name, inputs=None, *, ended=True):
    """Return a stage's entry in ``kd.lock``, with one output that has the stage's name."""
    outputs = {name.partition("-")[0]: f"{name}-hash"} if ended else {}
    result = RESULTS.get(name, {})
    if name.startswith(("student", "baseline")):
        points = [(step, {"loss": 9 / step, "accuracy": 0.5 + step / 2000, "pearson": 0.5}) for step in (100, 200, 300)]
        result = {"history": [{"update": step, "epoch": step / 100, **values} for step, values in points]}
    versions = VERSIONS if ended else {}
    made = {"parameters": {"seed": 7}, "inputs": inputs or {}, "outputs": outputs}
    return {**made, "result": result, "versions": versions}


def _write_transfer(root, texts, outputs, draws, joined):
    """Write 10 originals, 90 rows of lite and 40 of heavy, from 1 to 7 words long; the first text is hostile."""
    path = root / ("join/joined.parquet" if joined else "transfer/transfer.parquet")
    path.parent.mkdir()
    sources = ["original"] * 10 + ["lite"] * 90 + ["heavy"] * 40
    words = [" ".join(["word"] * (number % 7 + 1)) for number in range(len(sources))]
    columns = {
        **dict(zip(texts, ([HOSTILE, *words[1:]], words), strict=False)),
        "source": sources,
        "label": ["1" if source == "original" else None for source in sources],
    }
    for number in range(outputs if joined else 0):
        columns[f"logits_{number}"] = draws.normal(size=len(sources)).astype(np.float32)
    pl.DataFrame(columns).write_parquet(path)


def _write_results(root, labels, texts, tables, rows, seeds, metric, draws):
    columns = {name: [] for name in ("table", "index", *texts, "label")}
    columns |= {f"{model}_{n}": [] for model in ("teacher", "baseline", "student") for n in range(max(1, len(labels)))}
    for table in tables:
        for row in range(rows):
            gold = draws.integers(len(labels)) if labels else round(draws.uniform(0, 5), 2)
            values = [table, str(row), *(f"{HOSTILE} {row}" for _ in texts), labels[gold] if labels else str(gold)]
            for _ in range(3):
                values += draws.normal(size=len(labels)).tolist() if labels else [gold + draws.normal()]
            for name, value in zip(columns, values, strict=True):
                columns[name].append(value)
    frame = pl.DataFrame(columns)
    frame.with_columns(pl.col(pl.Float64).cast(pl.Float32)).write_parquet(root / "predictions.parquet")
    models = {"teacher": (0.9, 1000, 100.0), "baseline": (0.7, 100, 1000.0), "student": (0.85, 100, 1000.0)}
    found = []
    for model, (value, parameters, speed) in models.items():
        scores = [value + 0.01 * seed for seed in range(1 if model == "teacher" else seeds)]
        row = {"model": model, "scores": {table: {metric: scores} for table in tables}, "per_second": speed}
        row |= {"parameters": parameters, "parameters_without_embeddings": parameters // 2}
        found.append(row | {"megabytes": parameters / 100})
    gaps = {table: {metric: 0.75} for table in tables}
    results = {"metrics": [metric], "rows": found, "gap_closed": gaps}
    (root / "results.json").write_text(json.dumps(results))


def _write_curves(root, metric):
    points = []
    for step in (100, 200, 300):
        losses = {"loss": 50 / step, "dev_loss": 0.7, "lr": 0.05 / step, "peak_lr": 5e-4}
        points.append({"stage": "teacher", "step": step, metric: 0.5 + step / 1000, **losses})
    last = {"stage": "generator", "step": 50, "bits_per_character": 1.9, "loss": 4.1, "dev_loss": None, "lr": 0.001}
    (root / "metrics.jsonl").write_text("".join(f"{json.dumps({'time': 1.0, **point})}\n" for point in (*points, last)))
