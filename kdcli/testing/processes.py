"""A tiny task for checks; ``kd`` and Python in processes of their own; distributions for the length of a block."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast
from unittest.mock import patch

from kdcli import registry
from kdcli.api import Corpus, GeneratorSettings, Part, PluginError, QuietReporter, Task

Kind = Literal["single", "pair"]

_THINGS = ("plot", "cast", "music", "ending", "camera", "script")
_WORDS = (("warm", "dull"), ("clever", "cold"), ("lovely", "poor"), ("bright", "slow"), ("rich", "thin"))
_FORMS = (
    "the {one} is {word} and the {other} is {second} .",
    "a {word} {one} , with a {second} {other}",
    "i found the {one} {word} but the {other} was {second} !",
)
SEED = 7
HEAVY = (
    *("jax", "nltk", "onnx", "onnxruntime", "pandas", "polars", "pyarrow", "scipy", "sklearn", "tensorflow"),
    *("textblob", "torch", "transformers"),
)
"""Libraries that take long to import; a plugin imports them inside its functions."""
BATCH = 8
"""Texts that a teacher reads at once."""


def tiny_task(kind: Kind = "single", scores: bool = False) -> Task:
    """Return a task: two classes for single sentences, three for pairs, or scores from 0 to 5."""
    if scores:
        return Task("tiny", kind, (), score_range=(0.0, 5.0), metric="pearson", more_metrics=("spearman",))
    if kind == "pair":
        return Task("tiny", kind, ("0", "1", "2"), names=("same", "other", "opposite"))
    return Task("tiny", kind, ("0", "1"), names=("negative", "positive"))


def tiny_corpus(kind: Kind = "single") -> Corpus:
    """Return 60 different texts or pairs: 40 to learn from, 10 for dev, 10 for test."""
    texts = [_sentence(place) for place in range(60)]
    if kind == "pair":
        texts = [f"{text}\t{_sentence(7 * place + 3)}" for place, text in enumerate(texts)]
    return Corpus(kind, texts[:40], texts[40:50], texts[50:])


def tiny_teacher(folder: Path, labels: tuple[str, ...] = ("entailment", "neutral", "contradiction")) -> Path:
    """Write a random BERT classifier that knows the words of ``tiny_corpus`` to a folder, and return the folder."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    from kdcli.lm.texts import SPECIAL, train_wordpiece
    from kdcli.models.hf import quiet

    pieces = train_wordpiece([[*tiny_corpus().train, *labels]], 1000)
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(tokenizer_object=pieces, model_input_names=inputs, **SPECIAL).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(SEED)
        config = BertConfig(
            vocab_size=pieces.get_vocab_size(),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=64,
            initializer_range=0.5,  # logits that differ from text to text
            id2label=dict(enumerate(labels)),
        )
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def tiny_settings(options: Any, kind: Kind = "single") -> GeneratorSettings:
    """Return the settings with which generators are checked."""
    return GeneratorSettings(options, kind, seed=SEED, device="cpu", precision="fp32")


