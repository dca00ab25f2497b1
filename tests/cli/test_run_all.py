import io

import pytest
from rich.console import Console

from kdcli.cli.run_all import results_view
from kdcli.evaluate.results import Results, Row

SCORES = {"teacher": [0.949], "baseline": [0.867], "student": [0.905, 0.909]}
ROWS = [
    Row(model, {"dev": {"f1": scores}}, 10, 5, 1.0, 100.0, {"dev": {"f1": (0.85, 0.95)}})
    for model, scores in SCORES.items()
]


def printed(results):
    file = io.StringIO()
    Console(file=file, width=100).print(results_view(results))
    return " ".join(file.getvalue().split())


@pytest.mark.parametrize(("interval", "share"), [((0.3, 0.66), "49 % (30 to 66)"), (None, "not defined")])
def test_scores_and_the_share_of_the_gap_have_intervals(interval, share):
    gap = 0.4878 if interval else None
    results = Results(["f1"], ROWS, {"dev": {"f1": gap}}, [], {"f1": "f1 of yes"}, {"dev": {"f1": interval}})
    text = printed(results)
    assert "dev f1 of yes 94.9 (85.0 to 95.0) 86.7 (85.0 to 95.0) 90.7 ± 0.3 (85.0 to 95.0)" in text
    assert f"dev f1 of yes {share}" in text
