from made_student import TEXTS


def test_each_export_of_a_run_says_what_is_there(made, kd, monkeypatch):
    result = kd.ok("export", "onnx", "--student", made / "run", "--output", made / "onnx", "--json")
    assert (result["folder"], result["task"]) == (str(made / "onnx"), "toy")
    found = {(one["file"], one["texts"]): one for one in result["comparisons"]}
    assert len(found) == 4 and found["model.onnx", "dev"]["rows"] == len(TEXTS)
    student, hub = ("--student", made / "run"), ("--output", made / "hub")
    out = kd.ok("export", "hub-folder", *student, *hub, "--license", "mit", "--json")
    assert {"README.md", "model.safetensors"} < set(out["bytes"])
    card = (made / "hub" / "README.md").read_text("utf-8")
    assert "| teacher | google-bert/bert-large-uncased |" in card and "| transfer set | lite+corpus |" in card
    assert "license: mit" in card
    out = kd.ok("export", "hub-folder", *student, *hub, "--force")
    assert f"hf upload USER/NAME {made / 'hub'}" in out
    monkeypatch.setattr("kdcli.export.web._library_files", lambda *_: {})  # npm would need the network
    out = kd.ok("export", "web", "--student", made / "run", "--output", made / "web")
    assert (
        f"-m http.server --bind 127.0.0.1 --directory {made / 'web'}" in out and (made / "web" / "index.html").is_file()
    )
    page = made / "page.html"
    out = kd.ok("export", "web", "--student", made / "run", "--output", page, "--single", "--json")
    assert out["output"] == str(page) and page.stat().st_size > (made / "web" / "index.html").stat().st_size


def test_onnx_of_a_folder_is_a_panel(made, kd):
    student = made / "elsewhere"
    (made / "run" / "student").rename(student)
    out = kd.ok("export", "onnx", "--student", student, "-o", made / "onnx", "--no-int8")
    assert "random" in out and "dev" not in out and "int8" not in out and "same label" in out
    assert not (made / "onnx" / "model.int8.onnx").exists()
    data = ("--profile", made / "run" / "profile.toml", "--data-dir", made / "data")
    out = kd.ok("export", "onnx", "--student", student, "-o", made / "dev", *data)
    assert " dev " in out and "model.int8.onnx" in out
    out = kd.ok("export", "onnx", "--student", student, "-o", made / "bare", "--no-check")
    assert "PyTorch" not in out


def test_data_that_have_gone_since_the_run(made, kd):
    (made / "data").rename(made / "moved")
    asked = ("export", "onnx", "--student", made / "run", "-o", made / "onnx")
    assert " dev " not in kd.says(0, "random words alone are compared", *asked)
    asked = ("--profile", made / "run" / "profile.toml")
    assert kd("export", "onnx", "--student", made / "run", "-o", made / "two", *asked)[0] == 4
    assert not (made / "two").exists()
