"""``kd student``: distil the teacher into a student."""

from dataclasses import replace

from kdcli.cli.options import Request, command
from kdcli.cli.run_all import show_stages

MADE = ("kd.lock", "profile.toml", "metrics.jsonl", ".launch.lock", "tensorboard/*", "wandb/*")
"""The files of a run folder that holds a student alone, beside those of its artefacts."""


@command(
    "kd student --profile sst2 --data-dir data/SST-2 --kd-loss kl -T 3",
    options=("profile", "task", "student.*", "input", "output", "seed", "device", "offline", "run", "track"),
    about={"input": "The joined set: .parquet .tsv .csv .jsonl, also .gz.", "output": "Folder of the student."},
)
def student(request: Request) -> None:
    from kdcli.files import check_replaceable, remove
    from kdcli.run import artefact, is_run

    profile = request.load("demo", uses={"students"})
    joined, output = request.input, request.output
    if output is not None:
        # A run folder of its own, beside the output, holds what a killed run resumes with.
        joined = joined or artefact(request.run_options().root(profile), "joined")
        folder = output.with_name(f".{output.name}.run")
        if not is_run(folder):
            check_replaceable(folder, MADE)
        request = replace(request, run_dir=folder)
    show_stages(["encode", "student"], request, profile, inputs={"joined": joined}, outputs={"student": output})
    if output is not None and not request.dry_run:
        if (folder / "encode").is_dir():
            remove(folder / "encode")
        remove(folder, MADE)
