import pytest
from hypothesis import given, strategies as st
from raising import raising

from kdcli.config.load import from_sets, load_profile, merge
from kdcli.config.schema import Settings
from kdcli.errors import KdError, PluginError, ProfileError, UsageError, ValidationErrors, each

LABELS = '[task]\nlabels = ["0", "1"]\n'


def write(folder, text, name="my.toml"):
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def errors_of(*arguments, **keywords):
    with pytest.raises(KdError) as caught:
        load_profile(*arguments, **keywords)
    return {error.key: error for error in each(caught.value)}


def test_without_anything_settings_are_the_defaults():
    profile = load_profile(None, environ={})
    assert profile.name == "default"
    assert profile.settings.model_copy(update={"students": {}, "generators": {}, "teachers": {}}) == Settings()
    assert set(profile.origins.values()) == {"default"}
    profile = load_profile(None, sets=["students.bilstm.hidden=7"], environ={})
    bilstm, origins = profile.settings.students["bilstm"], profile.origins
    assert (bilstm["hidden"], origins["students.bilstm.hidden"]) == (7, "--set")
    assert (bilstm["cell"], origins["students.bilstm.cell"]) == ("lstm", "default")


def test_each_layer_wins_over_the_one_before(tmp_path):
    base = write(tmp_path, LABELS + "[student]\nlr = 1.5\nepochs = 2\nclip = 2.0\nrho = 0.5\n", "b.toml")
    mine = write(tmp_path, 'extends = "b.toml"\n[student]\nepochs = 3\nclip = 3.0\nrho = 0.6\nbatch_size = 3\n')
    profile = load_profile(
        mine,
        environ={"KD_STUDENT__CLIP": "4", "KD_STUDENT__RHO": "0.7", "KD_STUDENT__BATCH_SIZE": "4", "HOME": "/"},
        sets=["student.rho=0.8", "student.batch_size=5"],
        flags={"student.batch_size": 6, "student.patience": None},
    )
    student = profile.settings.student
    assert (student.lr, student.epochs, student.clip, student.rho, student.batch_size) == (1.5, 3, 4.0, 0.8, 6)
    assert student.patience == Settings().student.patience
    keys = ("lr", "epochs", "clip", "rho", "batch_size", "patience")
    origins = [profile.origins[f"student.{key}"] for key in keys]
    assert origins == [str(base), str(mine), "KD_STUDENT__CLIP", "--set", "--batch-size", "default"]
    assert profile.origins["task.labels"] == str(base)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("student.vectors=a=b.vec", "student.vectors", "a=b.vec"),
        ("student.vectors=", "student.vectors", ""),
        ("teacher.lr=[2e-5, 3e-5]", "teacher.lr", [2e-5, 3e-5]),
        ("seed=1\nb = 3", "seed", "1\nb = 3"),
        (" student.lr =1", "student.lr", 1),
    ],
)
def test_set_takes_a_toml_value_or_a_string(text, key, value):
    (layer,) = from_sets([text])
    found = layer.values
    for part in key.split("."):
        found = found[part]
    assert found == value


@pytest.mark.parametrize("text", ["student.lr", "=3", "", "student..lr=3", ".=1"])
def test_set_without_key_or_value_is_a_usage_error(text):
    with raising(UsageError, hint="--set student.lr=0.5"):
        load_profile(None, sets=[text], environ={})


def test_environment_reads_lists_as_json_and_any_section():
    environ = {
        "KD_TASK__LABELS": '["a", "b", "c"]',
        "KD_TRANSFER__LITE__N_ITER": "4",
        "KD_TEACHER__LR": "[2e-5, 5e-5]",
        "KD_STUDENTS__BILSTM__HIDDEN": "12",
        "KD_TEACHER__CONFIG__HIDDEN_SIZE": "64",
        "KD_PRECISION": "bf16",
    }
    profile = load_profile(None, environ=environ)
    settings = profile.settings
    assert (settings.task.labels, settings.teacher.lr) == (("a", "b", "c"), (2e-5, 5e-5))
    assert (settings.transfer.lite.n_iter, settings.precision, settings.students["bilstm"]["hidden"]) == (4, "bf16", 12)
    assert profile.origins["students.bilstm.hidden"] == "KD_STUDENTS__BILSTM__HIDDEN"


