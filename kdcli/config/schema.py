"""Every setting of ``kd``, once: its name, type, default, help, checks, and its option on the command line.

A profile is one TOML table for each model here. Unknown keys are errors. A setting with a ``Flag`` is an option of the
commands that name it or its table, see ``kdcli.cli.options``; its docstring is the option's help.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from kdcli.config.table import BatchSize, Count, Flag, Metric, Positive, Probability, Rate, Table, Weight, metrics_of
from kdcli.config.transfer import TransferSettings
from kdcli.errors import KdError, ProfileError

_DEVICES = "auto|cpu|cuda|cuda:N|mps"


class TaskSettings(Table):
    """What is classified: columns, labels and the metric."""

    name: str = "custom"
    """Name of the task."""
    kind: Literal["single", "pair"] = "single"
    """One text a row, or two."""
    labels: tuple[str, ...] = ()
    """The classes as the tables write them, in the order of the logits; empty for a score."""
    names: tuple[str, ...] = ()
    """A readable name for each label; a teacher's own label names are matched against labels and names."""
    multi_label: bool = False
    """Whether a text has any number of the labels, `a|b` or a list in the tables; a label is a yes or no of its own."""
    score_range: tuple[float, float] | None = None
    """Lowest and highest score; only without labels."""
    metric: Metric = "accuracy"
    """The dev metric that chooses among models; f1 is that of `positive`, or above two classes the macro average. Of
    multi-label tasks micro_f1, macro_f1 or subset_accuracy; of scores pearson or spearman."""
    more_metrics: tuple[Metric, ...] = ()
    """Further metrics of the results table."""
    positive: str = ""
    """The label that F1 is about, of two; by default the second. Of more labels F1 is the macro average."""
    drop_labels: tuple[str, ...] = ()
    """Rows with one of these in place of a label are dropped, and counted: `-` where MNLI's annotators disagree."""
    student_of: str = ""
    """Profile whose student predicts this task, which has no training set of its own."""
    data_dir: Annotated[str, Flag("Settings", "FOLDER")] = ""
    """Folder with train, dev and (optionally) test tables; `kd:sample` is the embedded sample."""
    layout: str = "auto"
    """Layout of the tables: `auto` recognises it, or name one of the GLUE layouts; of a .txt `lines` or `fasttext`."""
    text_columns: tuple[str, ...] = ()
    """Names of the text columns, where the layout is your own; c0, c1, ... in a table without a header."""
    gold: bool = True
    """Whether the tables have gold labels; without them the teacher's answers choose among models and are compared."""
    label_column: Annotated[str, Flag("Settings", "COLUMN", ("--label-col",))] = ""
    """Name of the label column, where the layout is your own."""
    label_columns: tuple[str, ...] = ()
    """Columns with 0 or 1 in its place, one a label, of a multi-label task; by default those named like the labels."""
    bad_rows: Literal["error", "skip"] = "error"
    """Ragged rows: stop at the first, or skip and count them."""
    quoting: Literal["auto", "csv", "escaped", "none"] = "auto"
    """Quotes around the fields of .tsv and .csv; `auto`: of a .csv, and of a .tsv (not GLUE's) where all quotes fit.

    `escaped`: a quote inside a field has a backslash before it, as Spark and MySQL write it.
    """
    separator: Annotated[str, Field(pattern=r"^(auto|[\x00-\t\x0b\x0c\x0e-!#-\x7f])$")] = "auto"
    """What separates the fields of a .csv, an ASCII character; `auto`: the comma, semicolon or tab that its first line
    has most of."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.labels) == 1 or len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must be two or more different names, or none for a score")
        if self.names and len(self.names) != len(self.labels):
            raise ValueError(f"names must be as many as labels ({len(self.labels)})")
        if self.labels and self.score_range:
            raise ValueError("a task has labels or a score_range, not both")
        if self.positive and (len(self.labels) != 2 or self.positive not in self.labels):
            raise ValueError(f"positive is one of two labels, not {self.positive!r}")
        if self.multi_label and not self.labels:
            raise ValueError("multi_label needs labels")
        if self.label_columns and not (self.multi_label and len(self.label_columns) == len(self.labels)):
            raise ValueError("label_columns are as many as labels, of a task with multi_label = true")
        if self.multi_label and (wrong := [label for label in self.labels if not label.strip() or "|" in label]):
            raise ValueError(f"a label of a multi-label task is not empty and has no |: {wrong[0]!r}")
        for metric in (self.metric, *self.more_metrics):
            if metric not in (fitting := metrics_of(bool(self.labels), self.multi_label)):
                kind = "a multi-label task" if self.multi_label else "a task with labels" if self.labels else "scores"
                raise ValueError(f"metric {metric} is none of {kind}: {', '.join(fitting)}")
        if both := set(self.labels) & set(self.drop_labels):
            raise ValueError(f"drop_labels has {min(both)!r}, which is one of the labels")
        if self.text_columns and len(self.text_columns) != (1 if self.kind == "single" else 2):
            raise ValueError(f"text_columns must name {'one column' if self.kind == 'single' else 'two columns'}")
        return self


class ExportSettings(Table):
    """The teacher's logits for the transfer set."""

    batch_size: Annotated[BatchSize, Flag("Machine", "N|auto")] = 64
    """Texts in a batch, sorted by length; `auto` finds the largest that fits."""
    precision: Annotated[Literal["fp32", "bf16", "fp16"] | None, Flag("Machine")] = None
    """Precision of this stage alone; by default the profile's."""


