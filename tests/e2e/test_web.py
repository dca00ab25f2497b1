"""``kd export web`` in a real browser, with the libraries of npm.

These tests are slow. Without a Chromium, or without the libraries, they are skipped, unless CHROMIUM names the one and
WEB_RUNTIME the folder of the others, as ``.ci/run`` does.
"""

# ruff: noqa: RUF001
import os
import random
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from e2e.conftest import opened
from made_student import MAX_LENGTH, PAIR, SCORE, SINGLE, TEXTS, WORDS, make_student

from kdcli.api import Task
from kdcli.export.web import export_web
from kdcli.student.deferral import Calibration, Familiar
from kdcli.student.student import load_student

pytestmark = pytest.mark.slow
RUNTIME = os.environ.get("WEB_RUNTIME")
READY = "kd.ready"  # its model is loaded

SET = Task("sets", "single", ("a", "b", "c"), metric="micro_f1", multi_label=True, thresholds=(0.3, 0.5, 0.9))
PIECES = ("##s", "##ing", "un", "##wa", "##rm", "o", "##δ", "##ο", "##σ")
TASKS = {"single": SINGLE, "pieces": SINGLE, "pair": PAIR, "score": SCORE, "set": SET}
TASKS |= {"gru": PAIR, "kimcnn": PAIR, "dan": PAIR}
OTHERS = {
    "gru": {"cell": "gru", "layers": 2, "pooling": "max"},
    "kimcnn": {"plugin": "kimcnn"},
    "dan": {"plugin": "dan"},
}
ODD = [
    *("ΟΔΟΣ", "Σ", "ὈΔΥΣΣΕΎΣ", "İstanbul", "STRASSE ẞ", "Ǆ ǆ", "ﬁlm", "ｆｉｌｍ", "naïve", "café CAFE\u0301"),
    *("電影", "𠀀𠀁", "good電bad", "\u2f00", "한국어", "ภาพยนตร์", "हिन्दी", "عربي", "עברית", "e\u0301\u0327good"),
    *("good\u200bbad", "\ufeffgood", "good\u00adbad", "good\u00a0bad", "good\u3000bad", "good\u0085bad"),
    *("a\tb", "a\r\nb", "a\x00b", "a\x0bb", "\u202egood\u202c", "\u0301\u0301", "\ufffdgood", "\u2028\u2029"),
    *("[MASK]", "[mask]", "[MASK][MASK]good", "good[MASK]bad", "[PAD]", "[UNK]", "[ MASK ]", "##ing", "warming"),
    *("👍🏽", "👨‍👩‍👧", "🇩🇪", "good🎬bad", "©®™", "½²", "１２３", "$1,000.50", "don't", "—“”…‹›", "\u037e", "_a_"),
    *("w" * 100, "w" * 101, "good" * 300, "good " * 3 * MAX_LENGTH, "x", ".", "", " ", "<b>bad</b> &amp; </script>"),
]


