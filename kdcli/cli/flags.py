"""Every flag, once: the same word, type and help in every command.

A flag that overrides a setting defaults to None, which leaves the setting as the profile has it; its help names that
setting and the setting's default. Stage and shard are plain texts here, which the pipeline and the parts check.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kdcli.cli import complete, ui
from kdcli.errors import UsageError
from kdcli.registry import GROUPS, Group

if TYPE_CHECKING:
    from kdcli.config.load import Profile
    from kdcli.config.schema import Settings

SETTINGS, FILES, MACHINE, RUN = "Settings", "Files", "Machine", "Run"
RULES, SAMPLING, TRAINING, DISTILLATION = "Rules", "Sampling", "Training", "Distillation"


def load(
    profile: str | None,
    sets: Sequence[str] | None,
    flags: Mapping[str, Any],
    *,
    default: str | None = None,
    uses: Collection[Group] = GROUPS,
) -> Profile:
    """Load the profile of a command, with its flags on top.

    Args:
        profile: The value of ``--profile``.
        sets: The values of ``--set``.
        flags: The values of the flags that override settings, by dotted key; None where one was not given.
        default: The profile that stands in when none is given.
        uses: The groups of plugins that the command needs: of others, none has to be there.

    Raises:
        UsageError: ``--data-dir`` without a profile that says what the task is.
        KdError: As ``load_profile``.
    """
    from kdcli.config.load import load_profile

    if profile is None and flags.get("task.data_dir") is not None:
        hint = "add --profile sst2, for example; `kd profile list` names them"
        raise UsageError("--data-dir needs a profile, which says what the task is", hint=hint)
    loaded = load_profile(profile or default, sets=sets or (), flags=flags, uses=uses)
    for warning in loaded.warnings:
        ui.warn(warning)
    return loaded


def load_for_model(profile: str | None, sets: Sequence[str] | None, flags: Mapping[str, Any]) -> Settings:
    """Load the settings of a command whose model says what the task is, and its plugin, where no profile does.

    Raises:
        UsageError: ``--data-dir`` without a profile.
        KdError: As ``load_profile``.
    """
    if profile is None:
        flags = {**flags, "task.metric": "pearson"}  # fits a task without labels: those are the model's own
    return load(profile, sets, flags, uses=()).settings


def own_profile(model: Path) -> str | None:
    """Return the profile of the run that a model is named by, or lies in."""
    from kdcli.run.places import profile_of

    own = profile_of(model)
    return None if own is None else str(own)


def tables(data_dir: str | None, text: str | None, text2: str | None, label: str | None) -> dict[str, Any]:
    """Return the settings of the flags that say where the task's tables lie, and in which columns.

    Raises:
        UsageError: A second text without a first.
    """
    if text2 is not None and text is None:
        raise UsageError("--text2-col needs --text-col", hint="name the columns of both texts of a pair")
    return {
        "task.data_dir": data_dir,
        "task.text_columns": [column for column in (text, text2) if column is not None] or None,
        "task.kind": "pair" if text2 is not None else None,
        "task.label_column": label,
    }


def example(*lines: str) -> str:
    """Return what a command's help ends with."""
    return "\n\n".join(f"[bold]Example[/bold]  {line}" for line in lines)


