"""What the tables of settings are made of: the types of values, and the option on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Metric = Literal[
    "accuracy", "f1", "mcc", "macro_f1", "balanced_accuracy", "micro_f1", "subset_accuracy", "pearson", "spearman"
]
BatchSize = Annotated[int, Field(ge=1)] | Literal["auto"]
Probability = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


def metrics_of(labels: bool, multi_label: bool) -> tuple[str, ...]:
    """Return the metrics that fit a task with labels, with sets of labels, or with neither: of scores."""
    if multi_label:
        return "micro_f1", "macro_f1", "subset_accuracy"
    return ("accuracy", "f1", "mcc", "macro_f1", "balanced_accuracy") if labels else ("pearson", "spearman")


@dataclass(frozen=True)
class Flag:
    """The option of a setting; its names are by default the setting's own with dashes."""

    panel: str
    metavar: str | None = None
    names: tuple[str, ...] = ()
    plugins: Literal["generators", "students", "taggers"] | None = None


class Table(BaseModel):
    """A table of a profile: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, defer_build=True
    )
