"""How much processor time a student takes to reach the quality that an older build of kd ends with, side by side.

    python benchmarks/time_to_quality.py --old PYTHON --joined LITE/join/joined.parquet --held-out film.parquet \
        --encoder ENCODER --teacher TEACHER --output curves.png
    python benchmarks/time_to_quality.py --profile qqp --passes 3 2 --joined QQP/join/joined.parquet ... \
        --set task.metric=accuracy --set students.bilstm.hidden=150 --set students.bilstm.pooling=max

Both builds train at the same time, each with one thread, on the same joined set of texts or pairs. What a build takes
for its dev set are held-out texts with the teacher's own answers for labels, so that its curve of accuracy on dev is
its agreement with the teacher. `--old` is the interpreter of the older build's environment (commit 2f9cafd), which
trains by its recipe: three passes, vectors of the encoder that the teacher was made from. This build makes one pass by
the recipe of the profile sst2. `--held-out` is a table of texts, from which `--rows` are taken; `--set` is for both.
The time is that of each process, from its start (with vocabulary and vectors) and of the training alone, which is
counted back from its first two evaluations.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
from machine import describe

from kdcli.config.load import load_profile
from kdcli.tasks.split import task_from
from kdcli.teacher.model import TeacherSource

EVALUATIONS = 24
BATCH = 256
# What the older build's results were made with (its benchmarks/results/sst2/README.md).
OLD = ["optimizer=adam", "lr=0.002", "decay=linear", f"batch_size={BATCH}"]
# The recipe of the profile sst2, for profiles that have another.
NEW = [*OLD, "ema=0.995", "patience=0", "word_pieces=true", "max_size=30000"]
Curve = list[tuple[int, float, float]]  # updates, seconds of the processor, agreement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, help="the Python of the older build's environment")
    parser.add_argument("--joined", type=Path, required=True, help="a joined set")
    parser.add_argument("--held-out", type=Path, required=True, help="a table of texts that are not in it")
    parser.add_argument("--encoder", required=True, help="the folder of the encoder before its fine-tuning")
    parser.add_argument("--teacher", required=True, help="the folder of the teacher")
    parser.add_argument("--rows", type=int, default=5_000, help="how many of the held-out texts")
    parser.add_argument("--profile", default="sst2", help="the task, a profile of both builds")
    parser.add_argument("--passes", type=int, nargs=2, default=(3, 1), help="of the older build and of this one")
    parser.add_argument("--set", action="append", default=[], help="a further setting of both builds")
    parser.add_argument("--most", type=int, default=0, help="the most rows of the joined set, for a trial")
    parser.add_argument("--output", type=Path, help="a picture of the curves")
    given = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        task = task_from(load_profile(given.profile).settings.task)
        joined = pl.scan_parquet(given.joined).select(*task.columns, "label", "^logits_.*$").collect()
        joined = joined.head(given.most) if given.most else joined
        joined.write_csv(folder / "joined.tsv", separator="\t", quote_style="never")
        dev = pl.read_parquet(given.held_out, columns=task.columns).head(given.rows)
        teacher = TeacherSource(given.teacher).load(task)
        answers = teacher.logits([dev[name].to_list() for name in task.columns]).argmax(1)
        dev = dev.with_columns(label=pl.Series([task.labels[answer] for answer in answers]))
        for name in ("train", "dev"):
            dev.write_csv(folder / f"{name}.tsv", separator="\t", quote_style="never")
        steps = -(-len(joined) // BATCH)
        old, new = given.passes
        builds = [
            ([given.old, "-I"], [*OLD, f"vectors={given.encoder}", f"epochs={old}", f"eval_steps={steps * old // 6}"]),
            (
                [sys.executable],
                [*NEW, f"vectors={given.teacher}", f"epochs={new}", f"eval_steps={steps * new // EVALUATIONS}"],
            ),
        ]
        old_curve, new_curve = train(folder, given.profile, given.set, builds)
    report(old_curve, new_curve, given.output)


def train(folder: Path, profile: str, more: list[str], builds: list[tuple[list[str], list[str]]]) -> list[Curve]:
    """Train with each build, an interpreter and settings of the student, at the same time, and return their curves."""
    running = []
    for number, (python, settings) in enumerate(builds):
        run = folder / f"run{number}"
        settings = [*(f"student.{setting}" for setting in settings), "students.bilstm.dropout=0.5", *more]
        command = [*python, "-m", "kdcli", "student", "--profile", profile, "--data-dir", folder]
        command += ["--input", folder / "joined.tsv", "--run-dir", run]
        command += [word for setting in settings for word in ("--set", setting)]
        log = (folder / f"log{number}").open("w")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        running.append((subprocess.Popen(command, stdout=log, stderr=log, env=environment), run, []))
    while any(process.poll() is None for process, _, _ in running):
        time.sleep(1)
        for process, run, curve in running:
            if process.poll() is None:
                take(process.pid, run / "metrics.jsonl", curve)
    for number, (process, _, curve) in enumerate(running):
        if process.returncode or len(curve) < 3:
            raise SystemExit((folder / f"log{number}").read_text())
    return [curve for _, _, curve in running]


def take(pid: int, path: Path, curve: Curve) -> None:
    """Add the evaluations that are new, with the processor time that the process has taken until now."""
    if not path.exists():
        return
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    rows = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    evaluations = [row for row in rows if "accuracy" in row]
    curve += [(row["step"], seconds, row["accuracy"]) for row in evaluations[len(curve) :]]


def report(old: Curve, new: Curve, picture: Path | None) -> None:
    level = old[-1][2]
    names = "old", "new"
    for name, curve in zip(names, (old, new), strict=True):
        print(name, *(f"{seconds - start(curve):.0f}s:{100 * agreement:.1f}" for _, seconds, agreement in curve))
    reached = next((seconds for _, seconds, agreement in new if agreement >= level), None)
    if reached is None:
        print(f"this build does not reach the {level:.1%} that the older one ends with")
        return
    of_old = old[-1][1]
    training = (of_old - start(old)) / (reached - start(new))
    print(f"agreement {level:.1%}: {training:.2f} times less processor time of training; ", end="")
    print(f"{of_old / reached:.2f} times from the start of the process, vocabulary and vectors among it")
    if picture:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for name, curve in zip(names, (old, new), strict=True):
            _, seconds, agreements = zip(*curve, strict=True)
            axes.plot(
                [one - start(curve) for one in seconds], [100 * one for one in agreements], marker="o", label=name
            )
        axes.set(xlabel="seconds of the processor", ylabel="agreement with the teacher, %")
        axes.legend()
        figure.savefig(picture)


def start(curve: Curve) -> float:
    """Return when the training began: evaluations lie evenly apart."""
    return curve[0][1] - (curve[1][1] - curve[0][1])


if __name__ == "__main__":
    main()
