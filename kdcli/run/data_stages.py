"""The stages that make what a student learns from: transfer set, teacher, logits, and these joined."""

from pathlib import Path
from typing import Any, ClassVar

from kdcli.api import QuietReporter
from kdcli.config.schema import Settings
from kdcli.errors import ProfileError
from kdcli.parts import Loaded
from kdcli.run.stage import Files, RunContext, Stage, if_local
from kdcli.tasks.split import split_files

_LABELS = ("task.gold", "task.labels", "task.names", "task.score_range", "task.drop_labels", "task.multi_label")
_COLUMNS = ("task.layout", "task.text_columns", "task.label_column", "task.label_columns")
_FIELDS = ("task.quoting", "task.separator")
TABLES = ("task.kind", *_LABELS, *_COLUMNS, *_FIELDS)  # the settings that decide what a table of the task says
LABELS = ("task.kind", "task.labels", "task.names", "task.multi_label")  # the settings that decide which logit is whose
READING = ("teacher.plugin", "teacher.max_length", "teacher.long_texts")  # the settings that decide how a teacher reads


class Lite(Stage):
    """Fabricate texts by rules (Tang et al. 2019, section "Data Augmentation for Distillation")."""

    name = "lite"
    command = "kd transfer lite"
    result = "kdcli.transfer.lite:LiteResult"
    settings = (*TABLES, "transfer.lite", "seed")
    plugin = "taggers"
    reads = ("train", "dev", "test")
    makes = ("lite",)
    method = "lite"

    def run(self, run: RunContext) -> Any:
        from kdcli.transfer.lite import fabricate

        settings = run.settings.transfer.lite
        return fabricate(settings=settings, seed=run.seed, resume=run.resume, **_texts(run, "lite"))


class Cache(Stage):
    """Gather the task's texts as a generator learns them (Tang, Lu, Lin 2019)."""

    name = "cache"
    command = "kd transfer heavy --only {}"
    result = "kdcli.transfer.heavy:CacheResult"
    settings = (*TABLES, "transfer.heavy.labels")
    reads = ("train", "dev", "test")
    makes = ("cache",)
    method = "heavy"

    def applies(self, settings: Settings) -> bool:
        return super().applies(settings) or _orders_corpus(settings)

    def run(self, run: RunContext) -> Any:
        from kdcli.transfer.heavy import cache

        splits, labels = run.read_all("train", "dev", "test"), run.settings.transfer.heavy.labels
        return cache(splits=splits, labels=labels, **run.common("cache"))


class FineTune(Stage):
    """Fine-tune the generator on the task's texts."""

    name = "fine-tune"
    command = "kd transfer heavy --only {}"
    result = "kdcli.transfer.heavy:FineTuneResult"
    settings = ("seed", "precision")
    plugin = "generators"
    reads = ("cache",)
    makes = ("generator",)
    method = "heavy"
    together = True

    def applies(self, settings: Settings) -> bool:
        return Cache().applies(settings)

    def inputs(self, run: RunContext) -> Files:
        """Add the models and tokenizers that the plugin's options name; only the plugin knows which of them do."""
        named: Files = {}
        for key, value in self.parameters(run).items():
            named |= if_local(key.rpartition(".")[2], value)
        return super().inputs(run) | named

    def run(self, run: RunContext) -> Any:
        return _generator(run).fine_tune(_corpus(run), run.path("generator"), run.reporter)


class Prefixes(Stage):
    """Count what the task's texts begin with."""

    name = "prefixes"
    command = "kd transfer heavy --only {}"
    result = "kdcli.transfer.heavy:PrefixResult"
    plugin = "generators"
    reads = ("cache", "generator")
    makes = ("prefixes",)
    method = "heavy"

    def run(self, run: RunContext) -> Any:
        return _generator(run).prefixes(_corpus(run), run.path("generator"), run.path("prefixes"), run.reporter)


