"""A run is evaluated and measured: with its real teacher, each model in its own process."""

import json
import shutil


def test_eval_says_what_the_results_say_and_bench_measures_student_and_teacher(trained, tiny):
    shutil.copytree(trained / "run", tiny.run_dir)
    results = json.loads((tiny.run_dir / "results.json").read_text("utf-8"))
    evaluated = tiny.kd("eval", "--student", tiny.run_dir, "--against", tiny.run_dir / "baseline", "--json")
    assert evaluated.code == 0, evaluated.err
    models = evaluated.result["tables"]["dev"]["models"]
    roles = {"student": "student", "teacher": "teacher", "baseline": "against"}
    for row in results["rows"]:
        found = models[roles[row["model"]]]["metrics"]
        assert {name: [found[name]["value"]] for name in row["scores"]["dev"]} == row["scores"]["dev"]
    told = [(one["first"], one["second"]) for one in evaluated.result["tables"]["dev"]["comparisons"]]
    assert told == [("student", "teacher"), ("student", "against")]
    assert 0 <= models["student"]["agreement"] <= 1 and models["teacher"]["agreement"] is None

    measured = tiny.kd("bench", "--student", tiny.run_dir, "--seconds", 0, "--json")
    assert measured.code == 0, measured.err
    found = {model["kind"]: model for model in measured.result["models"]}
    assert list(found) == ["pytorch", "numpy", "teacher"]
    sizes = {row["model"]: row["parameters"] for row in results["rows"]}
    assert found["pytorch"]["parameters"] == found["numpy"]["parameters"] == sizes["student"]
    assert found["teacher"]["parameters"] == sizes["teacher"]
    assert found["numpy"]["peak_megabytes"] < found["pytorch"]["peak_megabytes"] - 100, "it needs no torch"
    assert measured.result["source"] == f"dev of {trained / 'data'}" and measured.result["texts"] == 20
    assert json.loads((tiny.run_dir / "bench.json").read_text("utf-8")) == measured.result
    assert "speed" in tiny.kd("report", tiny.run_dir, "--json").result["sections"]