class TeacherSettings(Table):
    """The teacher: any Hugging Face encoder."""

    model: str = "bert-large-uncased"
    """Hub name or folder of the encoder; `config` builds one from `teacher.config` instead."""
    plugin: str = "transformers"
    """Teacher plugin, which loads the model; its own options are the table [teachers.NAME]."""
    train: bool = True
    """Fine-tune the model; false: it is fine-tuned already."""
    config: dict[str, Any] = Field(default_factory=dict)
    """With model = "config": a Hugging Face configuration (`model_type`, sizes) trained from scratch."""
    vocab_size: Positive = 8000
    """With model = "config": size of the WordPiece vocabulary trained on the training texts."""
    lr: Annotated[Rate | tuple[Rate, ...], Flag("Training", "RATE")] = 2e-5
    """Learning rate, or several: the best on dev is kept."""
    epochs: Annotated[Positive, Flag("Training", "N")] = 3
    """Passes over the training set."""
    max_steps: Annotated[Count, Flag("Training", "N")] = 0
    """Stop after this many updates; 0 = no limit."""
    batch_size: Annotated[BatchSize, Flag("Machine", "N|auto")] = 32
    """Texts in an update; `auto` is 32, and fewer go at once if memory runs out (their gradients add up)."""
    max_length: Annotated[Count, Flag("Training", "N")] = 0
    """Longest input in word pieces; longer ones are cut and counted; 0 = the model's own limit."""
    long_texts: Literal["cut", "mean", "max"] = "cut"
    """A text that is longer: cut it, or read it in windows, of whose logits the mean or the largest counts."""
    weight_decay: Weight = 0.01
    """AdamW's weight decay."""
    warmup: Probability = 0.1
    """Share of the updates over which the learning rate rises."""
    max_rows: Count = 0
    """Train on this many rows, drawn at random; 0 = all."""
    save_steps: Count = 0
    """Updates between resume points; 0 = at the end of each epoch."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the rows in the fine-tuning; `balanced`: rows / (classes x rows of its class), for rare classes."""
    export: ExportSettings = Field(default_factory=ExportSettings)


class JoinSettings(Table):
    """The teacher's logits beside the texts."""

    label: Annotated[Literal["teacher", "gold"], Flag("Distillation")] = "teacher"
    """Label of original rows: the teacher's choice, or their own. Fabricated rows take the teacher's."""
    values: Annotated[Literal["auto", "logits", "probabilities", "percentages"], Flag("Distillation")] = "auto"
    """What a file of another tool holds; `auto`: rows that sum to 1 are probabilities, and unclear files an error."""
    rescale: Annotated[bool, Flag("Distillation")] = False
    """Bring the teacher's scores to the mean and the spread of the gold ones."""