def _stay_offline(offline: bool) -> bool:
    """Set what the Hugging Face libraries look at; they have not been imported yet."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    return offline


def _option(panel: str, *names: str, help: str, default: str | None = None, **more: Any) -> Any:
    shown: bool | str = default if default is not None else False
    return typer.Option(*names, help=help, show_default=shown, rich_help_panel=panel, **more)


def switch(*names: str, help: str, panel: str = "Options", **more: Any) -> Any:
    """Return a flag that takes no value: ``--x``, or ``--x/--no-x`` with the default shown."""
    default = "no" if "/" in names[0] else None
    return _option(panel, *names, help=help, default=default, metavar="", **more)


ProfileName = Annotated[
    str | None,
    _option(
        SETTINGS,
        "--profile",
        "-p",
        help="Profile: a name, or a .toml file.",
        metavar="NAME|FILE",
        autocompletion=complete.profile,
    ),
]
Set = Annotated[
    list[str] | None,
    _option(SETTINGS, "--set", "-s", help="Override a setting: student.lr=0.5. Repeat it.", metavar="KEY=VALUE"),
]
DataDir = Annotated[
    str | None,
    _option(
        SETTINGS,
        "--data-dir",
        help="Folder with train, dev and test tables; needs a profile.",
        default="task.data_dir",
        metavar="FOLDER",
    ),
]
TextCol = Annotated[
    str | None,
    _option(
        SETTINGS, "--text-col", help="Column of the texts, or of a pair's first.", default="known", metavar="COLUMN"
    ),
]
Text2Col = Annotated[
    str | None,
    _option(SETTINGS, "--text2-col", help="Column of a pair's second text.", default="known", metavar="COLUMN"),
]
LabelCol = Annotated[
    str | None, _option(SETTINGS, "--label-col", help="Column of the labels.", default="known", metavar="COLUMN")
]

_INPUT = _option(FILES, "--input", "-i", help="Table to read: .tsv .csv .jsonl .parquet .txt, each with .gz or not.")
Input = Annotated[Path, _INPUT]
MaybeInput = Annotated[Path | None, _INPUT]
_OUTPUT = _option(FILES, "--output", "-o", help="What to write; a table's form is its suffix.")
Output = Annotated[Path, _OUTPUT]
MaybeOutput = Annotated[Path | None, _OUTPUT]
RunDir = Annotated[Path | None, _option(FILES, "--run-dir", help="Folder of the run.", default="runs/PROFILE")]
Force = Annotated[bool, switch("--force/--no-force", "-f", help="Replace output that is there.", panel=FILES)]

Seed = Annotated[
    int | None, _option(MACHINE, "--seed", help="Seed of every random draw.", default="seed, 1", min=0, metavar="N")
]
Device = Annotated[
    str | None,
    _option(MACHINE, "--device", help="Where to compute.", default="device, auto", metavar="auto|cpu|cuda|cuda:N|mps"),
]
Precision = Annotated[
    Literal["fp32", "bf16", "fp16"] | None,
    _option(MACHINE, "--precision", help="Arithmetic of teacher and generator.", default="precision, fp32"),
]
BatchSize = Annotated[
    str | None,
    _option(
        MACHINE,
        "--batch-size",
        help="Texts a batch; auto: the largest that fits.",
        default="teacher.batch_size, 32; teacher.export.batch_size, 64",
        metavar="N|auto",
    ),
]
StudentBatchSize = Annotated[
    int | None,
    _option(MACHINE, "--batch-size", help="Texts a batch.", default="student.batch_size, 50", min=1, metavar="N"),
]
Workers = Annotated[
    int | None,
    _option(
        MACHINE,
        "--workers",
        help="Processes; 0: one a core.",
        default="transfer.lite.workers, 0",
        min=0,
        metavar="N",
    ),
]
ShardOf = Annotated[
    str | None,
    _option(MACHINE, "--shard", help="Do share I of N, counted from 0.", default="RANK/WORLD_SIZE, 0/1", metavar="I/N"),
]
Offline = Annotated[
    bool,
    switch(
        "--offline/--no-offline",
        help="Download nothing: models come from folders or the cache.",
        panel=MACHINE,
        callback=_stay_offline,
    ),
]

Epochs = Annotated[
    int | None,
    _option(
        TRAINING,
        "--epochs",
        help="Passes over the texts.",
        default="teacher.epochs, 3; student.epochs, 30",
        min=1,
        metavar="N",
    ),
]
MaxSteps = Annotated[
    int | None,
    _option(TRAINING, "--max-steps", help="Stop after N updates; 0: no limit.", default="0", min=0, metavar="N"),
]
Lr = Annotated[
    float | None,
    _option(TRAINING, "--lr", help="Learning rate.", default="teacher.lr, 2e-05; student.lr, 1.0", metavar="RATE"),
]
MaxLength = Annotated[
    int | None,
    _option(
        TRAINING,
        "--max-length",
        help="Cut longer texts: a teacher's in word pieces, a student's in words.",
        default="128",
        min=1,
        metavar="N",
    ),
]

Temperature = Annotated[
    float | None,
    _option(
        DISTILLATION,
        "--temperature",
        "-T",
        help="Temperature of the KL divergence.",
        default="student.temperature, 1.0",
        metavar="T",
    ),
]
KdLoss = Annotated[
    Literal["mse", "kl"] | None,
    _option(DISTILLATION, "--kd-loss", help="Distance of the logits.", default="student.kd_loss, mse"),
]
KdWeight = Annotated[
    float | None,
    _option(
        DISTILLATION,
        "--kd-weight",
        help="Weight of the distillation loss.",
        default="student.kd_weight, 1.0",
        min=0,
        metavar="WEIGHT",
    ),
]
CeWeight = Annotated[
    float | None,
    _option(
        DISTILLATION,
        "--ce-weight",
        help="Weight of the cross entropy with the label.",
        default="student.ce_weight, 0.0",
        min=0,
        metavar="WEIGHT",
    ),
]
Label = Annotated[
    Literal["teacher", "gold"] | None,
    _option(DISTILLATION, "--label", help="Label of original rows.", default="join.label, teacher"),
]

NIter = Annotated[
    int | None,
    _option(
        RULES,
        "--n-iter",
        help="Fabricated texts for each training text.",
        default="transfer.lite.n_iter, 20",
        min=0,
        metavar="N",
    ),
]
PMask = Annotated[
    float | None,
    _option(
        RULES,
        "--p-mask",
        help="Probability that a word becomes [MASK].",
        default="transfer.lite.p_mask, 0.1",
        min=0,
        max=1,
        metavar="P",
    ),
]
PPos = Annotated[
    float | None,
    _option(
        RULES,
        "--p-pos",
        help="Probability that a word becomes another of its part of speech.",
        default="transfer.lite.p_pos, 0.1",
        min=0,
        max=1,
        metavar="P",
    ),
]
PNgram = Annotated[
    float | None,
    _option(
        RULES,
        "--p-ngram",
        help="Probability that only an n-gram of the text is kept.",
        default="transfer.lite.p_ngram, 0.25",
        min=0,
        max=1,
        metavar="P",
    ),
]
Ngram = Annotated[
    str | None,
    _option(
        RULES,
        "--ngram",
        help="Shortest and longest n-gram, in words.",
        default="transfer.lite.ngram, 1:5",
        metavar="LOW:HIGH",
    ),
]
TaggerName = Annotated[
    str | None,
    _option(
        RULES,
        "--tagger",
        help="Part-of-speech tagger.",
        default="transfer.lite.tagger, pattern",
        metavar="NAME",
        autocompletion=complete.tagger,
    ),
]

GeneratorName = Annotated[
    str | None,
    _option(
        SAMPLING,
        "--generator",
        help="Generator plugin.",
        default="transfer.generator, gpt2",
        metavar="NAME",
        autocompletion=complete.generator,
    ),
]
NumSamples = Annotated[
    int | None,
    _option(
        SAMPLING,
        "--num-samples",
        help="New texts to make.",
        default="transfer.heavy.num_samples, 800000",
        min=1,
        metavar="N",
    ),
]
TopK = Annotated[
    int | None,
    _option(
        SAMPLING,
        "--top-k",
        help="Draw among the K likeliest tokens; 0: all.",
        default="transfer.heavy.top_k, 0",
        min=0,
        metavar="K",
    ),
]
TopP = Annotated[
    float | None,
    _option(
        SAMPLING,
        "--top-p",
        help="Draw among the likeliest tokens of probability P together; 1: all.",
        default="transfer.heavy.top_p, 1.0",
        metavar="P",
    ),
]
SampleTemperature = Annotated[
    float | None,
    _option(
        SAMPLING,
        "--sample-temperature",
        help="Temperature of sampling.",
        default="transfer.heavy.temperature, 1.0",
        metavar="T",
    ),
]
SampleBatchSize = Annotated[
    str | None,
    _option(
        MACHINE,
        "--batch-size",
        help="Texts sampled at once; auto: the largest that fits.",
        default="transfer.heavy.batch_size, auto",
        metavar="N|auto",
    ),
]
GeneratorEpochs = Annotated[
    int | None,
    _option(
        TRAINING,
        "--epochs",
        help="Passes over the task's texts.",
        default="generators.NAME.epochs",
        min=1,
        metavar="N",
    ),
]
GeneratorLr = Annotated[
    float | None,
    _option(TRAINING, "--lr", help="Learning rate.", default="generators.NAME.lr", metavar="RATE"),
]
GeneratorMaxLength = Annotated[
    int | None,
    _option(
        TRAINING,
        "--max-length",
        help="Longest text in tokens; longer ones are cut in training, and rejected in sampling.",
        default="generators.NAME.max_length",
        min=2,
        metavar="N",
    ),
]
Files = Annotated[
    list[str] | None,
    _option(
        FILES,
        "--input",
        "-i",
        help="File of texts: one a line (.txt), or a table. Repeat it.",
        default="transfer.corpus.files",
        metavar="FILE",
    ),
]
Columns = Annotated[
    list[str] | None,
    _option(
        FILES,
        "--column",
        help="Text column of those tables, by default the task's; twice for pairs.",
        default="transfer.corpus.columns",
        metavar="NAME",
    ),
]
NumTexts = Annotated[
    int | None,
    _option(
        SAMPLING,
        "--num-samples",
        help="Texts to take; 0: all.",
        default="transfer.corpus.num_samples, 0",
        min=0,
        metavar="N",
    ),
]
OrderBy = Annotated[
    Literal["none", "tfidf", "lm"] | None,
    _option(
        SAMPLING,
        "--order-by",
        help="Take texts at random, or those nearest to the task: by TF-IDF, or by the generator.",
        default="transfer.corpus.order_by, none",
    ),
]
Step = Annotated[
    Literal["cache", "fine-tune", "prefixes", "sample"] | None,
    _option(RUN, "--only", help="The one step to run.", default="all four"),
]

Resume = Annotated[
    Literal["auto", "never"],
    _option(RUN, "--resume", help="Go on where a killed run stopped, or start again.", default="auto"),
]
DryRun = Annotated[
    bool, switch("--dry-run/--no-dry-run", "-n", help="Say what would run, and why; run nothing.", panel=RUN)
]
From = Annotated[str | None, _option(RUN, "--from", help="First stage to run.", default="the first", metavar="STAGE")]
Until = Annotated[str | None, _option(RUN, "--until", help="Last stage to run.", default="the last", metavar="STAGE")]
Only = Annotated[str | None, _option(RUN, "--only", help="The one stage to run.", metavar="STAGE")]
Seeds = Annotated[
    int,
    _option(
        RUN,
        "--seeds",
        help="Train baseline and student N times, each with its own seed.",
        default="1",
        min=1,
        metavar="N",
    ),
]
Track = Annotated[
    str | None,
    _option(
        RUN,
        "--track",
        help="Send the learning curves to trackers too, beside metrics.jsonl.",
        metavar="tensorboard,wandb",
    ),
]

_STUDENT = _option(FILES, "--student", help="Student: its folder, or that of a run.", metavar="FOLDER")
StudentOrRun = Annotated[Path, _STUDENT]
MaybeStudentOrRun = Annotated[Path | None, _STUDENT]
TeacherOrRun = Annotated[
    str | None,
    _option(
        FILES,
        "--teacher",
        help="Fine-tuned teacher: its folder, that of a run, or a hub name.",
        default="the run's",
        metavar="FOLDER|NAME",
    ),
]
