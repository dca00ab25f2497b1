import json
import shutil

import pytest
from huggingface_hub import ModelCard
from made_student import PAIR, SCORE, SINGLE, TEXTS, make_student
from made_teacher import rewrite
from raising import raising

import kdcli
from kdcli.api import Task
from kdcli.errors import DataError, MissingError
from kdcli.export.hub import Origin, export_hub_folder, without_folders
from kdcli.files import MARKER
from kdcli.student.card import student_card

SST2 = Task("sst2", "single", ("0", "1"), names=("negative", "positive"), more_metrics=("mcc",))
FILES = {"model.safetensors", "config.json", "tokenizer.json", "metrics.json", "README.md"}


def test_the_folder_is_the_student(tmp_path):
    student = make_student(tmp_path / "student")
    (student / "notes.txt").write_text("not for everyone")
    result = export_hub_folder(student=student, output=tmp_path / "hub")
    assert {path.name for path in (tmp_path / "hub").iterdir()} - {MARKER} == FILES == set(result.bytes)
    for name in FILES - {"config.json", "README.md"}:
        assert (tmp_path / "hub" / name).read_bytes() == (student / name).read_bytes()
        assert result.bytes[name] == (student / name).stat().st_size
    assert kdcli.load_student(tmp_path / "hub").predict(TEXTS) == kdcli.load_student(student).predict(TEXTS)


def test_the_card_says_whether_words_are_read_in_pieces(tmp_path):
    student = kdcli.load_student(make_student(tmp_path / "student"))
    kinds = []
    for vectors in ("encoder bert", "file glove.txt"):
        training = {**student.config["training"], "word_pieces": True}
        config = {**student.config, "vectors": vectors, "training": training}
        kinds.append("words and pieces of words, " in student_card(config, student.metrics, SINGLE, 1))
    assert kinds == [True, False]
    assert "words and pieces of words" not in student_card(student.config, student.metrics, SINGLE, 1)


def test_nothing_tells_of_this_machines_folders(tmp_path):
    student, origin = make_student(tmp_path / "student"), Origin(teacher="/home/somebody/big")
    export_hub_folder(student=student, output=tmp_path / "hub", origin=origin)
    for name in ("README.md", "config.json"):
        text = (tmp_path / "hub" / name).read_text("utf-8")
        assert "/home" not in text and str(tmp_path) not in text and "minilm" in text
    assert "| teacher | big |" in (tmp_path / "hub" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("vectors", "kept"),
    [(None, None), ("file /a/my v.txt", "file my v.txt"), ("encoder a/bert", "encoder a/bert")],
)
def test_names_on_the_hub_stay_what_they_are(vectors, kept):
    of, stays = ((name or "").partition(" ")[2] for name in (vectors, kept))
    found = without_folders({"vectors": vectors, "training": {"vectors": of, "lr": 1.0}, "seed": 1})
    assert found == {"vectors": kept, "training": {"vectors": stays, "lr": 1.0}, "seed": 1}


def test_the_card_is_what_the_hub_reads(tmp_path):
    student = make_student(tmp_path / "student", SST2)
    origin = Origin(licence="mit", teacher="google-bert/bert-large-uncased", transfer="lite+heavy")
    export_hub_folder(student=student, output=tmp_path / "hub", origin=origin)
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    data = card.data
    assert (data.license, data.language, data.library_name) == ("mit", "en", "kdcli")
    assert data.tags == ["knowledge-distillation", "bilstm", "sst2"]
    assert (data.datasets, data.metrics) == (["nyu-mll/glue"], ["accuracy", "matthews_correlation"])
    results = {one.metric_type: one.metric_value for one in data.eval_results}
    assert results == {"accuracy": 0.75, "f1": 0.5, "matthews_correlation": 0.25}
    assert {(one.dataset_type, one.dataset_config) for one in data.eval_results} == {("nyu-mll/glue", "sst2")}
    metrics = json.loads((student / "metrics.json").read_text())
    rows = {"parameters": f"{metrics['parameters']:,}", "teacher": origin.teacher, "transfer set": "lite+heavy"}
    assert [name for name, value in rows.items() if f"| {name} | {value} |" not in card.text] == []
    assert "onnx" not in card.content


