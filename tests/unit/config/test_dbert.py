import json
import tomllib
from collections import ChainMap

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcli.config import files
from kdcli.config.dbert import import_dbert
from kdcli.config.dbert.config import read_config
from kdcli.config.dbert.keys import KEYS
from kdcli.config.load import load_profile
from kdcli.config.validation import Mistakes
from kdcli.errors import KdError, ProfileError

BASE = {
    "distill_lambda": 1,
    "distill_temperature": 3,
    "ce_lambda": 1,
    "seed": 0,
    "workspace": "local_workspace",
    "batch_size": 50,
    "optimizer": "adam",
    "epochs": 20,
    "early_stop": True,
    "lr": 1,
    "device": "cuda:0",
    "use_data_parallel": False,
    "load_last_checkpoint": False,
    "load_best_checkpoint": False,
    "eval_test_only": False,
    "export_eval_labels": False,
    "use_maxpool": False,
    "float_score": False,
}
RNN = {
    "output_channel": 100,
    "words_dim": 300,
    "clip_grad": 30000,
    "dropout": 0.1,
    "n_feature_maps": 200,
    "rnn_type": "lstm",
    "hidden_size": 150,
    "lr": 5e-4,
    "fc_size": 200,
    "weight_decay": 1e-3,
    "mode": "rand",
    "epochs": 30,
}
TEACHER = {
    "model_file": "/nowhere/uncased_L-24_H-1024_A-16",
    "workspace": "local_workspace",
    "seed": 0,
    "uncased": True,
    "do_train": True,
    "do_eval": True,
    "max_seq_length": 128,
    "train_batch_size": 32,
    "eval_batch_size": 8,
    "learning_rate": 5e-5,
    "num_train_epochs": 3,
    "warmup_proportion": 0.1,
    "gradient_accumulation_steps": 1,
    "fp16": False,
    "loss_scale": 0,
    "visualize": False,
    "do_test_only": False,
    "export": None,
    "train_file": "",
    "no_cuda": False,
}


def data_set(name):
    return {
        "dataset_path": f"/nowhere/{name}",
        "dataset_name": name,
        "logits_path": "logits.pt",
        "vectors_file": "vectors.txt",
        "vectors_dir": "/nowhere",
        "train_file": "train.tsv",
        "dev_file": "dev.tsv",
        "test_file": "test.tsv",
    }


@pytest.fixture
def confs(tmp_path):
    """Return a function that writes a config and what d-bert's inherit, and returns its path."""

    def write(name, own, parents=()):
        text = json.dumps({"_inherits_": list(parents), **own} if parents else own, indent=4)
        (tmp_path / f"{name}.json").write_text(text)
        return tmp_path / f"{name}.json"

    write("base", BASE)
    write("config", TEACHER)
    for name in ("sst2", "cola", "sts", "mrpc", "qnli", "mnli_match"):
        write(name, data_set(name))
    return write


def student(confs, name="birnn_sst2", data="sst2", **own):
    return confs(name, {**RNN, **own}, ["base.json", f"{data}.json"])


def load(path, tmp_path, **more):
    imported = import_dbert(path, **more)
    target = tmp_path / "imported.toml"
    target.write_text(imported.to_toml(target))
    return imported, load_profile(target, environ={})


def changes(imported):
    return {change.key: (change.setting, change.now) for change in imported.changes}


def test_the_papers_student(confs, tmp_path):
    imported, profile = load(student(confs), tmp_path)
    assert imported.extends == "sst2"
    settings = profile.settings
    assert settings.seed == 0 and settings.task.labels == ("0", "1")
    assert settings.transfer.lite.words == "whitespace"  # what the JSON does not say is the profile's
    bilstm = settings.students["bilstm"]
    assert (bilstm["hidden"], bilstm["fc"], bilstm["cell"], bilstm["pooling"]) == (150, 200, "lstm", "last")
    assert (bilstm["dropout"], bilstm["embeddings"], settings.student.vectors) == (0.1, "rand", "")
    student_ = settings.student
    assert (student_.dimension, student_.epochs, student_.batch_size, student_.kd_weight) == (300, 30, 50, 1)
    assert imported.kept["hidden_size"] == "students.bilstm.hidden"


