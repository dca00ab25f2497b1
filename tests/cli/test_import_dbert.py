import json

import pytest

from kdcli.cli import run
from kdcli.config.load import load_profile

CONFIG = {
    "dataset_name": "sst2",
    "hidden_size": 300,
    "lr": 5e-4,
    "clip_grad": 30000,
    "mode": "rand",
    "output_channel": 9,
}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "confs").mkdir()
    (tmp_path / "confs" / "base.json").write_text('{"epochs": 20, "lr": 1}')
    path = tmp_path / "confs" / "birnn_sst2.json"
    path.write_text(json.dumps({"_inherits_": "base.json", **CONFIG}))
    return path


def test_a_profile_beside_the_user(config, capsys, tmp_path):
    assert run(["profile", "import-dbert", "confs/birnn_sst2.json"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "birnn_sst2.toml: confs/birnn_sst2.json over the profile sst2; 4 keys as they are"
    told = {line.split()[0]: line for line in out[2:]}
    assert "student.lr = 1.0" in told["lr"] and "student.clip = 0.0" in told["clip_grad"]
    assert "dropped" in told["output_channel"]
    assert out[-1] == "kd run-all --profile birnn_sst2.toml --data-dir FOLDER"
    assert run(["profile", "check", "birnn_sst2.toml"]) == 0
    settings = load_profile(tmp_path / "birnn_sst2.toml").settings
    assert (settings.students["bilstm"]["hidden"], settings.student.lr, settings.student.epochs) == (300, 1.0, 20)


def test_json_lists_every_key(config, capsys):
    assert run(["profile", "import-dbert", str(config), "mine.toml", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["name"], result["file"], result["extends"]) == ("mine", "mine.toml", "sst2")
    changed = {change["key"]: change for change in result["changes"]}
    assert set(changed) | set(result["kept"]) == {*CONFIG, "epochs"}
    lr = changed["lr"]
    assert (lr["value"], lr["setting"], lr["now"], lr["file"]) == (5e-4, "student.lr", 1.0, str(config))
    assert changed["output_channel"]["setting"] == "" and changed["output_channel"]["why"]


def test_unknown_keys(config, capsys, tmp_path):
    config.write_text(json.dumps({**CONFIG, "hiden_size": 3, "zzz": [1]}))
    assert run(["profile", "import-dbert", str(config)]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: d-bert has no such key (file {config}, key hiden_size)"
    assert lines[1] == "hint: did you mean hidden_size? --skip-unknown leaves such keys out"
    assert "key zzz" in lines[2] and not (tmp_path / "birnn_sst2.toml").exists()
    assert run(["profile", "import-dbert", str(config), "--skip-unknown"]) == 0
    assert "hiden_size" in capsys.readouterr().out and (tmp_path / "birnn_sst2.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "content", "code", "says"),
    [
        (["gone.json"], None, 3, "there is no such file (file gone.json)"),
        (["confs/birnn_sst2.json"], '{"lr": 1,\n"x" 2}', 3, "at column 5 (file confs/birnn_sst2.json, row 2)"),
        (["confs/birnn_sst2.json"], '{"dropout": 2}', 3, "(file confs/birnn_sst2.json, key dropout)"),
        (["confs/birnn_sst2.json"], '{"mode": "rand", "output_channel": 1}', 3, "KimCNN, a student that kd has not"),
        (["confs/birnn_sst2.json", "x.txt"], None, 2, "a profile's file ends in .toml"),
    ],
)
def test_bad_input_leaves_nothing(config, capsys, tmp_path, arguments, content, code, says):
    if content:
        config.write_text(content)
    assert run(["profile", "import-dbert", *arguments]) == code
    error = capsys.readouterr().err
    assert says in error and error.count("error: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["confs"]


def test_never_overwrites_unasked(config, capsys, tmp_path):
    target = tmp_path / "birnn_sst2.toml"
    target.write_text("precious")
    assert run(["profile", "import-dbert", str(config)]) == 2
    assert "the file is there already" in capsys.readouterr().err and target.read_text() == "precious"
    assert run(["profile", "import-dbert", str(config), "--force"]) == 0
    assert load_profile(target).settings.task.name == "sst2"