class Sample(Stage):
    """Sample texts from the generator."""

    name = "sample"
    command = "kd transfer heavy --only {}"
    result = "kdcli.transfer.sampling:SampleResult"
    settings = (*TABLES, "transfer.heavy", "seed", "precision")
    without = ("transfer.heavy.labels",)
    plugin = "generators"
    reads = ("generator", "prefixes", "train", "dev", "test")
    makes = ("heavy",)
    method = "heavy"

    def run(self, run: RunContext) -> Any:
        from kdcli.transfer.sampling import draw_samples

        return draw_samples(
            generator=_generator(run, run.parts_device),
            checkpoint=run.path("generator"),
            prefixes=run.path("prefixes"),
            settings=run.settings.transfer.heavy,
            **_texts(run, "heavy"),
        )


class TakeCorpus(Stage):
    """Take texts of the user's own, the nearest to the task first if asked."""

    name = "corpus"
    command = "kd transfer corpus"
    result = "kdcli.transfer.corpus:CorpusResult"
    settings = (*TABLES, "transfer.corpus", "seed")
    without = ("transfer.corpus.files",)
    reads = ("train", "dev", "test")
    makes = ("corpus",)
    method = "corpus"

    def inputs(self, run: RunContext) -> Files:
        """Add the user's files (none is a ``ProfileError``), and the generator where it orders their texts."""
        files = run.settings.transfer.corpus.files
        if not files:
            hint = "name some with `kd transfer corpus --input FILE`, or in the profile"
            raise ProfileError("no files to take texts from", key="transfer.corpus.files", hint=hint)
        named = {f"corpus {number}": Path(name).expanduser() for number, name in enumerate(files, 1)}
        made = Sample().inputs(run) if _orders_corpus(run.settings) else {}
        return {**named, **{name: path for name, path in made.items() if name != "prefixes"}, **super().inputs(run)}

    def parameters(self, run: RunContext) -> dict[str, Any]:
        """Add the generator's settings where it orders the texts."""
        generator = FineTune().parameters(run) if _orders_corpus(run.settings) else {}
        return super().parameters(run) | generator

    def run(self, run: RunContext) -> Any:
        from kdcli.transfer.corpus import from_corpus

        how: dict[str, Any] = {}
        if _orders_corpus(run.settings):
            generator, checkpoint = _generator(run, run.parts_device), run.path("generator")
            bits = generator.load_bits(checkpoint)
            loaded = bits and Loaded(bits, type(generator).load_bits, (generator, checkpoint), (checkpoint,))
            how = {"bits": loaded, "device": run.parts_device}
        settings, bad_rows = run.settings.transfer.corpus, run.settings.task.bad_rows
        return from_corpus(settings=settings, seed=run.seed, bad_rows=bad_rows, **how, **_texts(run, "corpus"))


class Mix(Stage):
    """Join the tables of several methods, each text once."""

    name = "mix"
    result = "kdcli.transfer.cleaning:MixResult"
    settings = ("task.kind",)
    makes = ("transfer",)

    def applies(self, settings: Settings) -> bool:
        return len(settings.transfer.methods) > 1

    def inputs(self, run: RunContext) -> Files:
        """Return the tables of the methods, in the order in which they are joined."""
        return run.files(*run.settings.transfer.methods)

    def run(self, run: RunContext) -> Any:
        from kdcli.transfer.cleaning import mix

        return mix(sets=self.inputs(run), **run.common("transfer"))


class TrainTeacher(Stage):
    """Fine-tune the teacher on the labelled texts; without ``teacher.train`` the profile names one that is."""

    name = "teacher"
    command = "kd teacher train"
    result = "kdcli.teacher.train:TeacherResult"
    settings = (*TABLES, "task.metric", "teacher", "precision", "seed")
    without = ("teacher.plugin", "teacher.long_texts")
    reads = ("train", "dev")
    labelled = ("train", "dev")
    makes = ("teacher",)
    together = True

    def applies(self, settings: Settings) -> bool:
        return settings.teacher.train

    def inputs(self, run: RunContext) -> Files:
        """Add the pretrained model."""
        return super().inputs(run) | if_local("model", run.settings.teacher.model)

    def run(self, run: RunContext) -> Any:
        from kdcli.teacher.train import train_teacher

        shared = run.common("teacher", "seed", "device", "precision", "resume", "engine")
        return train_teacher(train=run.read("train"), dev=run.read("dev"), settings=run.settings.teacher, **shared)