def test_the_faults_are_not_carried_over(confs, tmp_path):
    imported, profile = load(student(confs), tmp_path)
    told = changes(imported)
    assert told["lr"] == ("student.lr", 1.0)
    assert told["clip_grad"] == ("student.clip", 0.0)
    assert told["ce_lambda"] == ("student.ce_weight", 0.0)
    assert told["optimizer"] == ("student.optimizer", "adadelta")
    assert told["weight_decay"] == ("student.weight_decay", 0.0)
    settings = profile.settings.student
    assert (settings.lr, settings.clip, settings.ce_weight, settings.weight_decay) == (1, 0, 0, 0)
    assert (settings.optimizer, settings.kd_loss, settings.temperature) == ("adadelta", "mse", 1)
    dropped = {key for key, (setting, _) in told.items() if not setting}
    assert {"distill_temperature", "output_channel", "n_feature_maps", "logits_path", "vectors_file"} <= dropped
    assert all(change.why for change in imported.changes)
    assert set(imported.kept) | set(told) == {*BASE, *RNN, *data_set("sst2")}


def test_what_was_chosen_with_care_stays(confs, tmp_path):
    own = {"lr": 0.5, "clip_grad": 5, "ce_lambda": 0.5, "use_maxpool": True, "rnn_type": "GRU", "early_stop": False}
    imported, profile = load(student(confs, device="cuda:1", **own), tmp_path)
    settings = profile.settings.student
    assert (settings.lr, settings.clip, settings.ce_weight, settings.patience) == (0.5, 5, 0.5, 0)
    assert profile.settings.students["bilstm"]["pooling"] == "max" and "use_maxpool" in changes(imported)
    assert profile.settings.students["bilstm"]["cell"] == "gru"
    assert profile.settings.device == "cuda:1"


def test_labels_alone_stay_labels_alone(confs, tmp_path):
    _, profile = load(student(confs, distill_lambda=0), tmp_path)
    assert (profile.settings.student.kd_weight, profile.settings.student.ce_weight) == (0, 1)


def test_folders_and_files_that_are_there(confs, tmp_path):
    (tmp_path / "vectors.txt").write_text("a 1\n")
    own = {"dataset_path": str(tmp_path), "vectors_dir": str(tmp_path), "mode": "multichannel"}
    imported, profile = load(student(confs, **own), tmp_path)
    assert profile.settings.task.data_dir == str(tmp_path)
    assert profile.settings.student.vectors == str(tmp_path / "vectors.txt")
    assert {"dataset_path", "vectors_file"} <= set(imported.kept)
    _, elsewhere = load(student(confs, mode="multichannel"), tmp_path)
    assert elsewhere.settings.student.vectors == "teacher" == load_profile("sst2").settings.student.vectors
    assert elsewhere.settings.task.data_dir == ""


@pytest.mark.parametrize(
    ("data", "profile"),
    [("sst2", "sst2"), ("cola", "cola"), ("mrpc", "mrpc"), ("sts", "stsb"), ("qnli", "qnli"), ("mnli_match", "mnli")],
)
def test_each_data_set_has_its_profile(confs, tmp_path, data, profile):
    imported, loaded = load(student(confs, f"birnn_{data}", data), tmp_path)
    assert imported.extends == profile and loaded.settings.task.name == profile
    assert any("contradiction, entailment, neutral" in remark for remark in imported.remarks) == (profile == "mnli")


def test_a_data_set_that_kd_does_not_know(confs, tmp_path):
    imported, loaded = load(student(confs, dataset_name="sst_with_imdb"), tmp_path)
    assert imported.extends == "base" and loaded.settings.students["bilstm"]["hidden"] == 150
    assert any("[task]" in remark for remark in imported.remarks)


def test_a_name_that_misleads_is_said(confs, tmp_path):
    imported, _ = load(student(confs, "siarnn_qqb", "mnli_match"), tmp_path)
    assert imported.extends == "mnli"
    assert any("siarnn_qqb.json" in remark for remark in imported.remarks)


def test_a_teacher_to_fine_tune(confs, tmp_path):
    own = {"n_labels": 2, "task_name": "sst2", "data_dir": "/nowhere", "learning_rate": 4e-5, "fp16": True}
    imported, profile = load(confs("sst2-ft", own, ["config.json"]), tmp_path)
    teacher = profile.settings.teacher
    assert imported.extends == "sst2" and teacher.train
    assert (teacher.model, teacher.lr, teacher.epochs, teacher.batch_size) == ("bert-large-uncased", 4e-5, 3, 32)
    assert (teacher.max_length, teacher.warmup, teacher.export.batch_size) == (128, 0.1, 8)
    assert profile.settings.precision == "fp16"
    assert any("head alone" in remark for remark in imported.remarks)
    assert imported.run.startswith("kd teacher train")