def test_environment_has_no_silent_typo_but_leaves_strangers_alone():
    environ = {"KD_STUDNT__LR": "1", "KD_STUDENT__LRR": "1", "KD_SEDE": "1", "KD_LIBRARY_HOME": "/x", "KDE": "5"}
    found = errors_of(None, environ=environ)
    assert set(found) == {"studnt.lr", "student.lrr", "sede"}
    assert "KD_STUDENT__LRR in the environment" in str(found["student.lrr"])
    assert (found["sede"].hint, found["studnt.lr"].hint) == ("did you mean seed?", "did you mean student.lr?")
    found = errors_of(None, environ={"KD_TASK__LABELS": "0,1"})
    assert "KD_TASK__LABELS" in str(found["task.labels"])
    assert "KD_TASK__LABELS='[" in found["task.labels"].hint


def test_five_errors_are_reported_at_once_each_with_file_and_key(tmp_path):
    base = write(tmp_path, "[transfer.lite]\np_msk = 0.2\n", "b.toml")
    text = 'extends = "b.toml"\n[task]\nlabels = ["0", "1"]\nnames = ["bad"]\n'
    text += '[student]\nlr = -1\nkd_loss = "mes"\n[students.bilstm]\nhiden = 3\nfc = 0\n[studnt]\nlr = 1\n'
    mine = write(tmp_path, text)
    with raising(ValidationErrors, exit_code=3) as caught:
        load_profile(mine, environ={}, sets=["teacher.epochs=0"])
    found = {error.key: error for error in each(caught.value)}
    keys = ["student.kd_loss", "student.lr", "students.bilstm.fc", "students.bilstm.hiden", "studnt"]
    keys += ["task", "teacher.epochs", "transfer.lite.p_msk"]  # of the task names and labels differ in number
    assert sorted(found) == keys
    expected = dict.fromkeys(keys[:6], str(mine)) | {"transfer.lite.p_msk": str(base), "teacher.epochs": None}
    assert {key: error.file for key, error in found.items()} == expected
    assert found["transfer.lite.p_msk"].hint == "did you mean transfer.lite.p_mask?"
    assert found["studnt"].hint == "did you mean student?" and "--set" in str(found["teacher.epochs"])


def test_an_error_that_is_overridden_is_none(tmp_path):
    mine = write(tmp_path, "[student]\nlr = -1\n")
    assert load_profile(mine, sets=["student.lr=1"], environ={}).settings.student.lr == 1


def test_the_profile_of_an_earlier_run_holds_an_empty_table_of_sources(tmp_path):
    assert load_profile(write(tmp_path, "seed = 5\n[sources]\n"), environ={}).settings.seed == 5
    other = write(tmp_path, '[sources]\nrte = "https://host"\n', "other.toml")
    assert errors_of(other, environ={})["sources"].file == str(other)


def test_extends_by_name_and_relative_to_the_file(tmp_path):
    (tmp_path / "inner").mkdir()
    write(tmp_path, 'extends = "sst2"\nseed = 5\n', "b.toml")
    mine = write(tmp_path / "inner", 'extends = "../b.toml"\n[student]\nlr = 0.5\n')
    profile = load_profile(str(mine), environ={})
    assert profile.name == "my"
    assert (profile.settings.seed, profile.settings.student.lr) == (5, 0.5)
    assert profile.settings.task.name == "sst2"
    assert profile.origins["task.name"] == "sst2.toml"
    assert profile.origins["student.min_freq"] == "base.toml"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"my.toml": 'extends = "b.toml"', "b.toml": 'extends = "my.toml"'}, "in a circle: my.toml -> b.toml -> my"),
        ({"my.toml": 'extends = "c.toml"'}, "there is no such profile file"),
        ({"my.toml": 'extends = "ss2"'}, "no profile is named ss2"),
        ({"my.toml": "extends = 3"}, "extends is the name or file of one profile"),
    ],
)
def test_extends_that_leads_nowhere(tmp_path, files, says):
    for name, text in files.items():
        write(tmp_path, text, name)
    with raising(ProfileError, says, key="extends") as caught:
        load_profile(tmp_path / "my.toml", environ={})
    assert caught.value.file and caught.value.file.startswith(str(tmp_path))


