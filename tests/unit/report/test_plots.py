from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest

from kdcli.report import plots
from kdcli.report.collect import Curve
from kdcli.student.deferral import Calibration, Familiar

LOSSES = ["loss", "dev_loss"]
ODD = "a <b> & $x_1$ \"c\" 'd'"


DRAWN: list[Callable[[], str]] = [
    lambda: plots.curves(
        "a", [Curve("student", "", [1, 2], {"loss": [0.1, None], "dev_loss": [9.0, 8.0]})], LOSSES, y=ODD
    ),
    lambda: plots.curves(
        "b", [Curve("teacher", f"lr {lr}", [1, 9], {"loss": [0.01, 9.0]}) for lr in "123"], LOSSES, y="loss"
    ),
    lambda: plots.curves("c", [Curve("student", "", [1], {"f1": [None]})], ["f1"], y="f1", times=100, teacher=50.0),
    lambda: plots.scatter("g", np.arange(5.0), np.arange(5.0), labels=("gold", ODD), colour=1),
    lambda: plots.scatter("h", np.ones(1), np.ones(1), labels=("gold", "student"), colour=1),
    lambda: plots.tradeoff("i", {ODD: (100.0, 80.0), "student": (40_000.0, 79.0)}, y="dev accuracy"),
    lambda: plots.deferral("j", Calibration(9, 0.5, Familiar(0, 9), [2.0], [0.3, 0.6], [0.5, 1.0], [0.7, 0.6], 0.8)),
    lambda: plots.deferral("k", Calibration(9, 0.9, Familiar(0, 9), [], [0.3], [1.0])),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_a_plot_is_one_element_in_the_colours_and_letters_of_the_page(draw: Callable[[], str]) -> None:
    svg = draw()
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg" and root.get("role") == "img" and root.get("aria-label")
    texts = [element for element in root.iter() if element.tag == "text"]
    assert texts and all("fill: currentColor" in (text.get("style") or "") for text in texts)
    assert not re.findall(r"#[0-9a-f]{6}|<style|font-family|xmlns|<script", svg)
    assert svg == draw()


def test_labels_are_text() -> None:
    root = ElementTree.fromstring(DRAWN[0]())
    texts = ["".join(element.itertext()).strip() for element in root.iter() if element.tag == "text"]
    assert texts.count(ODD) == 1 and {"training", "dev"} <= set(texts)
    assert ODD in (root.get("aria-label") or "")


def test_identifiers_of_two_plots_differ() -> None:
    found = [set(re.findall(r'id="([^"]+)"', draw())) for draw in DRAWN]
    assert sum(map(len, found)) == len(set().union(*found)) > 0


def test_a_long_label_leaves_room() -> None:
    svg = plots.tradeoff("x", {"very " * 50 + "long": (100.0, 80.0), "student": (400.0, 79.0)}, y="dev accuracy")
    assert "very very very very very very v…" in svg


@pytest.mark.parametrize(("teacher", "apart"), [(96.9, False), (90.0, True)])
def test_models_that_are_equal_look_so(teacher, apart):
    svg = plots.tradeoff("t", {"teacher": (100, teacher), "student": (1000, 96.914)}, y="dev accuracy")
    one, two = map(float, re.findall(r'<use [^>]*y="([\d.]+)"', svg)[-2:])  # the markers of the two models
    assert (abs(one - two) > 20) == apart