class StudentSettings(Table):
    """The student and its training."""

    model: str = "bilstm"
    """Student plugin; its own options are the table [students.NAME]."""
    max_size: Positive = 15_000
    """Largest vocabulary: special tokens, pieces of words, the words of the joined set, others that have vectors."""
    min_freq: Positive = 1
    """Occurrences a word needs to enter the vocabulary."""
    lowercase: bool = True
    """Lower-case texts."""
    word_pieces: bool = False
    """Read a word outside the vocabulary in the pieces of the encoder that makes the vectors; else as [MASK]."""
    max_length: Annotated[Positive, Flag("Training", "N")] = 128
    """Longest text in words, or their pieces; longer ones are cut."""
    vectors: str = ""
    """Word vectors: a word2vec, GloVe, fastText or Parquet file, `teacher` or an encoder (its vectors), or none."""
    dimension: Positive = 300
    """Size of a word vector; a vector file brings its own."""
    kd_loss: Annotated[Literal["mse", "kl", "bce"], Flag("Distillation")] = "mse"
    """Distance of the logits: mean squared error (of classes centred ones), or KL divergence at a temperature (times T
    squared); of multi-label tasks mse, or the cross entropy with the teacher's probabilities of each label (bce)."""
    kd_weight: Annotated[Weight, Flag("Distillation", "WEIGHT")] = 1.0
    """Weight of the distillation loss."""
    ce_weight: Annotated[Weight, Flag("Distillation", "WEIGHT")] = 0.0
    """Weight of the cross entropy with the label."""
    repr_weight: Annotated[Weight, Flag("Distillation", "WEIGHT")] = 0.0
    """Weight of the squared error of the teacher's representation (in units of the logits' variance), which a layer for
    training alone predicts."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the rows in that cross entropy, the baseline's too; `balanced`: as of the teacher."""
    temperature: Annotated[Rate, Flag("Distillation", "T", ("--temperature", "-T"))] = 1.0
    """Temperature of the KL divergence."""
    optimizer: Literal["adadelta", "adam", "adamw"] = "adadelta"
    """Optimiser."""
    lr: Annotated[Rate | Literal["auto"], Flag("Training", "RATE")] = "auto"
    """Learning rate; `auto` is the optimiser's own: 1.0 for AdaDelta, 0.001 for the others."""
    decay: Literal["none", "linear"] = "none"
    """The learning rate over the training: constant, or falling to 0 in a straight line."""
    rho: Probability = 0.95
    """AdaDelta's decay."""
    weight_decay: Weight = 0.0
    """Weight decay of Adam (L2) and AdamW (decoupled)."""
    batch_size: Annotated[Positive, Flag("Machine", "N")] = 50
    """Texts in an update, of similar lengths."""
    epochs: Annotated[Positive, Flag("Training", "N")] = 30
    """Passes over the joined set."""
    max_steps: Annotated[Count, Flag("Training", "N")] = 0
    """Stop after this many updates; 0 = no limit."""
    patience: Count = 5
    """Stop after this many evaluations without a better dev score; 0 = never."""
    clip: Weight = 0.0
    """Largest norm of the gradient; 0 = no clipping."""
    ema: Probability = 0.0
    """Decay of an exponential moving average of the weights, which is what is scored and kept; 0 = the weights."""
    eval_steps: Count = 0
    """Updates between dev evaluations and resume points; 0 = at the end of each epoch."""

    @property
    def learning_rate(self) -> float:
        """The learning rate as a number."""
        own = 1.0 if self.optimizer == "adadelta" else 1e-3
        return own if self.lr == "auto" else self.lr


class DeferralSettings(Table):
    """Which texts a student leaves to its teacher."""

    calibrate: bool = False
    """Calibrate the student on the test texts that the results are compared on; no label of theirs is needed."""
    agree: Annotated[float, Field(gt=0, lt=1), Flag("Settings", "SHARE", ("--agree",))] = 0.98
    """The student answers only what it is sure of: at most 1 - agree of all texts otherwise than the teacher; that it
    never differs (1) cannot be promised."""
    tolerance: Weight = 0.0
    """Of scores: how far student and teacher may lie apart and still agree; without it they are not calibrated."""


