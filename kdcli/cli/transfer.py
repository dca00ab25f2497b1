"""``kd transfer``: make a transfer set."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import RenderableType
from rich.text import Text

from kdcli.cli import flags, stage, ui

app = typer.Typer(name="transfer", help="Make a transfer set: many unlabelled texts that look like the task.")


@app.command(epilog=flags.example("kd transfer lite --profile sst2 --data-dir data/SST-2 --n-iter 20"))
def lite(
    profile: flags.ProfileName = None,
    set_: flags.Set = None,
    data_dir: flags.DataDir = None,
    n_iter: flags.NIter = None,
    p_mask: flags.PMask = None,
    p_pos: flags.PPos = None,
    p_ngram: flags.PNgram = None,
    ngram: flags.Ngram = None,
    tagger: flags.TaggerName = None,
    output: flags.MaybeOutput = None,
    run_dir: flags.RunDir = None,
    force: flags.Force = False,
    seed: flags.Seed = None,
    workers: flags.Workers = None,
    shard: flags.ShardOf = None,
    resume: flags.Resume = "auto",
    dry_run: flags.DryRun = False,
) -> None:
    """Fabricate texts by rules: mask words, replace them by others of their part of speech, keep an n-gram."""
    values = {
        "task.data_dir": data_dir,
        "transfer.method": "lite",
        "transfer.lite.n_iter": n_iter,
        "transfer.lite.p_mask": p_mask,
        "transfer.lite.p_pos": p_pos,
        "transfer.lite.p_ngram": p_ngram,
        "transfer.lite.ngram": ngram,
        "transfer.lite.tagger": tagger,
        "transfer.lite.workers": workers,
        "seed": seed,
    }
    chosen = flags.load(profile, set_, values, default="demo")
    wish = stage.Wish(run_dir, shard, resume, force, dry_run)
    stage.run(["transfer"], chosen, wish, outputs={"transfer": output}, describe=_describe)


def _describe(result: dict[str, Any]) -> RenderableType:
    examples = ui.columns("rules", "before", "after")
    for example in result["examples"]:
        rules = example["rules"] if isinstance(example["rules"], str) else ", ".join(example["rules"])
        examples.add_row(Text(rules, "dim"), Text(example["before"]), Text(example["after"]))
    rows = {name: value for name, value in result.items() if isinstance(value, int)}
    rows |= result["counts"]
    shown = {name.replace("_", " "): value for name, value in rows.items()}
    return stage.panel("transfer lite", {**shown, "drop rate": f"{result['drop_rate']:.1%}"}, Text(""), examples)