def texts_of(number):
    """Return so many texts: odd ones, each alone, then mixtures with known words."""
    draws = random.Random(number)
    words = [*WORDS.split(), *ODD]
    mixed = [draws.choice(("", " ")).join(draws.choices(words, k=draws.randint(1, 12))) for _ in range(number)]
    return [*TEXTS, *ODD, *mixed][:number]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Students of all kinds, the exported page of each in a folder, and the address of a server for the folders."""
    if RUNTIME is None:
        pytest.skip("WEB_RUNTIME names no folder of the libraries")
    root = tmp_path_factory.mktemp("web")
    students = {}
    for name, task in TASKS.items():
        options = {"pieces": PIECES} if name == "pieces" else OTHERS.get(name, {})
        folder = make_student(root / f"{name}-student", task, **options)
        if name == "single":
            student = load_student(folder)
            margins = np.abs(np.diff(student.logits([texts_of(100)]), axis=1))
            familiar = Familiar(unknown=0.5, words=20)
            calibration = Calibration(99, 0.9, familiar, [float(np.median(margins))], [0.05, 0.2], [0.5, 1.0])
            calibration.save(folder / "calibration.json")
        export_web(student=folder, output=root / name, runtime=RUNTIME)
        students[name] = load_student(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield root, students, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def typed(page, *texts):
    """Type texts, and wait until their words are coloured."""
    areas = page.query_selector_all("textarea")
    page.evaluate("document.getElementById('words').replaceChildren()")
    for area, text in zip(areas, texts, strict=True):
        area.fill(text)
    page.wait_for_selector("#words p")


@pytest.mark.parametrize("name", TASKS)
def test_the_logits_are_those_of_python(chromium, made, name):
    _, students, url = made
    student, texts = students[name], texts_of(200)
    columns = [texts] if student.task.kind == "single" else [texts, texts[7:] + texts[:7]]
    rows = [list(row) for row in zip(*columns, strict=True)]
    with opened(chromium, f"{url}/{name}/", READY) as page:
        ids = page.evaluate("rows => rows.map(kd.ids)", rows)
        one_by_one = "const all = []; for (const row of rows) all.push(await kd.logits(row)); return all;"
        logits = page.evaluate(f"async rows => {{ {one_by_one} }}", rows)
    for column, column_texts in enumerate(columns):
        expected = [student._encoder.encode_few([text]).words.tolist() for text in column_texts]
        differing = [text for text, row, own in zip(column_texts, ids, expected, strict=True) if row[column] != own]
        assert differing == []
    assert np.abs(np.array(logits) - student.logits(columns)).max() < 1e-4


@pytest.mark.parametrize("name", TASKS)
def test_what_is_typed_is_answered_and_explained(chromium, made, name):
    _, students, url = made
    student = students[name]
    first = "The PLOT was good, but warm dull plot!"
    texts = (first,) if student.task.kind == "single" else (first, "a bad film [MASK]")
    row = [first] if student.task.kind == "single" else [texts]
    (answer,), (explanation,) = student.predict(row), student.explain(row)
    with opened(chromium, f"{url}/{name}/", READY) as page:
        assert page.is_hidden("main") and page.is_hidden("#status")
        typed(page, *texts)
        said, body = page.inner_text("h2"), page.inner_text("main")
        marks = page.query_selector_all("#words mark")
        assert page.inner_text("#words").split() == " ".join(texts).split()
        assert [mark.inner_text() for mark in marks] == [word.text for word in explanation.words]
        effects = [float(mark.get_attribute("title")) for mark in marks]
        assert effects == pytest.approx([word.logit for word in explanation.words], abs=0.006)
        page.fill("textarea", " \n")
        assert page.wait_for_selector("main", state="hidden") is None
    if student.task.is_score:
        assert float(said) == pytest.approx(answer.score, abs=0.006)
        return
    names = dict(zip(student.task.labels, student.task.names or student.task.labels, strict=True))
    labels = answer.labels if student.task.multi_label else (answer.label,)
    assert sorted(said.split(", ")) == sorted(names[label] for label in labels) or (not labels and "none" in said)
    for label, share in answer.probabilities.items():
        assert names[label] in body and f"{100 * share:.1f} %" in body


def test_odd_texts_are_clear(chromium, made):
    _, students, url = made
    with opened(chromium, f"{url}/single/", READY) as page:
        typed(page, "good " * (MAX_LENGTH + 3) + "unheard")
        assert len(page.query_selector_all("#words .unread")) == 4
        assert f"more than {MAX_LENGTH} words" in page.inner_text("ul")
        typed(page, "an unheard film")
        assert [one.inner_text() for one in page.query_selector_all(".unknown")] == ["an", "unheard"]
        typed(page, "<img src=x onerror=alert(1)> good")
        assert "<img src=x onerror=alert(1)> good" in page.inner_text("#words") and not page.query_selector("main img")
        page.evaluate("document.querySelector('textarea').value = 'good \\ud800 film'")
        page.dispatch_event("textarea", "input")
        page.wait_for_function("document.getElementById('words').innerText.includes('\\ufffd')")
        found = set()
        for text in ("good film", "very good", "good not dull", "bad", "seen", "unheard words", "good " * 30):
            (answer,) = students["single"].predict([text], defer=True)
            typed(page, text)
            page.wait_for_function("text => document.getElementById('words').innerText.includes(text.trim())", arg=text)
            assert ("unsure" in page.inner_text("ul")) is answer.deferred, text
            found.add(answer.deferred)
        assert found == {True, False}


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_in_light_and_dark(chromium, made, width, scheme):
    *_, url = made
    with opened(chromium, f"{url}/pair/", READY, viewport={"width": width, "height": 700}, color_scheme=scheme) as page:
        typed(page, "good " * 40, "w" * 300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        paper, ink = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
        light = [sum(map(int, colour[4:-1].split(","))) for colour in (paper, ink)]
        assert (light[0] > light[1]) is (scheme == "light")


def test_a_single_file_opens_from_the_disk(chromium, made, tmp_path):
    root, students, _ = made
    export_web(student=root / "pieces-student", output=tmp_path / "page.html", single=True, runtime=RUNTIME)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    with opened(chromium, (tmp_path / "page.html").as_uri(), READY) as page:
        found = page.evaluate("kd.logits(['the film was good'])")
        typed(page, "the film was good")
    assert found == pytest.approx(students["pieces"].logits([["the film was good"]])[0].tolist(), abs=1e-4)


def test_where_the_model_cannot_run(chromium, made):
    root, _, url = made
    page = chromium.new_page()
    page.add_init_script("WebAssembly.validate = () => false")  # as a browser without SIMD says
    page.goto(f"{url}/single/")
    page.evaluate(READY)
    assert "SIMD" in page.inner_text("#status") and page.is_visible("#status")
    page.close()
    page = chromium.new_page()
    page.goto((root / "single" / "index.html").as_uri())
    page.evaluate(READY)
    assert "http.server" in page.inner_text("#status") and "--single" in page.inner_text("#status")
    page.close()


def test_the_page_asks_nobody_else(made):
    root, *_ = made
    page = (root / "single" / "index.html").read_text("utf-8")
    assert "http://" not in page and "https://" not in page
    assert "onnxruntime-web 1.30.0" in page and "@huggingface/tokenizers 0.2.0" in page
    assert {path.name for path in Path(root / "single").iterdir()} >= {"index.html", "model.onnx", "tokenizer.json"}