def test_a_teacher_to_export(confs, tmp_path):
    own = {"n_labels": 2, "task_name": "imdb", "data_dir": "800k", "workspace": "golden", "eval_batch_size": 128}
    imported, profile = load(confs("sst_export", own, ["config.json"]), tmp_path)
    teacher = profile.settings.teacher
    assert imported.extends == "sst2"  # told by the name of the file
    assert (teacher.model, teacher.train, teacher.export.batch_size) == ("golden", False, 128)
    assert profile.settings.student.vectors == "bert-large-uncased"
    assert "800k/train.tsv" in next(change.why for change in imported.changes if change.key == "data_dir")
    assert imported.run.startswith("kd teacher export")


def test_a_teacher_of_a_task_of_ones_own(confs, tmp_path):
    own = {"n_labels": 3, "task_name": "raw_pair", "workspace": "w"}
    imported, profile = load(confs("mine", own, ["config.json"]), tmp_path)
    task = profile.settings.task
    assert (imported.extends, task.kind, task.labels, task.metric) == ("base", "pair", ("0", "1", "2"), "accuracy")


def test_a_folder_of_weights_that_is_there(confs, tmp_path):
    folder = tmp_path / "uncased_L-24_H-1024_A-16"
    folder.mkdir()
    _, profile = load(confs("mrpc-ft", {"task_name": "mrpc", "model_file": str(folder)}, ["config.json"]), tmp_path)
    assert profile.settings.teacher.model == str(folder)


def test_the_profile_says_what_became_of_each_key(confs, tmp_path):
    imported = import_dbert(student(confs))
    text = imported.to_toml(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_text(text)
    about = files.about(tmp_path / "mine.toml")
    assert about.startswith("mine: d-bert's birnn_sst2.json") and f"--profile {tmp_path / 'mine.toml'}" in about
    lines = text.splitlines()
    assert "hidden = 150         # hidden_size" in lines
    assert next(line for line in lines if line.startswith("lr = 1.0 ")).count("lr is 0.0005 there;") == 1
    for change in imported.changes:
        assert change.why in text
    assert tomllib.loads(text)["extends"] == "sst2"


LEAVES = st.dictionaries(st.sampled_from(["lr", "epochs", "seed", "dropout", "mode"]), st.integers(0, 99), max_size=4)
TREES = st.recursive(st.tuples(LEAVES, st.just([])), lambda tree: st.tuples(LEAVES, st.lists(tree, max_size=3)))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREES)
def test_inheritance_is_that_of_argconf(tmp_path, tree):
    """The oracle lays ``ChainMap`` over ``ChainMap`` as argconf does: a config, its first parent, its second, ..."""
    written = []

    def write(own, parents):
        path = tmp_path / f"{len(written)}.json"
        written.append(path)
        names, chain = [], ChainMap(dict(own))
        for parent in parents:
            name, above = write(*parent)
            names.append(name)
            chain = above.new_child(dict(chain))
        single = names[0] if len(names) == 1 else names
        path.write_text(json.dumps({**own, **({"_inherits_": single} if names else {})}))
        return path.name, chain

    name, chain = write(*tree)
    assert dict(read_config(tmp_path / name).values) == dict(chain)


def test_two_ways_to_one_file_are_no_circle(confs):
    confs("a", {"lr": 1}, ["base.json"])
    assert read_config(confs("b", {}, ["a.json", "base.json"])).values["epochs"] == 20