def test_a_profile_that_is_no_toml_not_utf8_or_no_file(tmp_path):
    write(tmp_path, "seed = 1\n[student]\nlr = fast\n", "no.toml")
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    (tmp_path / "folder.toml").mkdir()
    said = (("no", None, 3), ("latin", "not UTF-8, at byte 6", None), ("folder", "cannot be read", None))
    for name, says, row in said:
        with raising(ProfileError, says, row=row, file=tmp_path / f"{name}.toml"):
            load_profile(tmp_path / f"{name}.toml", environ={})


def test_resolved_toml_runs_again_as_it_is(tmp_path):
    sets = ["teacher.lr=[2e-5, 5e-5]", 'student.vectors="C:\\\\a \\"b\\" ü\\t"', "teacher.export.precision=bf16"]
    first = load_profile("demo", sets=sets, environ={"KD_SEED": "9"})
    for text in (first.to_toml(), first.to_toml(with_origins=True)):
        again = load_profile(write(tmp_path, text), environ={})
        assert again.settings == first.settings
        assert load_profile(write(tmp_path, again.to_toml()), environ={}).settings == first.settings
    assert "--set" in first.to_toml(with_origins=True) and "--set" not in first.to_toml()
    assert first.settings.student.vectors == 'C:\\a "b" ü\t'


def test_plugins_that_are_missing_broken_or_of_another_version_and_a_required_option_are_errors(make_plugin):
    found = errors_of(None, sets=["students.elsewhere.widths=[3, 4]"], environ={})
    assert "no student plugin is named elsewhere" in found["students.elsewhere"].what
    make_plugin("kd-bad", "[kdcli.students]\nbad = kd_bad_module\n", "raise RuntimeError('no')", module="kd_bad_module")
    assert load_profile(None, environ={}).settings.student.model == "bilstm"
    for key, sets in (("students.bad", "students.bad.x=1"), ("student.model", "student.model=bad")):
        found = errors_of(None, sets=[sets], environ={})
        assert "kd-bad:bad cannot be imported" in found[key].what
    make_plugin("kd-new", "[kdcli.taggers]\nnew = kd_new\n", OTHER.format(version=9), module="kd_new")
    found = errors_of(None, sets=["transfer.lite.tagger=new"], environ={})
    assert "is written for api_version 9" in found["transfer.lite.tagger"].what
    code = OTHER.format(version=2).replace("width: int = 3", "width: int")
    make_plugin("kd-req", "[kdcli.generators]\nreq = kd_req\n", code, module="kd_req")
    key = "generators.req.width"
    with raising(ProfileError, "this needs a value, and has no default", key=key, hint=f"--set {key}=VALUE"):
        load_profile(None, sets=["transfer.generator=req"], environ={})


OTHER = """
from pydantic import BaseModel
api_version, pairs, scores = {version}, True, True
class Options(BaseModel, extra="forbid"):
    width: int = 3
def build(): ...
def fine_tune(): ...
def load(): ...
def tag(texts): ...
"""


def test_unknown_plugins_are_found_where_they_are_used():
    sets = ["transfer.generator=one", "transfer.lite.tagger=shape", "student.model=two", "students.two.width=3"]
    profile = load_profile(None, sets=sets, environ={}, uses=())
    assert (profile.settings.student.model, profile.settings.students) == ("two", {"two": {"width": 3}})
    assert list(errors_of(None, sets=sets, environ={}, uses={"taggers"})) == ["transfer.lite.tagger"]
    assert len(errors_of(None, sets=sets, environ={})) == 3
    for wrong, right in (("student.model=bilsmt", "bilstm"), ("transfer.lite.tagger=patern", "pattern")):
        with raising(PluginError, hint=f"did you mean {right}?"):
            load_profile(None, sets=[wrong], environ={})
    assert "students.bilstmm" in errors_of(None, sets=["students.bilstmm.hidden=3"], environ={})


