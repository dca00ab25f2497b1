"""``kd join``: the teacher's logits beside the texts."""

from pathlib import Path
from typing import Annotated

from kdcli.cli.options import FILES, Request, command, option
from kdcli.cli.run_all import show_stages

Logits = Annotated[
    Path | None,
    option(FILES, "--logits", "Logits: .safetensors of kd, or .npy, .csv, .tsv, .parquet, .pt.", "FILE", "the run's"),
]


@command(
    "kd join --profile sst2 --data-dir data/SST-2 --label gold",
    options=("profile", "task.data_dir", "join.*", "input", "output", "run_dir", "force", "dry_run"),
    about={
        "input": "The transfer set: .parquet .tsv .csv .jsonl .txt, also .gz.",
        "output": "The joined set: .parquet .tsv .csv .jsonl, also .gz.",
    },
)
def join(request: Request, *, logits: Logits = None) -> None:
    inputs, outputs = {"transfer": request.input, "logits": logits}, {"joined": request.output}
    show_stages(["join"], request, request.load("demo", uses=()), inputs=inputs, outputs=outputs)
