import pytest

from kdcli.config.schema import TaskSettings

LABELS = {
    "SST-2": ("0", "1"),
    "CoLA": ("0", "1"),
    "MRPC": ("0", "1"),
    "QQP": ("0", "1"),
    "QNLI": ("entailment", "not_entailment"),
    "RTE": ("entailment", "not_entailment"),
    "MNLI": ("entailment", "neutral", "contradiction"),
    "STS-B": (),
}


NAMES = {"SST-2": ("negative", "positive"), "MRPC": ("not_equivalent", "equivalent")}


@pytest.fixture
def settings_of(tmp_path):
    """Give the settings of a GLUE task whose data lie in the test's folder."""

    def make(name, **changes):
        labels = LABELS[name]
        scores = {} if labels else {"score_range": (0, 5), "metric": "pearson"}
        kind = "single" if name in ("SST-2", "CoLA") else "pair"
        return TaskSettings(
            **{"name": name, "kind": kind, "labels": labels, "names": NAMES.get(name, ()), "data_dir": str(tmp_path)}
            | scores
            | changes
        )

    return make
