"""The row work of ``kd`` on a Ray cluster of three nodes: the same bytes as on this machine, whatever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest
from e2e.conftest import MODELS, PROFILE
from made_student import SINGLE, make_student
from made_teacher import make_teacher, texts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
TESTS = Path(__file__).resolve().parents[1]
SETS = ["transfer.method=lite+corpus", "transfer.corpus.order_by=lm", "transfer.corpus.num_samples=500"]
SETS += ["transfer.lite.n_iter=1", "generators.gpt2.epochs=1", "teacher.lr=[1e-3, 1e-2]", "teacher.epochs=1"]
SMALL = """
import os
from kdcli.cli import run
from kdcli.evaluate import predict
from kdcli.student.student import Student
from kdcli.teacher import export
from kdcli.transfer import corpus, lite
import sys

export.PART_ROWS = predict.ROWS = Student.part_rows = 64
lite.ROWS, lite.TEXTS = 512, 2_000
corpus.ROWS, corpus.ASKED = 1_000, 400
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # of two trainings at once each has one, as on a node
if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
"""
"""``kd`` with parts of a few texts."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A teacher, a student and tables of texts, with what the local engine makes of them."""
    folder = tmp_path_factory.mktemp("ray")
    make_teacher(folder / "teacher")
    make_student(folder / "student", SINGLE)
    lines = texts(6000)
    (folder / "data").mkdir()
    for name, rows in (("train", lines[:1000]), ("dev", lines[1000:1100]), ("test", lines[1100:1200])):
        table = "".join(f"{text}\t{number % 2}\n" for number, text in enumerate(rows))
        (folder / "data" / f"{name}.tsv").write_text(f"sentence\tlabel\n{table}")
    (folder / "many.txt").write_text("".join(f"{text}\n" for text in lines))
    (folder / "kd.py").write_text(SMALL)
    return folder


@pytest.fixture(scope="module")
def cluster():
    with subprocess.Popen(
        [sys.executable, str(TESTS / "ray_cluster.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line)
                break
        process.stdin.close()


def start(made, *arguments, cluster=None):
    """Start ``kd`` with one thread a process, on this machine or on a cluster."""
    engine = [] if cluster is None else ["--engine", "ray", "--ray-address", cluster["address"]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(made / "kd.py"), *map(str, (*arguments, *engine))]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kd(made, *arguments, cluster=None):
    process = start(made, *arguments, cluster=cluster)
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    return stdout, stderr


def hashed(path):
    return sha256(path.read_bytes()).hexdigest()


def exported(made, name):
    """Return the command that exports to a file, and the file."""
    output = made / f"{name}.safetensors"
    where = ("--teacher", made / "teacher", "--input", made / "many.txt", "--run-dir", made / f"run-{name}")
    return ("teacher", "export", "--profile", "sst2", *where, "--output", output), output


@pytest.fixture(scope="module")
def whole(made):
    """The hash of the logits that the local engine exports."""
    command, output = exported(made, "whole")
    kd(made, *command)
    return hashed(output)


def wait_for_parts(output, count, process):
    parts = output.with_name(f".{output.name}.parts")
    end = time.monotonic() + 600
    while len(list(parts.glob("*.sha256"))) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.01)
    return len(list(parts.glob("*.parquet")))


def test_predicted_fabricated_and_cleaned_are_the_same_bytes(made, cluster):
    predict = ("predict", "--student", made / "student", "--input", made / "many.txt", "--output")
    task = ("--profile", "sst2", "--data-dir", made / "data")
    lite = ("transfer", "lite", *task, "--n-iter", 8, "--workers", 1, "--output")
    corpus = ("transfer", "corpus", *task, "--input", made / "many.txt", "--output")
    for name, command in (("predictions.parquet", predict), ("lite.parquet", lite), ("corpus.parquet", corpus)):
        for engine, on in (("local", None), ("ray", cluster)):
            where = () if command is predict else ("--run-dir", made / f"run-{engine}")
            kd(made, *command, made / f"{engine}-{name}", *where, cluster=on)
        assert hashed(made / f"local-{name}") == hashed(made / f"ray-{name}")


def test_all_that_a_run_trains_is_the_same_bytes(made, cluster):
    """The grid of the teacher, a corpus in the order of a generator, students and baselines of two seeds."""
    (made / "all.toml").write_text(PROFILE.format(data=made / "data") + MODELS)
    (made / "few.txt").write_text("".join(f"{text}\n" for text in texts(1500, seed=2)))
    sets = [f'transfer.corpus.files=["{made / "few.txt"}"]', *SETS]
    line = ["run-all", "-p", made / "all.toml", "--seeds", 2, *(part for one in sets for part in ("--set", one))]
    for engine, on in (("local", None), ("ray", cluster)):
        kd(made, *line, "--run-dir", made / engine, cluster=on)
    names = ["transfer/corpus.parquet", "join/joined.parquet", "predictions.parquet"]
    names += [f"{one}/model.safetensors" for one in ("teacher", "student", "student-seed2", "baseline-seed2")]
    for name in names:
        assert hashed(made / "local" / name) == hashed(made / "ray" / name), name
    points = [(made / engine / "metrics.jsonl").read_text().splitlines() for engine in ("local", "ray")]
    stages = [{json.loads(point)["stage"] for point in lines} for lines in points]
    assert stages[0] == stages[1] >= {"teacher", "generator", "student", "student-seed2"}


def test_a_killed_driver_goes_on_where_it_was(made, cluster, whole):
    command, output = exported(made, "driver")
    process = start(made, *command, cluster=cluster)
    there = wait_for_parts(output, 3, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not output.exists()
    _, said = kd(made, *command, cluster=cluster)
    assert hashed(output) == whole and "again" not in said
    # Begun on the cluster, it ends on this machine as well.
    command, output = exported(made, "begun")
    process = start(made, *command, cluster=cluster)
    assert wait_for_parts(output, 3, process) >= 3 <= there
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kd(made, *command)
    assert hashed(output) == whole


def test_a_lost_node_is_done_without(made, cluster, whole):
    """The last test: the cluster has two nodes from here on."""
    command, output = exported(made, "node")
    process = start(made, *command, cluster=cluster)
    there = wait_for_parts(output, 3, process)
    os.kill(cluster["pids"][2], signal.SIGKILL)
    _, stderr = process.communicate(timeout=900)
    assert process.returncode == 0, stderr
    assert hashed(output) == whole and there < 94
