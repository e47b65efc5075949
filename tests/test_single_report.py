"""The report of one X-ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from xray_hf.demo import answers, rendering, single_report
from xray_hf.demo.answers import Answer
from xray_hf.demo.models import Model, Models
from xray_hf.demo.uploads import unpack
from xray_hf.errors import ImageError
from xray_hf.inference import Engine, Prediction
from xray_hf.report import sentences
from xray_hf.task import PAPER_CLASSES


@pytest.fixture(scope="module")
def served(engine: Engine) -> Models:
    return {name: Model.of(engine, name) for name in ("one", "two")}


@pytest.fixture(scope="module")
def answer(served: Models, xray: Path) -> Answer:
    return answers.answer(served, unpack([str(xray)]))[0]


def test_a_report_says_by_what_each_model_answers(served: Models, answer: Answer) -> None:
    content = single_report.as_json(served, answer)
    html = single_report.as_html(content, answer)
    for name, own in content["models"].items():
        found = answer.predictions[name]
        assert isinstance(found, Prediction)
        assert own["probabilities"] == found.probabilities
        assert own["thresholds"] == {"temperature": 1.0, "abstain_below": 0.0, "ood_above": None}
        assert own["context"] == sentences.answer_context(served[name].report, found.decision)
        assert own["version_hash"] == served[name].version
        assert own["version_hash"] in html
    assert content["agreement"] in html
    assert sentences.CAM in html
    assert html.count("Class activation map of ") == 2 * len(PAPER_CLASSES)
    assert "http" not in html
    ElementTree.fromstring(html)


def test_a_rejected_image_has_no_probabilities_or_maps_in_its_report(served: Models, tmp_path: Path) -> None:
    Image.new("L", (300, 300), 90).save(tmp_path / "plain.png")
    [answer] = answers.answer(served, unpack([str(tmp_path / "plain.png")]))
    content = single_report.as_json(served, answer)
    html = single_report.as_html(content, answer)
    assert {own["probabilities"] for own in content["models"].values()} == {None}
    assert "it is almost uniform" in html
    assert "Probabilities" not in html
    assert "Class activation map of " not in html


def test_a_model_without_an_answer_and_a_name_of_markup_spoil_nothing(served: Models, answer: Answer) -> None:
    predictions = {**answer.predictions, "two": ImageError("no number for it")}
    strange = replace(answer, name="<script>.png", predictions=predictions)
    html = single_report.as_html(single_report.as_json(served, strange), strange)
    ElementTree.fromstring(html)
    assert "no number for it" in html
    assert "<script>" not in html


def test_all_maps_of_an_xray_have_one_scale(answer: Answer) -> None:
    found = [each for each in answer.predictions.values() if isinstance(each, Prediction)]
    strong = [replace(each, heatmaps=10 * number + each.heatmaps) for number, each in enumerate(found)]
    top = rendering.scale(strong)
    assert top == max(float(each.heatmaps.max()) for each in strong if each.heatmaps is not None) > 9
    ticks = rendering.ticks(top)
    assert list(ticks) == list(range(0, int(top) + 1, list(ticks)[1]))
    assert 3 <= len(ticks) <= 6
    assert all(place == pytest.approx(value / top) for value, place in ticks.items())