class Settings(Table):
    """A whole profile."""

    seed: Annotated[Count, Flag("Machine", "N")] = 1
    """Seed of every random draw."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$"), Flag("Machine", _DEVICES)] = "auto"
    """Where to compute: auto, cpu, cuda, cuda:N or mps; `auto` takes a GPU where there is one."""
    precision: Annotated[Literal["fp32", "bf16", "fp16"], Flag("Machine")] = "fp32"
    """Arithmetic of the teacher and of the generator; the student trains in fp32."""
    engine: Annotated[Literal["local", "ray"], Flag("Machine")] = "local"
    """Where parts of long work are made: by processes of this machine, or by those of a Ray cluster."""
    ray_address: Annotated[str, Flag("Machine", "ADDRESS")] = ""
    """Ray cluster: HOST:PORT; by default one that this machine belongs to, else one of its own cores."""
    task: TaskSettings = Field(default_factory=lambda: TaskSettings(metric="pearson"))
    transfer: TransferSettings = Field(default_factory=TransferSettings)
    teacher: TeacherSettings = Field(default_factory=TeacherSettings)
    join: JoinSettings = Field(default_factory=JoinSettings)
    student: StudentSettings = Field(default_factory=StudentSettings)
    deferral: DeferralSettings = Field(default_factory=DeferralSettings)
    students: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of student plugins, one table each."""
    generators: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of generator plugins, one table each."""
    teachers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of teacher plugins, one table each."""

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Accept the empty table ``sources``, which the profile of each earlier run holds."""
        return {key: value for key, value in values.items() if (key, value) != ("sources", {})}

    @property
    def vectors_source(self) -> str:
        """The file or model that the word vectors come from; ``teacher`` is the model that the teacher starts from."""
        return self.teacher.model if self.student.vectors == "teacher" else self.student.vectors

    @property
    def export_precision(self) -> str:
        """The precision in which the teacher labels texts: that of the export, or else the profile's."""
        return self.teacher.export.precision or self.precision

    def conflicts(self) -> Iterator[tuple[str, KdError]]:
        """Go through the settings that do not go together, each with the group of plugins whose users it concerns."""
        student, teacher, labels = self.student, self.teacher, self.task.labels

        def wrong(group: str, key: str, what: str, hint: str) -> tuple[str, KdError]:
            return group, ProfileError(what, key=key, hint=hint)

        if unknown := [label for label in self.transfer.heavy.labels if label not in labels]:
            hint = f"its labels are {', '.join(labels) or 'scores'}"
            yield wrong("generators", "transfer.heavy.labels", f"the task has no label {unknown[0]!r}", hint)
        if not student.kd_weight and not student.ce_weight:
            yield wrong("students", "student.kd_weight", "both weights are 0", "set it or student.ce_weight above 0")
        misfit = {"kl": not labels or self.task.multi_label, "bce": not self.task.multi_label}.get(student.kd_loss)
        if student.kd_weight and misfit:
            what = "kl is for tasks of one class a text, bce for multi-label ones, mse for all"
            yield wrong("students", "student.kd_loss", what, 'set it to "mse"')
        for own, table in (("student", student), ("teacher", teacher)):
            if table.class_weights != "none" and not labels:
                yield wrong("students", f"{own}.class_weights", "a score has no classes to weigh", "leave it out")
        for key, used, needs in (
            ("temperature", student.kd_loss == "kl" and student.kd_weight, 'kd_loss = "kl", with a kd_weight'),
            ("rho", student.optimizer == "adadelta", 'optimizer = "adadelta"'),
            ("weight_decay", student.optimizer != "adadelta", 'optimizer = "adam" or "adamw"'),
        ):
            if not used and getattr(student, key) != StudentSettings.model_fields[key].default:
                hint = f"it needs {needs}; or leave it out"
                yield wrong("students", f"student.{key}", "this setting has no effect here", hint)
        if self.transfer.choose == "entropy" and not labels:
            yield wrong("students", "transfer.choose", "a score has no entropy to choose by", 'set it to "random"')
        if self.join.rescale and labels:
            yield wrong("students", "join.rescale", "this has no effect on classes", "it is for scores; leave it out")
        if student.vectors == "teacher" and teacher.model == "config":
            what = "the vectors come from a pretrained model, and this teacher starts from a configuration"
            yield wrong("students", "student.vectors", what, "name a vector file or an encoder, or leave it empty")
        if teacher.train and teacher.plugin != "transformers":
            what = f"a teacher of the plugin {teacher.plugin} is not fine-tuned by kd"
            hint = "set teacher.train to false, or the plugin to transformers"
            yield wrong("teachers", "teacher.plugin", what, hint)


def flags_of(name: str) -> Iterator[tuple[str, FieldInfo, Flag]]:
    """Go through the options of a table (not of those inside it) or of one setting: key, field, ``Flag``."""
    *path, last = name.split(".")
    table: Any = Settings
    for part in path:
        table = table.model_fields[part].annotation
    inside = getattr(table.model_fields[last].annotation, "model_fields", None)
    fields, prefix = (inside, f"{name}.") if inside else ({last: table.model_fields[last]}, name.removesuffix(last))
    for own, field in fields.items():
        for flag in (one for one in field.metadata if isinstance(one, Flag)):
            names = flag.names or (f"--{own.replace('_', '-')}",)
            yield prefix + own, field, Flag(flag.panel, flag.metavar, names, flag.plugins)