class Export(Stage):
    """Export the teacher's logits of the transfer set."""

    name = "export"
    command = "kd teacher export"
    result = "kdcli.teacher.export:ExportResult"
    settings: ClassVar[tuple[str, ...]] = (*LABELS, *READING)
    plugin = "teachers"
    reads = ("transfer", "teacher")
    makes = ("logits",)

    def parameters(self, run: RunContext) -> dict[str, Any]:
        """Add the precision of this stage, and the teacher that the profile takes as it is."""
        teacher = run.settings.teacher
        named = {} if teacher.train else {"teacher.model": teacher.model}
        represent = {"represent": True} if run.settings.student.repr_weight else {}
        return super().parameters(run) | {"precision": run.settings.export_precision, **named, **represent}

    def table(self, run: RunContext) -> Path:
        """Return the table of the texts."""
        return run.path("transfer")

    def run(self, run: RunContext) -> Any:
        from kdcli.teacher.export import export_logits

        return export_logits(
            transfer=self.table(run),
            teacher=run.teacher,
            settings=run.settings.teacher.export,
            represent=bool(run.settings.student.repr_weight),
            known=None if run.elsewhere else run.path("known"),
            device=run.parts_device,
            **run.common(self.makes[0], "precision", "resume", "engine"),
        )

    def estimate(self, run: RunContext) -> dict[str, float] | None:
        """Return what the distinct texts will take, of a teacher that answers over the network."""
        from kdcli.tasks.text_set import open_texts

        table = self.table(run)
        if not run.teacher.is_remote or not table.exists():
            return None
        texts = open_texts(table, run.task, QuietReporter()).select(run.task.columns).unique()
        return run.teacher.estimate(run.task, texts.collect())


class ExportDev(Export):
    """Export the teacher's logits of the dev texts, where there are no gold labels to choose a student by."""

    name = "export-dev"
    command = Stage.command
    settings = (*TABLES, *READING)
    reads = ("dev", "teacher")
    makes = ("dev_logits",)

    def applies(self, settings: Settings) -> bool:
        return not settings.task.gold

    def table(self, run: RunContext) -> Path:
        """Return the dev table."""
        (table,) = split_files(run.settings.task, "dev")
        return table


class Join(Stage):
    """Join the logits to the transfer set."""

    name = "join"
    command = "kd join"
    result = "kdcli.teacher.join:JoinResult"
    settings = (*LABELS, "join")
    reads = ("transfer", "logits")
    makes = ("joined",)

    def run(self, run: RunContext) -> Any:
        from kdcli.teacher.join import join

        transfer, logits = run.path("transfer"), run.path("logits")
        return join(transfer=transfer, logits=logits, **run.settings.join.model_dump(), **run.common("joined"))


def _texts(run: RunContext, method: str) -> dict[str, Any]:
    """Return the arguments that the functions that make texts share."""
    held_out = list(run.read_all("dev", "test").values())
    return {"train": run.read("train"), "held_out": held_out, **run.common(method, "engine")}


def _orders_corpus(settings: Settings) -> bool:
    """Return whether the generator puts the texts of a corpus in order."""
    return "corpus" in settings.transfer.methods and settings.transfer.corpus.order_by == "lm"


def _generator(run: RunContext, device: str | None = None) -> Any:
    from kdcli.transfer.heavy import GeneratorRun

    return GeneratorRun.of(run.settings, run.task, device=device or run.device, seed=run.seed, resume=run.resume)


def _corpus(run: RunContext) -> Any:
    from kdcli.transfer.heavy import read_corpus

    return read_corpus(run.path("cache"), run.task)
