"""``kd transfer``: make a transfer set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from kdcli.cli import flags, stage, ui

if TYPE_CHECKING:
    from kdcli.config.load import Profile

app = typer.Typer(name="transfer", help="Make a transfer set: many unlabelled texts that look like the task.")


@app.command(epilog=flags.example("kd transfer lite --profile sst2 --data-dir data/SST-2 --n-iter 20"))
def lite(
    profile: flags.ProfileName = None,
    set_: flags.Set = None,
    data_dir: flags.DataDir = None,
    text_col: flags.TextCol = None,
    text2_col: flags.Text2Col = None,
    label_col: flags.LabelCol = None,
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
        **flags.tables(data_dir, text_col, text2_col, label_col),
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
    chosen = flags.load(profile, set_, values, default="demo", uses={"taggers"})
    wish = stage.Wish(run_dir, shard, resume, force, dry_run)
    _make("lite", ["lite"], chosen, wish, output)


@app.command(epilog=flags.example("kd transfer heavy --profile sst2 --data-dir data/SST-2 --num-samples 800000"))
def heavy(
    profile: flags.ProfileName = None,
    set_: flags.Set = None,
    data_dir: flags.DataDir = None,
    text_col: flags.TextCol = None,
    text2_col: flags.Text2Col = None,
    label_col: flags.LabelCol = None,
    generator: flags.GeneratorName = None,
    num_samples: flags.NumSamples = None,
    top_k: flags.TopK = None,
    top_p: flags.TopP = None,
    sample_temperature: flags.SampleTemperature = None,
    epochs: flags.GeneratorEpochs = None,
    max_steps: flags.MaxSteps = None,
    lr: flags.GeneratorLr = None,
    max_length: flags.GeneratorMaxLength = None,
    output: flags.MaybeOutput = None,
    run_dir: flags.RunDir = None,
    force: flags.Force = False,
    seed: flags.Seed = None,
    device: flags.Device = None,
    precision: flags.Precision = None,
    batch_size: flags.SampleBatchSize = None,
    shard: flags.ShardOf = None,
    offline: flags.Offline = False,
    resume: flags.Resume = "auto",
    only: flags.Step = None,
    dry_run: flags.DryRun = False,
    track: flags.Track = None,
) -> None:
    """Sample texts from a language model that has learned the task's.

    Four steps: cache the task's texts, fine-tune the generator on them, count what texts begin with (prefixes), sample.
    """
    values = {
        **flags.tables(data_dir, text_col, text2_col, label_col),
        "transfer.method": "heavy",
        "transfer.generator": generator,
        "transfer.heavy.num_samples": num_samples,
        "transfer.heavy.top_k": top_k,
        "transfer.heavy.top_p": top_p,
        "transfer.heavy.temperature": sample_temperature,
        "transfer.heavy.batch_size": batch_size,
        "seed": seed,
        "device": device,
        "precision": precision,
    }
    recipe = {"epochs": epochs, "max_steps": max_steps, "lr": lr, "max_length": max_length}
    if any(value is not None for value in recipe.values()):  # the generator's own options, by its name
        name = _generator(profile, set_, values)
        values |= {f"generators.{name}.{option}": value for option, value in recipe.items()}
    chosen = flags.load(profile, set_, values, default="demo", uses={"generators"})
    wish = stage.Wish(run_dir, shard, resume, force, dry_run, track)
    if only in ("cache", "fine-tune", "prefixes"):
        made = {"cache": "cache", "fine-tune": "generator", "prefixes": "prefixes"}[only]
        stage.run([only], chosen, wish, outputs={made: output}, describe=DESCRIBE)
    else:
        _make("heavy", [only] if only else ["cache", "fine-tune", "prefixes", "sample"], chosen, wish, output)


@app.command(epilog=flags.example("kd transfer corpus --profile sst2 --data-dir data/SST-2 --input reviews.txt"))
def corpus(
    profile: flags.ProfileName = None,
    set_: flags.Set = None,
    data_dir: flags.DataDir = None,
    text_col: flags.TextCol = None,
    text2_col: flags.Text2Col = None,
    label_col: flags.LabelCol = None,
    input_: flags.Files = None,
    column: flags.Columns = None,
    num_samples: flags.NumTexts = None,
    order_by: flags.OrderBy = None,
    generator: flags.GeneratorName = None,
    output: flags.MaybeOutput = None,
    run_dir: flags.RunDir = None,
    force: flags.Force = False,
    seed: flags.Seed = None,
    device: flags.Device = None,
    precision: flags.Precision = None,
    offline: flags.Offline = False,
    resume: flags.Resume = "auto",
    dry_run: flags.DryRun = False,
) -> None:
    """Take unlabelled texts of your own: cleaned, without duplicates, the nearest to the task first if asked.

    With --order-by lm, the generator is fine-tuned first, as in transfer heavy.
    """
    values = {
        **flags.tables(data_dir, text_col, text2_col, label_col),
        "transfer.method": "corpus",
        "transfer.generator": generator,
        "transfer.corpus.files": input_ or None,
        "transfer.corpus.columns": column or None,
        "transfer.corpus.num_samples": num_samples,
        "transfer.corpus.order_by": order_by,
        "seed": seed,
        "device": device,
        "precision": precision,
    }
    chosen = flags.load(profile, set_, values, default="demo", uses={"generators"})
    wish = stage.Wish(run_dir, None, resume, force, dry_run)
    nearest = chosen.settings.transfer.corpus.order_by == "lm"
    _make("corpus", ["cache", "fine-tune", "corpus"] if nearest else ["corpus"], chosen, wish, output)


def _make(method: str, steps: list[str], chosen: Profile, wish: stage.Wish, output: Path | None) -> None:
    """Make the set of a method, and with it the transfer set of the run, unless it is to lie elsewhere."""
    names = steps if output else [*steps, "mix"]
    stage.run(names, chosen, wish, outputs={method: output}, describe=DESCRIBE)


def _generator(profile: str | None, set_: list[str] | None, values: dict[str, Any]) -> str:
    """Return the name that the generator's options stand under."""
    from kdcli import registry
    from kdcli.config.load import load_profile

    chosen = load_profile(profile or "demo", sets=set_ or (), flags=values, uses={"generators"})
    return registry.table_name(chosen.settings.transfer.generator)


