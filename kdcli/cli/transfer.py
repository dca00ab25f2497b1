"""``kd transfer``: make a transfer set."""

from typing import Annotated, Literal

from kdcli.cli.options import RUN, Request, command, option
from kdcli.cli.run_all import show_stages

Step = Annotated[
    Literal["cache", "fine-tune", "prefixes", "sample"] | None,
    option(RUN, "--only", "The one step to run.", default="all four"),
]
MADE = {"cache": "cache", "fine-tune": "generator", "prefixes": "prefixes", "sample": "heavy"}
"""What each step of the method heavy writes."""
ABOUT = {"output": "The texts: .parquet .tsv .csv .jsonl .txt, also .gz."}


@command(
    "kd transfer lite --profile sst2 --data-dir data/SST-2 --n-iter 20",
    options=("profile", "task", "transfer.lite.*", "seed", "output", "run", "engine"),
    about=ABOUT,
)
def lite(request: Request) -> None:
    profile = request.load("demo", uses={"taggers"}, settings={"transfer.method": "lite"})
    show_stages(["lite"], request, profile, outputs={"lite": request.output})


@command(
    "kd transfer heavy --profile sst2 --data-dir data/SST-2 --num-samples 800000",
    options=(
        *("profile", "task", "transfer.generator", "transfer.heavy.*", "generators.*"),
        *("seed", "device", "precision", "offline", "output", "run", "track", "engine"),
    ),
    about={"output": "What the last step makes: a table, or the folder of the generator."},
)
def heavy(request: Request, *, only: Step = None) -> None:
    """Four steps: cache the task's texts, fine-tune the generator on them, count the texts' first words (prefixes),
    sample.
    """
    steps, made = ([only], MADE[only]) if only else (list(MADE), "heavy")
    profile = request.load("demo", uses={"generators"}, settings={"transfer.method": "heavy"})
    show_stages(steps, request, profile, outputs={made: request.output})


@command(
    "kd transfer corpus --profile sst2 --data-dir data/SST-2 --input reviews.txt",
    options=(
        *("profile", "task", "transfer.corpus.*", "transfer.generator"),
        *("seed", "device", "precision", "offline", "output", "run", "engine"),
    ),
    about=ABOUT,
)
def corpus(request: Request) -> None:
    """With --order-by lm, the generator is fine-tuned first, as in transfer heavy."""
    profile = request.load("demo", uses={"generators"}, settings={"transfer.method": "corpus"})
    by_model = profile.settings.transfer.corpus.order_by == "lm"
    steps = ["cache", "fine-tune", "corpus"] if by_model else ["corpus"]
    show_stages(steps, request, profile, outputs={"corpus": request.output})