def _sentence(place: int) -> str:
    """Return one of the sentences; the first 60 differ."""
    one, words = place % len(_THINGS), _WORDS[place % len(_WORDS)]
    return _FORMS[place // 30 % len(_FORMS)].format(
        one=_THINGS[one],
        other=_THINGS[(one + 1 + place // 7 % 5) % len(_THINGS)],
        word=words[place % 2],
        second=_WORDS[(place + 1 + place // 6) % len(_WORDS)][place // 2 % 2],
    )


@dataclass(frozen=True)
class Run:
    """A finished command: its exit code, its result, and its progress, warnings and errors."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The result of a command with ``--json``."""
        return json.loads(self.stdout)


def run_cli(*arguments: object, cwd: str | Path | None = None) -> Run:
    """Run ``kd`` with these arguments, in a process of its own with this one's environment, in the folder ``cwd``."""
    return run_python("-m", "kdcli", *map(str, arguments), cwd=cwd)


def run_python(*arguments: str, cwd: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Run:
    """Run this Python on a command line, with this process's modules and these variables beside its own."""
    # A plugin may be importable here only because somebody has added its folder to sys.path. With -P the current folder
    # is not added: a random.py there must not replace Python's.
    path = os.pathsep.join(dict.fromkeys(str(Path(entry).absolute()) for entry in sys.path))
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def run_elsewhere(task: str, *arguments: str) -> Any:
    """Call a function below (``samples``: ``_samples``) in another process, where a set has another order."""
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    main = "from kdcli.testing.processes import answer; answer()"
    done = run_python("-c", main, task, *arguments, environ={"PYTHONHASHSEED": seed})
    if done.code:
        last = (done.stderr.strip() or f"exit code {done.code}").splitlines()[-1]
        raise PluginError(f"the plugin does not work in another process: {last}")
    printed, _, answered = done.stdout.removesuffix("\n").rpartition("\n")
    sys.stdout.write(printed)
    return json.loads(answered)


def answer() -> None:
    """Call the function that the command line names, and print its result as JSON."""
    found = globals()[f"_{sys.argv[1]}"](*sys.argv[2:])
    sys.stdout.write(f"\n{json.dumps(found)}\n")


def _imports(group: str, name: str) -> list[str]:
    """Return the heavy libraries that the plugin imports."""
    before = set(sys.modules)
    _plugin(group, name)
    return sorted((set(sys.modules) - before) & set(HEAVY))


def _samples(group: str, name: str, folder: str, table: str, prefixes: str, part: str) -> list[str]:
    plugin = _plugin(group, name)
    settings = tiny_settings(plugin.Options.model_validate(json.loads(table)))
    sampler = plugin.load(Path(folder), settings, QuietReporter())
    texts: list[str] = sampler.sample(json.loads(prefixes), Part(*json.loads(part))).texts
    return texts


def _fast(group: str, name: str, file: str, table: str) -> bool:
    """Return whether a student that predicts by ``fast`` has imported torch."""
    import numpy as np
    from safetensors.numpy import load_file

    plugin = _plugin(group, name)
    compute = plugin.fast(plugin.Options.model_validate(json.loads(table)), tiny_task(), load_file(file))
    compute((np.array([[1, 2, 0]]),), (np.array([2]),))
    return "torch" in sys.modules


def _tags(group: str, name: str, texts: str) -> list[list[str]]:
    found: list[list[str]] = _plugin(group, name).tag(json.loads(texts))
    return found


def _logits(group: str, name: str, model: str, table: str, columns: str) -> tuple[str, list[list[float]]]:
    """Return a teacher's fingerprint, and its logits."""
    plugin = _plugin(group, name)
    loaded = load_teacher(plugin, model, plugin.Options.model_validate(json.loads(table)))
    return loaded.fingerprint(), loaded.logits(json.loads(columns), BATCH).tolist()


def load_teacher(plugin: Any, model: str, options: Any, *, max_length: int = 0, long_texts: str = "cut") -> Any:
    """Load a teacher for the labels of the tiny task, on the CPU."""
    how: dict[str, Any] = {"max_length": max_length, "long_texts": long_texts, "device": "cpu", "precision": "fp32"}
    return plugin.load(model, options, labels=tiny_task().names, reporter=QuietReporter(), **how)


def _plugin(group: str, name: str) -> Any:
    if group == "module":
        return importlib.import_module(name)
    # Without the contract's check: other checks report what breaks it.
    return registry.find(cast(registry.Group, group), name).source.load()


@contextmanager
def fake_dist(
    folder: str | Path,
    name: str,
    entry_points: Mapping[str, Mapping[str, str]],
    modules: Mapping[str, str] | None = None,
    *,
    version: str = "1.0",
) -> Iterator[Path]:
    """Install a distribution for the length of the block, in this process and its child processes.

        with fake_dist(tmp_path, "kd-mine", {"taggers": {"mine": "kd_mine"}}, {"kd_mine": "api_version = 2 ..."}):

    Args:
        folder: Where it is written, in a folder of its own.
        name: The distribution's name.
        entry_points: For each group, such as ``students``, its plugins: name to module.
        modules: The source text of each module, by dotted name; a package is named ``package.__init__``.
        version: The distribution's version.

    Yields:
        The folder that stands for ``site-packages``.
    """
    modules = modules or {}
    site = Path(folder) / f"{name}-{version}"
    info = site / f"{re.sub(r'[-_.]+', '_', name)}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8")
    lines = []
    for group, plugins in entry_points.items():
        lines += [f"[kdcli.{group.removeprefix('kdcli.')}]", *(f"{name} = {place}" for name, place in plugins.items())]
    (info / "entry_points.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    for module, source in modules.items():
        path = site.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, "utf-8")
    packages = {module.partition(".")[0] for module in modules}
    python_path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    _forget(packages)
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    try:
        with patch.dict(os.environ, PYTHONPATH=python_path):
            yield site
    finally:
        sys.path.remove(str(site))
        _forget(packages)


def _forget(packages: set[str]) -> None:
    """Drop imported modules of these packages."""
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]
