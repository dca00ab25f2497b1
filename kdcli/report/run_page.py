"""The page of one run: its sections, their tables and plots."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scipy.special import softmax

from kdcli.api import Task
from kdcli.report import plots
from kdcli.report.collect import Run
from kdcli.report.curves import Curve
from kdcli.report.predictions import MODELS, MOST, Predictions
from kdcli.report.transfer_set import Sample, TransferSet


@dataclass(frozen=True)
class Plot:
    """A plot, and what stands below it."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor and its heading."""

    id: str
    title: str


SECTIONS = (
    Section("results", "Results"),
    Section("speed", "Speed"),
    Section("curves", "Learning curves"),
    Section("transfer", "Transfer set"),
    Section("samples", "Samples"),
    Section("confusion", "Predictions"),
    Section("disagreements", "Disagreements"),
    Section("profile", "Profile"),
    Section("provenance", "Provenance"),
)
ON_REQUEST = ("speed",)
"""What no run comes to by itself."""


def contents(run: Run) -> dict[str, Any]:
    """Return what the template needs to show a run; what the run does not have yet is left out."""
    there = {
        "results": bool(run.results),
        "speed": run.bench is not None,
        "curves": bool(run.curves),
        "transfer": run.transfer is not None,
        "samples": run.transfer is not None,
        "confusion": bool(run.predictions),
        "disagreements": bool(run.predictions),
        "profile": True,
        "provenance": bool(run.stages),
    }
    return {
        "run": run,
        "sections": [section for section in SECTIONS if there[section.id]],
        "left_out": [section for section in SECTIONS if not there[section.id] and section.id not in ON_REQUEST],
        "summary": summary(run),
        "models": {row["model"]: row for row in run.results["rows"]} if run.results else {},
        "scored": scored(run.results) if run.results else [],
        "plots": {
            "results": [_tradeoff(run)] if run.results else [],
            "curves": list(_curves(run)),
            "transfer": list(_transfer(run.transfer, run.task)) if run.transfer else [],
            "confusion": [list(_scatters(table)) for table in run.predictions] if run.task.is_score else [],
        },
        "samples": [(sample, *_answer(sample, run.task)) for sample in run.transfer.samples] if run.transfer else [],
        "partings": sorted(
            ((table.table, parting) for table in run.predictions for parting in table.partings),
            key=lambda pair: -pair[1].gap,
        ),
        "seeds": max((len(values) for *_, values in _all_scores(run)), default=1),
        "most": MOST,
        "made": _made(run),
        "novelty": _result(run, "sample").get("novelty"),
        "rules": _result(run, "lite").get("examples", []),
        "MODELS": MODELS,
    }


