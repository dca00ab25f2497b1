"""How much processor time a student takes to reach the quality that an older build of kd ends with, side by side.

    python benchmarks/time_to_quality.py --old PYTHON --joined LITE/join/joined.parquet --held-out film.parquet \
        --encoder ENCODER --teacher TEACHER --output curves.png

Both builds train at the same time, each with one thread, on the same joined set. What a build takes for its dev set are
held-out texts with the teacher's own answers for labels, so that its curve of accuracy on dev is its agreement with
the teacher. `--old` is the interpreter of the older build's environment (commit 2f9cafd), which trains by its recipe:
three passes, vectors of the encoder that the teacher was made from. This build makes one pass by the profile sst2.
`--held-out` is a table of texts, from which `--rows` are taken. The time is that of each process, from its start (with
vocabulary and vectors) and of the training alone, which is counted back from its first two evaluations.
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

EVALUATIONS = 12
BATCH = 256
OLD_PASSES, NEW_PASSES = 3, 1
# What the older build's results were made with (its benchmarks/results/sst2/README.md).
OLD = ["optimizer=adam", "lr=0.002", "decay=linear", "batch_size=256"]
Curve = list[tuple[int, float, float]]  # updates, seconds of the processor, agreement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, help="the Python of the older build's environment")
    parser.add_argument("--joined", type=Path, required=True, help="a joined set of single texts with two labels")
    parser.add_argument("--held-out", type=Path, required=True, help="a table of texts that are not in it")
    parser.add_argument("--encoder", required=True, help="the folder of the encoder before its fine-tuning")
    parser.add_argument("--teacher", required=True, help="the folder of the teacher")
    parser.add_argument("--rows", type=int, default=5_000, help="how many of the held-out texts")
    parser.add_argument("--most", type=int, default=0, help="the most rows of the joined set, for a trial")
    parser.add_argument("--output", type=Path, help="a picture of the curves")
    given = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        joined = pl.read_parquet(given.joined, columns=["sentence", "label", "logits_0", "logits_1"])
        joined = joined.head(given.most) if given.most else joined
        joined.write_csv(folder / "joined.tsv", separator="\t", quote_style="never")
        held_out = pl.read_parquet(given.held_out).head(given.rows)["sentence"]
        teacher = TeacherSource(given.teacher).load(task_from(load_profile("sst2").settings.task))
        answers = teacher.logits([held_out.to_list()]).argmax(1)
        dev = pl.DataFrame({"sentence": held_out, "label": answers})
        for name in ("train", "dev"):
            dev.write_csv(folder / f"{name}.tsv", separator="\t", quote_style="never")
        steps = -(-len(joined) // BATCH)
        old = [*OLD, f"vectors={given.encoder}", f"epochs={OLD_PASSES}", f"eval_steps={steps * OLD_PASSES // 6}"]
        new = [f"vectors={given.teacher}", f"epochs={NEW_PASSES}", f"eval_steps={steps * NEW_PASSES // EVALUATIONS}"]
        old_curve, new_curve = train(folder, [([given.old, "-I"], old), ([sys.executable], new)])
    report(old_curve, new_curve, given.output)


def train(folder: Path, builds: list[tuple[list[str], list[str]]]) -> list[Curve]:
    """Train with each build, an interpreter and settings, at the same time, and return their curves."""
    running = []
    for number, (python, settings) in enumerate(builds):
        run = folder / f"run{number}"
        sets = [word for setting in settings for word in ("--set", f"student.{setting}")]
        command = [*python, "-m", "kdcli", "student", "--profile", "sst2", "--data-dir", folder]
        command += ["--input", folder / "joined.tsv", "--run-dir", run, *sets, "--set", "students.bilstm.dropout=0.5"]
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