def test_a_baseline_has_no_teacher(tmp_path):
    student = make_student(tmp_path / "baseline")
    training = kdcli.load_student(student).config["training"]
    rewrite(student, training={**training, "kd_weight": 0.0, "ce_weight": 1.0})
    export_hub_folder(student=student, output=tmp_path / "hub", origin=Origin(teacher="big", transfer="lite"))
    text = (tmp_path / "hub" / "README.md").read_text("utf-8")
    assert "| teacher |" not in text and "| transfer set |" not in text
    assert "Trained on labels alone, without a teacher." in text


def test_another_task_another_card(tmp_path):
    for task, origin in ((PAIR, Origin()), (SCORE, Origin(dataset="me/scores", language="de"))):
        student = make_student(tmp_path / task.metric / "student", task)
        export_hub_folder(student=student, output=tmp_path / task.metric / "hub", origin=origin)
        card = ModelCard.load(tmp_path / task.metric / "hub" / "README.md")
        assert card.data.get("datasets") == ([origin.dataset] if origin.dataset else None)
        assert card.data.license == "unknown" and card.data.language == origin.language
        assert {one.dataset_type for one in card.data.eval_results} == {origin.dataset or "toy"}
        assert 'student.predict([("a text", "another")])' in card.text
    assert card.data.metrics == ["pearsonr", "spearmanr"]


@pytest.mark.parametrize(("name", "key"), [("config.json", "training"), ("metrics.json", "dev")])
def test_a_student_that_is_not_whole(tmp_path, name, key):
    student = make_student(tmp_path / "student", SINGLE)
    rewrite(student, name, **{key: ...})
    with pytest.raises(DataError, match=r"is not whole|is missing"):
        export_hub_folder(student=student, output=tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that is a folder, with a folder for each name and revision."""

    class Api:
        def __init__(self, token=None):
            self.token = token

        def create_repo(self, name, *, private, exist_ok):
            if self.token == "wrong":
                raise PermissionError("403: this token\nmay not write")
            assert exist_ok
            (tmp_path / "hub" / name).mkdir(parents=True, exist_ok=True)
            return f"https://huggingface.co/{name}" + "?private" * bool(private)

        def upload_folder(self, *, repo_id, folder_path, ignore_patterns):
            ignored = shutil.ignore_patterns(*ignore_patterns)
            shutil.copytree(folder_path, tmp_path / "hub" / repo_id, ignore=ignored, dirs_exist_ok=True)

    def download(name, *, revision, allow_patterns):
        folder = tmp_path / "hub" / name
        if not folder.is_dir() or revision not in (None, "v1"):
            raise ConnectionError("no such\nstudent")
        return str(shutil.copytree(folder, tmp_path / "cache", dirs_exist_ok=True))

    monkeypatch.setattr("kdcli.export.hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return tmp_path / "hub"


def test_to_the_hub_and_back(hub, tmp_path):
    student = kdcli.load_student(make_student(tmp_path / "student"))
    address = student.push_to_hub("me/toy", private=True, licence="mit", teacher="/home/somebody/big")
    assert address == "https://huggingface.co/me/toy?private" and student.folder == tmp_path / "student"
    assert {path.name for path in (hub / "me/toy").iterdir()} == FILES
    card = ModelCard.load(hub / "me/toy/README.md")
    assert card.data.license == "mit" and 'from_pretrained("me/toy")' in card.text and "| teacher | big |" in card.text
    loaded = [
        kdcli.Student.from_pretrained("me/toy"),
        kdcli.Student.from_pretrained("me/toy", revision="v1"),
        kdcli.load_student("me/toy"),
        kdcli.Student.from_pretrained(tmp_path / "student"),
    ]
    assert all(one.predict(TEXTS) == student.predict(TEXTS) for one in loaded)


def test_a_hub_that_has_no_such_student_or_refuses(hub, tmp_path, monkeypatch):
    student = kdcli.load_student(make_student(tmp_path / "student"))
    with raising(MissingError, r"^[^\n]*$", hint="hf auth login"):
        student.push_to_hub("me/toy", token="wrong")
    for load in (kdcli.load_student, kdcli.Student.from_pretrained):
        with raising(MissingError, r"^[^\n]*me/other[^\n]*$"):
            load("me/other")
    monkeypatch.chdir(tmp_path)
    assert kdcli.load_student("./student").task == student.task
    for place in (tmp_path / "none", "./none", "runs/sst2/student"):  # nothing that a hub would have
        with pytest.raises(DataError):
            kdcli.load_student(place)