def scored(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the tables and metrics that were scored, in order."""
    return [(table, metric) for table, shares in results["gap_closed"].items() for metric in shares]


def summary(run: Run) -> str:
    """Say in a sentence what came of the run; nothing where there are no results."""
    if not run.results:
        return ""
    rows = {row["model"]: row for row in run.results["rows"]}
    table, metric = scored(run.results)[0]
    score = {model: 100 * statistics.fmean(row["scores"][table][metric]) for model, row in rows.items()}
    share = run.results["gap_closed"][table][metric]
    closed = "" if share is None else f": {100 * share:.0f}\u00a0% of the gap between the two is closed"
    faster = rows["student"]["per_second"] / rows["teacher"]["per_second"]
    smaller = rows["teacher"]["parameters"] / rows["student"]["parameters"]
    return (
        f"The student reaches {score['student']:.1f} {metric} on {table}; its teacher reaches {score['teacher']:.1f}, "
        f"the same model trained on labels alone {score['baseline']:.1f}{closed}. "
        f"The student is {faster:.1f} times as fast as the teacher and has {_times_fewer(smaller)} parameters."
    )


def _times_fewer(ratio: float) -> str:
    return f"{ratio:.1f} times fewer" if ratio >= 1 else f"{1 / ratio:.1f} times as many"


def _all_scores(run: Run) -> Iterator[tuple[str, str, str, list[float]]]:
    for row in run.results["rows"] if run.results else []:
        for table, scores in row["scores"].items():
            for metric, values in scores.items():
                yield row["model"], table, metric, values


def _tradeoff(run: Run) -> Plot:
    assert run.results
    table, metric = scored(run.results)[0]
    points = {
        row["model"]: (
            row["per_second"],
            100 * statistics.fmean(row["scores"][table][metric]),
            plots.colour_of(row["model"]),
        )
        for row in run.results["rows"]
    }
    svg = plots.tradeoff("tradeoff", points, y=f"{table} {metric}")
    return Plot(svg, f"Score against speed: {metric} on {table}, and texts a second, text in to logits out.")


def _curves(run: Run) -> Iterator[Plot]:
    metric = run.task.metric
    teacher = run.stages["teacher"].result.get("metrics", {}).get(metric) if "teacher" in run.stages else None
    levels = {} if teacher is None else {"teacher": (100 * teacher, plots.colour_of("teacher"))}
    for stage in ("teacher", "generator"):
        curves = [curve for curve in run.curves if curve.stage == stage]
        yield from (_loss(stage, curves),) if curves else ()
        for name in dict.fromkeys(name for curve in curves for name in curve.metrics):
            readable = name.replace("_", " ")
            percent = name == metric  # as in the table
            several = len(curves) > 1
            drawn = [_line(curve, name, at, several=several, percent=percent) for at, curve in enumerate(curves)]
            yield Plot(plots.lines(f"{stage}-{name}", drawn, y=f"dev {readable}"), f"The {stage}'s {readable} on dev.")
    small = [curve for curve in run.curves if curve.stage in ("student", "baseline") and metric in curve.values]
    if small:
        drawn = [_line(curve, metric, percent=True) for curve in small]
        stages = " and ".join(dict.fromkeys(curve.stage for curve in small)).capitalize()
        told = f"{stages} on dev" + (", beside the teacher's best." if levels else ".")
        yield Plot(plots.lines(f"students-{metric}", drawn, y=f"dev {metric}", levels=levels), told)
    for stage in ("student", "baseline"):
        curves = [curve for curve in run.curves if curve.stage == stage]
        yield from (_loss(stage, curves),) if curves else ()


def _loss(stage: str, curves: list[Curve]) -> Plot:
    several = stage in ("teacher", "generator") and len(curves) > 1
    drawn = [
        _line(curve, name, number, several=several, of="dev" if name == "dev_loss" else "training")
        for number, curve in enumerate(curves)
        for name in ("loss", "dev_loss")
        if name in curve.values
    ]
    return Plot(plots.lines(f"{stage}-loss", drawn, y="loss", log=True), f"The {stage}'s loss.")


def _line(
    curve: Curve, name: str, number: int = 0, *, several: bool = False, percent: bool = False, of: str = ""
) -> plots.Line:
    """Make a line of a curve: of several trainings each has its colour, else each stage has; seeds share one."""
    label = " ".join(word for word in (curve.label if several else "" if of else curve.stage, of) if word)
    colour = number if several else plots.colour_of(curve.stage)
    values = [100 * value if percent and value is not None else value for value in curve.values[name]]
    return plots.Line(label, curve.steps, values, colour % len(plots.PALETTE), dashed=of == "dev")


def _made(run: Run) -> dict[str, dict[str, str]]:
    """Return what each method counted while it made its texts, by the caption of its table."""
    found = {}
    lite, heavy, corpus = (_result(run, stage) for stage in ("lite", "sample", "corpus"))
    if lite:
        words = max(1, lite["counts"]["words"])
        counts = {
            "texts fabricated": f"{lite['fabricated']:,}",
            "words that they began with": f"{words:,}",
            **{
                f"of these {told}": f"{lite['counts'][name]:,} ({100 * lite['counts'][name] / words:.1f} %)"
                for name, told in (("words_masked", "masked"), ("words_replaced", "replaced by their part of speech"))
            },
            "texts cut to an n-gram": f"{lite['counts']['texts_cut']:,}",
        }
        found["What the rules of lite did."] = counts | _numbers(lite, "duplicates", "held_out_copies")
    if heavy:
        novelty = heavy["novelty"]
        counts = _numbers(heavy, "draws", "samples", "duplicates", "train_copies", "held_out_copies", "excess")
        counts |= {f"rejected: {reason}": f"{number:,}" for reason, number in heavy["rejected"].items()}
        counts["draws that gave a new text"] = f"{100 * heavy['acceptance']:.1f} %"
        counts["copies of training texts, before they were dropped"] = f"{100 * novelty['in_train']:.1f} %"
        if novelty["bits_per_character"] is not None:
            counts["bits a character under the generator"] = f"{novelty['bits_per_character']:.3f}"
        found["What the generator drew."] = counts
    if corpus:
        found["What was taken from the user's texts."] = _numbers(corpus, *(name for name in corpus if name != "rows"))
    if len((mixed := _result(run, "mix")).get("kept", {})) > 1:
        kept = {f"{name}: kept": f"{number:,}" for name, number in mixed["kept"].items()}
        dropped = {f"{name}: said before": f"{number:,}" for name, number in mixed["dropped"].items()}
        found["How the sets were joined."] = kept | dropped
    return found


_TOLD = {
    "duplicates": "duplicates, dropped",
    "train_copies": "copies of training texts, dropped",
    "held_out_copies": "copies of dev or test texts, dropped",
    "excess": "new texts beyond the number asked for",
}


def _numbers(result: dict[str, Any], *names: str) -> dict[str, str]:
    told = {name: _TOLD.get(name, name.replace("_", " ")) for name in names if isinstance(result[name], int)}
    return {readable: f"{result[name]:,}" for name, readable in told.items()}


def _result(run: Run, stage: str) -> dict[str, Any]:
    """Return what a stage found out; of a method that the profile no longer joins, nothing."""
    methods = str(run.settings.get("transfer.method", "")).split("+")
    method = {"sample": "heavy"}.get(stage, stage)
    there = stage in run.stages and (stage == "mix" or method in methods)
    return run.stages[stage].result if there else {}


def _transfer(found: TransferSet, task: Task) -> Iterator[Plot]:
    yield Plot(plots.lengths("lengths", found.sources), "Lengths: words between white space, both texts of a pair.")
    if not found.labelled:
        return
    if task.is_score:
        yield Plot(plots.score_shares("scores", found.sources), "The teacher's scores, by source.")
    else:
        names = task.names or task.labels
        yield Plot(plots.balance("balance", found.sources, names), "The labels that the teacher gives, by source.")


def _scatters(table: Predictions) -> Iterator[Plot]:
    for model in MODELS:
        score, colour = table.logits[model][:, 0], plots.colour_of(model)
        svg = plots.scatter(f"{table.table}-{model}", table.gold, score, labels=("gold", model), colour=colour)
        yield Plot(svg, f"The {model}'s scores on {table.table} against the gold ones.")
    both = table.logits["teacher"][:, 0], table.logits["student"][:, 0]
    svg = plots.scatter(f"{table.table}-both", *both, labels=("teacher", "student"), colour=4)
    yield Plot(svg, f"The student's scores on {table.table} against the teacher's.")


def _answer(sample: Sample, task: Task) -> tuple[str, float | None]:
    """Return what the teacher says of a sample, and how sure it is: for scores the score itself."""
    if sample.logits is None:
        return "", None
    if task.is_score:
        return f"{sample.logits[0]:.3g}", sample.logits[0]
    probabilities = softmax(sample.logits).tolist()
    best = probabilities.index(max(probabilities))
    return (task.names or task.labels)[best], probabilities[best]
