"""The folder of a run: where each stage's files lie, and the lock that keeps a second launch out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from kdcli.errors import KdError
from kdcli.parts.parts import ALONE, Shard


@dataclass(frozen=True)
class Paths:
    """Where the artefacts of a run lie.

    Attributes:
        lite: The texts fabricated by rules, a transfer set.
        heavy: The texts sampled from a generator, a transfer set.
        corpus: The texts taken from the user's own, a transfer set.
        transfer: The transfer set of the run: that of one method, or several joined.
        cache: The task's texts, a folder: what a generator learns.
        generator: The fine-tuned generator, a folder.
        prefixes: What samples begin with.
        teacher: The fine-tuned teacher, a Hugging Face folder.
        logits: The teacher's logits for the transfer set.
        joined: The transfer set with the logits.
        encoded: The joined set as word ids, with its vocabulary and word vectors, a folder.
        student: The distilled student, a folder.
        baseline: The same student trained on gold labels only, a folder.
        results: The scores, sizes and speeds of the three.
        predictions: What the three say of each text that they were scored on, a table.
    """

    lite: Path
    heavy: Path
    corpus: Path
    transfer: Path
    cache: Path
    generator: Path
    prefixes: Path
    teacher: Path
    logits: Path
    joined: Path
    encoded: Path
    student: Path
    baseline: Path
    results: Path
    predictions: Path

    @classmethod
    def in_run(cls, root: Path, tables: str = ".tsv") -> Paths:
        """Return the places in a run folder: one folder a stage.

        Args:
            root: The run folder.
            tables: The form of its tables; texts that hold tabs or line ends need ``.parquet``.
        """
        return cls(
            lite=root / "transfer" / f"lite{tables}",
            heavy=root / "transfer" / f"heavy{tables}",
            corpus=root / "transfer" / f"corpus{tables}",
            transfer=root / "transfer" / f"transfer{tables}",
            cache=root / "transfer" / "cache",
            generator=root / "transfer" / "generator",
            prefixes=root / "transfer" / "prefixes.json",
            teacher=root / "teacher",
            logits=root / "export" / "logits.safetensors",
            joined=root / "join" / f"joined{tables}",
            encoded=root / "encode",
            student=root / "student",
            baseline=root / "baseline",
            results=root / "results.json",
            predictions=root / "predictions.parquet",
        )


def of_seed(folder: Path, seed: int, first: int) -> Path:
    """Return the folder of a student trained with ``seed``: the first seed's has the plain name."""
    return folder if seed == first else folder.with_name(f"{folder.name}-seed{seed}")


@contextmanager
def one_launch(root: Path, shard: Shard = ALONE) -> Iterator[None]:
    """Hold a run folder for this launch; the shards of one launch hold a lock each.

    Raises:
        KdError: Another launch works in the folder.
    """
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / f".launch-{shard.index}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        hint = "wait for it, stop it, or name another folder with --run-dir"
        raise KdError("another kd is at work in this run folder", file=root, hint=hint) from None
    try:
        yield
    finally:
        lock.release()
