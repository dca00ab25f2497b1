"""``kd student``: distil the teacher into a student."""

from __future__ import annotations

from kdcli.cli import stage
from kdcli.cli.options import Request, command


@command(
    "kd student --profile sst2 --data-dir data/SST-2 --kd-loss kl -T 3",
    options=("profile", "task", "student.*", "input", "output", "seed", "device", "offline", "run", "track"),
)
def student(request: Request) -> None:
    """Distil the joined set into a student."""
    output = request.output
    outputs = {"student": output, "encoded": output and output.with_name(f"{output.name}.encoded")}
    profile = request.load("demo", uses={"students"})
    stage.run(["encode", "student"], request, profile, inputs={"joined": request.input}, outputs=outputs)