@pytest.mark.parametrize(
    ("sets", "key"),
    [
        (["teacher.plugin=zero-shot"], "teacher.plugin"),
        (["student.vectors=teacher", "teacher.model=config"], "student.vectors"),
        (["student.kd_weight=0"], "student.kd_weight"),
        (["student.kd_loss=kl", "task.labels=[]", "task.names=[]", "task.metric=pearson"], "student.kd_loss"),
        (['transfer.heavy.labels=["2"]'], "transfer.heavy.labels"),
    ],
)
def test_settings_that_do_not_go_together(sets, key):
    assert key in errors_of("sst2", sets=[*sets, "task.more_metrics=[]"], environ={})
    load_profile("sst2", sets=[*sets, "task.more_metrics=[]"], environ={}, uses={"taggers"})


def test_options_of_the_chosen_generator():
    flags = {"generators.*.epochs": "3", "generators.*.lr": None, "transfer.generator": "mlm"}
    profile = load_profile("sst2", flags=flags, environ={})
    assert profile.settings.generators["mlm"]["epochs"] == 3
    assert profile.origins["generators.mlm.epochs"] == "--epochs"


values = st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=8)
tables = st.dictionaries(st.sampled_from("abc"), values)


@given(st.lists(tables, max_size=4))
def test_merging_joins_tables_and_names_the_last_layer(layered):
    from kdcli.config.load import Layer, flatten

    def over(below, above):
        if not (isinstance(below, dict) and isinstance(above, dict)):
            return above
        return below | {name: over(below[name], value) if name in below else value for name, value in above.items()}

    expected = {}
    for table in layered:
        expected = over(expected, table)
    merged, origins = merge([Layer(str(number), table) for number, table in enumerate(layered)])
    assert merged == expected
    for key, value in flatten(merged):
        if isinstance(value, dict):
            continue  # an empty table says nothing
        last = max(number for number, table in enumerate(layered) if key in dict(flatten(table)))
        assert origins[key].origin == str(last)


@pytest.mark.parametrize(
    ("optimizer", "lr", "rate"),
    [("adadelta", "auto", 1.0), ("adam", "auto", 0.001), ("adamw", "auto", 0.001), ("adam", 0.5, 0.5)],
)
@pytest.mark.parametrize("profile", [None, "sst2-paper", "demo"])
def test_a_learning_rate_that_is_not_set_follows_the_optimizer(profile, optimizer, lr, rate):
    sets = [f"student.optimizer={optimizer}", f"student.lr={lr}"]
    loaded = load_profile(profile, sets=sets if lr != "auto" else sets[:1], environ={})
    assert loaded.settings.student.learning_rate == rate


@pytest.mark.parametrize(
    ("sets", "key"),
    [
        (["student.temperature=2"], "student.temperature"),
        (["student.kd_loss=kl", "student.kd_weight=0", "student.ce_weight=1", "student.temperature=2"], "temperature"),
        (["student.optimizer=adam", "student.rho=0.9"], "student.rho"),
        (["student.weight_decay=0.1"], "student.weight_decay"),
        (["join.rescale=true"], "join.rescale"),
        (["student.kd_loss=kl", "student.temperature=2"], None),
        (["student.rho=0.9"], None),
        (["student.optimizer=adamw", "student.weight_decay=0.1"], None),
    ],
)
def test_a_setting_without_effect_is_an_error_where_it_was_set(sets, key):
    if key is None:
        assert load_profile("sst2-paper", sets=sets, environ={}).settings.student
        return
    with raising(ProfileError, says="--set") as caught:
        load_profile("sst2-paper", sets=sets, environ={})
    assert key in caught.value.key
