"""How fast parts are made on Ray, against the processes of this machine; and on two nodes, against one.

    python benchmarks/engines.py
    python benchmarks/engines.py --rows 4000 --small    # does it run at all?

``lite`` fabricates texts of made-up sentences, ``export`` asks a random encoder of 6 layers, 384 wide. Each way runs in
a process of its own, which ends with its rows a second; how long engine and nodes take to start is said apart. On one
machine Ray has two processes of one thread; the local engine has two processes for ``lite``, and one of two threads for
``export``. The nodes have one core each and lie on this machine, so that the two of them need two free cores.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

WAYS = {
    "lite": ("local", "ray"),
    "export": ("local", "ray", "one node", "two nodes"),
}
WANTED = {
    ("lite", "ray"): ("local", 0.9),
    ("export", "ray"): ("local", 0.9),
    ("export", "two nodes"): ("one node", 1.7),
}
N_ITER = 20
NO_START = 75  # the exit code of a process in which the engine has not started
PATIENCE = 1800.0  # seconds in which it is tried again


def sentences(rows: int) -> list[str]:
    """Make different sentences of 3 to 40 words of different frequency."""
    draw = random.Random(1)
    words = [f"{''.join(draw.choices('abcdefghijklmnopqrstuvwxyz', k=draw.randint(2, 9)))}" for _ in range(5000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    return [" ".join([f"{row}", *draw.choices(words, weights, k=draw.randint(3, 40))]) for row in range(rows)]


def make_teacher(folder: Path, texts: list[str], small: bool) -> None:
    """Write a random encoder with a WordPiece vocabulary of the texts."""
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    from kdcli.lm.texts import SPECIAL, train_wordpiece

    pieces = train_wordpiece([texts[:20_000]], 8000)
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(tokenizer_object=pieces, model_input_names=inputs, **SPECIAL).save_pretrained(folder)
    layers, width = (1, 16) if small else (6, 384)
    config = BertConfig(
        vocab_size=pieces.get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2 if small else 6,
        intermediate_size=4 * width,
        id2label={0: "negative", 1: "positive"},
    )
    BertForSequenceClassification(config).save_pretrained(folder)


def measure(work: str, way: str, folder: Path) -> dict[str, float]:
    """Do the work once; return the seconds that the engine took to start, and the rows a second after that."""
    import polars as pl

    from kdcli.api import Task
    from kdcli.parts import LocalEngine
    from kdcli.parts.ray_engine import RayEngine

    engine: LocalEngine | RayEngine = LocalEngine() if way == "local" else RayEngine()
    cluster: Any = None
    began = time.perf_counter()
    try:
        if way not in ("local", "ray"):
            from ray.cluster_utils import Cluster

            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
            for _ in range(1 + (way == "two nodes")):
                cluster.add_node(num_cpus=1)
            engine = RayEngine(cluster.address)
        engine.start()
    except Exception as error:
        print(f"{work}, {way}: no start: {error}", file=sys.stderr)
        sys.exit(NO_START)
    started = time.perf_counter()
    texts = pl.read_parquet(folder / "texts.parquet")
    task = Task("sst2", "single", ("0", "1"), names=("negative", "positive"))
    if work == "lite":
        from kdcli.config.transfer import LiteSettings
        from kdcli.transfer.lite import fabricate

        train = texts[: max(1, len(texts) // N_ITER)].with_columns(label=pl.lit("1"))
        settings, output = LiteSettings(n_iter=N_ITER, workers=2), folder / "lite.parquet"
        fabricate(train=train, held_out=[], task=task, settings=settings, seed=1, output=output, engine=engine)
    else:
        from kdcli.config.schema import ExportSettings
        from kdcli.teacher.export import export_logits
        from kdcli.teacher.model import TeacherSource

        more: dict[str, Any] = {"settings": ExportSettings(), "device": "cpu", "precision": "fp32"}
        source, output = TeacherSource(str(folder / "teacher")), folder / "logits.safetensors"
        export_logits(
            transfer=folder / "texts.parquet", teacher=source, task=task, output=output, engine=engine, **more
        )
    seconds = time.perf_counter() - started
    engine.stop()
    if cluster:
        cluster.shutdown()
    return {"start": started - began, "rate": len(texts) / seconds}


def in_a_process(work: str, way: str, folder: str) -> dict[str, float]:
    """Measure in a process of its own; where Ray has not started in its 30 seconds, which are fixed, try again."""
    end = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run([sys.executable, __file__, "--one", work, way, folder], stdout=subprocess.PIPE, text=True)
        if done.returncode != NO_START or time.monotonic() > end:
            done.check_returncode()
            return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="texts to fabricate, and to export logits of")
    parser.add_argument("--rounds", type=int, default=1, help="the best of these counts")
    parser.add_argument("--work", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--small", action="store_true", help="a tiny teacher")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        work, way, folder = options.one
        print(json.dumps(measure(work, way, Path(folder))))
        return
    import polars as pl

    with TemporaryDirectory() as name:
        folder, found = Path(name), dict[tuple[str, str], dict[str, float]]()
        texts = sentences(options.rows)
        pl.DataFrame({"sentence": texts}).write_parquet(folder / "texts.parquet")
        make_teacher(folder / "teacher", texts, options.small)
        for _ in range(options.rounds):
            for work in options.work:
                for way in WAYS[work]:
                    one = in_a_process(work, way, name)
                    found[work, way] = max(found.get((work, way), one), one, key=lambda taken: taken["rate"])
    print(f"{options.rows:,} texts, best of {options.rounds}")
    print(f"{'':20} {'start, s':>9} {'rows/s':>9} {'ratio':>7} {'wanted':>7}")
    for (work, way), one in found.items():
        base, wanted = WANTED.get((work, way), (way, None))
        ratio = one["rate"] / found[work, base]["rate"]
        print(f"{f'{work}, {way}':20} {one['start']:9.1f} {one['rate']:9.0f} {ratio:7.2f} {wanted or '':>7}")


if __name__ == "__main__":
    main()