def _cached(result: dict[str, Any]) -> RenderableType:
    return stage.panel("cache", result)


def _fine_tuned(result: dict[str, Any]) -> RenderableType:
    metrics = {name.replace("_", " "): _figure(value) for name, value in result["metrics"].items()}
    return stage.panel("fine-tune", {"generator": result["generator"], "texts": result["texts"], **metrics})


def _figure(value: Any) -> int | str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, int) else str(value)


def _prefixes(result: dict[str, Any]) -> RenderableType:
    rows = {"training texts": result["texts"], **{f"different {name}": size for name, size in result["sizes"].items()}}
    first = {f"first {name}": ", ".join(map(repr, values)) for name, values in result["first"].items()}
    return stage.panel("prefixes", rows | first)


def _sampled(result: dict[str, Any]) -> RenderableType:
    rows = {name.replace("_", " "): value for name, value in result.items() if isinstance(value, int)}
    rejected = {f"rejected: {reason}": count for reason, count in result["rejected"].items()}
    panel = stage.panel("sample", rows | rejected | {"new texts of all draws": f"{result['acceptance']:.1%}"})
    return Group(panel, _novelty(result["novelty"]))


def _novelty(found: dict[str, Any]) -> RenderableType:
    table = ui.columns("", "samples", "train", numbers=2)
    for n in (1, 2, 3):
        ours, theirs = found[f"equal_distinct_{n}"], found[f"equal_train_distinct_{n}"]
        table.add_row(f"distinct-{n}, equal number of words", f"{ours:.3f}", f"{theirs:.3f}")
    table.add_row("words a text", f"{found['mean_length']:.1f}", f"{found['train_mean_length']:.1f}")
    for words, share in found["lengths"].items():
        if share or found["train_lengths"][words]:
            table.add_row(f"  {words} words", f"{share:.1%}", f"{found['train_lengths'][words]:.1%}")
    rows = {"occur in train": f"{found['in_train']:.2%}"}
    if found["bits_per_character"] is not None:
        rows["bits per character of samples"] = f"{found['bits_per_character']:.3f}"
    return stage.panel("novelty", rows, Text(""), table, Text(""), *(Text(text, "dim") for text in found["examples"]))


def _taken(result: dict[str, Any]) -> RenderableType:
    rows = {name.replace("_", " "): value for name, value in result.items() if isinstance(value, int)}
    return stage.panel("transfer corpus", rows, Text(""), *(Text(str(text), "dim") for text in result["examples"]))


def _fabricated(result: dict[str, Any]) -> RenderableType:
    examples = ui.columns("rules", "before", "after")
    for example in result["examples"]:
        rules = example["rules"] if isinstance(example["rules"], str) else ", ".join(example["rules"])
        examples.add_row(Text(rules, "dim"), Text(example["before"]), Text(example["after"]))
    rows = {name: value for name, value in result.items() if isinstance(value, int)}
    rows |= result["counts"]
    shown = {name.replace("_", " "): value for name, value in rows.items()}
    return stage.panel("transfer lite", {**shown, "drop rate": f"{result['drop_rate']:.1%}"}, Text(""), examples)


DESCRIBE: dict[str, stage.Describe] = {
    "lite": _fabricated,
    "cache": _cached,
    "fine-tune": _fine_tuned,
    "prefixes": _prefixes,
    "sample": _sampled,
    "corpus": _taken,
}
"""What is shown of each step."""