@pytest.mark.parametrize(
    ("text", "what", "row"),
    [
        ('{"lr": 1,\n "epochs" 3}', "not JSON: Expecting ':' delimiter, at column 11", 2),
        ("[]", "a config is a JSON object, and this is a list", None),
        ('{"_inherits_": "gone.json"}', "there is no file .*gone.json to inherit", None),
        ('{"_inherits_": "x.json"}', "in a circle: x.json -> x.json", None),
        ('{"_inherits_": "y.json"}', "in a circle: x.json -> y.json -> x.json", None),
        ('{"_inherits_": {"a": 1}}', "names one file to inherit", None),
        ('{"n_embd": 1024}', "a configuration of GPT-2", None),
        ('{"bert_model": "x"}', "extract_bert_vectors", None),
        ('{"_inherits_": ["base.json", "sst2.json"], "output_channel": 100}', "a config of KimCNN", None),
    ],
)
def test_configs_that_cannot_be_imported(confs, tmp_path, text, what, row):
    confs("y", {}, ["x.json"])
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ProfileError, match=what) as caught:
        import_dbert(tmp_path / "x.json")
    assert caught.value.row == row and caught.value.exit_code == 3


@pytest.mark.parametrize(("name", "model"), [("kim_cnn_sst2", "KimCNN"), ("conv_rnn_cola", "ConvRNN")])
def test_models_that_kd_has_not(confs, name, model):
    with pytest.raises(ProfileError, match=model) as caught:
        import_dbert(student(confs, name))
    assert "BiRNN and SiameseRNN" in caught.value.hint


def test_a_missing_file_is_named_with_its_heir(confs, tmp_path):
    (tmp_path / "sst2.json").unlink()
    with pytest.raises(ProfileError, match=r"sst2\.json to inherit") as caught:
        import_dbert(student(confs))
    assert (caught.value.file, caught.value.key) == (str(tmp_path / "birnn_sst2.json"), "_inherits_")
    with pytest.raises(ProfileError, match="there is no such file"):
        import_dbert(tmp_path / "nothing.json")


def test_every_wrong_key_is_told_at_once(confs, tmp_path):
    base = confs("base", BASE | {"epoch": 3})
    path = student(confs, hiden_size=10, zzz=1, lr="fast", batch_size=50.5, use_maxpool=1, dropout=True)
    with pytest.raises(Mistakes) as caught:
        import_dbert(path)
    told = {one.key: one for one in caught.value.mistakes}
    assert set(told) == {"hiden_size", "zzz", "lr", "batch_size", "use_maxpool", "dropout", "epoch"}
    assert "did you mean hidden_size?" in told["hiden_size"].hint and "did you mean epochs?" in told["epoch"].hint
    assert told["zzz"].hint == "--skip-unknown leaves such keys out"
    assert (told["hiden_size"].file, told["epoch"].file) == (str(path), str(base))
    assert told["lr"].what == '"fast" stands where a number is needed'
    assert told["batch_size"].what == "50.5 stands where a whole number is needed"
    assert caught.value.exit_code == 3


def test_unknown_keys_can_be_skipped(confs, tmp_path):
    imported, _ = load(student(confs, **{"zzz": [1], "two\nlines\u0000": "a\nb"}), tmp_path, skip_unknown=True)
    assert changes(imported)["zzz"] == ("", None)
    with pytest.raises(ProfileError, match="a number is needed"):
        import_dbert(student(confs, zzz=1, lr="fast"), skip_unknown=True)


def test_a_value_out_of_range_is_the_jsons_fault(confs, tmp_path):
    path = student(confs, dropout=1.5, mode="dynamic")
    imported = import_dbert(path)
    (tmp_path / "out.toml").write_text(imported.to_toml(tmp_path / "out.toml"))
    with pytest.raises(KdError) as caught:
        load_profile(tmp_path / "out.toml", environ={})
    blamed = imported.blame(caught.value)
    assert isinstance(blamed, Mistakes)
    assert {(one.key, one.file) for one in blamed.mistakes} == {("dropout", str(path)), ("mode", str(path))}


def test_every_key_has_a_setting_or_a_reason(confs):
    """Each key of the table comes out of an import, and each setting that it names is one."""
    known = {f"students.bilstm.{name}" for name in ("embeddings", "cell", "hidden", "fc", "pooling", "dropout")}
    for key, known_key in KEYS.items():
        if known_key.setting and known_key.setting not in known:
            values = load_profile("base").settings.model_dump()
            if known_key.setting != "extends":
                for step in known_key.setting.split("."):
                    values = values[step]
        value = {int: 1, float: 0.5, bool: False, str: "x"}[known_key.kind]
        own = {"hidden_size": 1, key: value, **({"device": "cpu"} if key == "device" else {})}
        imported = import_dbert(confs("one", own))
        assert key in imported.kept or key in changes(imported)
