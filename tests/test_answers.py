"""What the page says of files, without the page."""

from __future__ import annotations

import copy
import csv
import io
import json
import shutil
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import datasets
import dicoms
import pytest
from PIL import Image

from xray_hf.demo import answers, models, rendering, table
from xray_hf.demo.answers import Answer
from xray_hf.demo.examples import MAX_EXAMPLES, OUTCOMES, find
from xray_hf.demo.models import Model, Models
from xray_hf.demo.uploads import MAX_FILES, unpack
from xray_hf.errors import BundleError, ConfigError, DataError, ImageError
from xray_hf.inference import Engine, Prediction
from xray_hf.inference.engine import CORRECTIONS, OUTSIDE
from xray_hf.reading import read, read_grey
from xray_hf.report import sentences
from xray_hf.task import PAPER_CLASSES, REJECTED, UNSURE


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [each.file for each in find(None, tmp_path_factory.mktemp("patients"))[:3]]


def plain(folder: Path) -> Path:
    """An image that no X-ray is."""
    Image.new("L", (300, 300), 90).save(folder / "plain.png")
    return folder / "plain.png"


def answered(served: Models, *paths: Path) -> list[Answer]:
    return answers.answer(served, unpack(map(str, paths)))


@pytest.fixture(scope="module")
def model(engine: Engine) -> Model:
    return Model.of(engine, "one")


@pytest.fixture(scope="module")
def one(model: Model) -> Models:
    return {"one": model}


def test_one_example_of_every_outcome_marked_as_synthetic(tmp_path: Path) -> None:
    examples = find(None, tmp_path)
    captions = [outcome.caption for outcome in OUTCOMES.values()]
    assert [each.caption for each in examples] == [f"SYNTHETIC. {caption}" for caption in captions]
    assert all(each.file.name.startswith("SYNTHETIC-") for each in examples)
    assert {read_grey(each.file).size for each in examples} == {(448, 448)}


def described(folder: Path, text: str) -> Path:
    """A folder of two images with a file of captions."""
    folder.mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.linear_gradient("L").save(folder / name)
    (folder / "examples.csv").write_text(text, encoding="utf-8")
    return folder


def test_an_owners_examples_have_the_captions_and_licences_of_their_csv(tmp_path: Path) -> None:
    text = "file_name,caption,licence\nb.png,A healthy adult,CC BY 4.0\na.png,,\n"
    examples = find(str(described(tmp_path / "owned", text)), tmp_path / "shown")
    assert [each.caption for each in examples] == ["A healthy adult · CC BY 4.0", "a"]
    assert [each.file.name for each in examples] == ["b.png", "a.png"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (
            "file_name,caption\na.png,x\n",
            "has the columns file_name, caption; expected CSV in UTF-8 with",
        ),
        ("", "has the columns none; expected CSV in UTF-8 with the columns file_name, caption, licence"),
        ("file_name,caption,licence\n", "lists no image"),
        ("file_name,caption,licence\nc.png,x,y\n", r"row 1 of .* names 'c\.png', which is not a file in"),
        ('file_name,caption,licence\n"a.png,x,y', "cannot be read"),
    ],
)
def test_a_bad_csv_of_examples_stops_the_start(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(ConfigError, match=rf"--examples: .*{part}"):
        find(str(described(tmp_path / "owned", text)), tmp_path / "shown")


def test_an_owners_examples_keep_their_format_and_get_a_picture_that_browsers_show(tmp_path: Path) -> None:
    owned = tmp_path / "owned"
    owned.mkdir()
    (owned / "z.dcm").write_bytes(dicoms.native())
    for number in range(2, MAX_EXAMPLES + 5):
        Image.linear_gradient("L").save(owned / f"{number:02} of 20.tiff")
    examples = find(str(owned), tmp_path / "shown")
    assert [each.file.name for each in examples[:2]] == ["02_of_20.tiff", "03_of_20.tiff"]
    assert examples[-1].file.name == "13_of_20.tiff"
    assert find(str(owned / "z.dcm"), tmp_path / "one")[0].file.read_bytes() == (owned / "z.dcm").read_bytes()
    assert all(each.preview.read_bytes().startswith(b"\x89PNG") for each in examples)
    assert all(tmp_path / "shown" in each.file.parents for each in examples)


def test_an_owners_examples_may_be_rows_of_parquet(patients: list[Path], tmp_path: Path) -> None:
    stored = [{"bytes": each.read_bytes(), "path": each.name} for each in patients]
    features = {"image": datasets.Image(), **dict.fromkeys(("caption", "licence"), datasets.Value("string"))}
    columns = {"image": stored, "caption": ["a", "b", "c"], "licence": [None, "CC0", "CC0"]}
    table = datasets.Dataset.from_dict(columns, datasets.Features(features))
    table.to_parquet(tmp_path / "rows.parquet")
    examples = find(str(tmp_path / "rows.parquet"), tmp_path / "shown")
    assert [each.caption for each in examples] == ["a", "b · CC0", "c · CC0"]
    assert [each.file.read_bytes() for each in examples] == [each.read_bytes() for each in patients]


def test_an_owners_examples_that_are_none_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no files in"):
        find(str(tmp_path), tmp_path / "shown")
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"--examples: a\.png: "):
        find(str(tmp_path), tmp_path / "shown")


def test_models_of_one_name_are_told_apart(cnn_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").symlink_to(cnn_bundle)
    assert list(models.load([cnn_bundle, tmp_path / "copy"], "onnxruntime")) == [
        f"xray-cnn ({cnn_bundle})",
        f"xray-cnn ({tmp_path / 'copy'})",
    ]
    assert list(models.load([cnn_bundle], "onnxruntime")) == ["xray-cnn"]


def test_a_model_has_the_name_that_it_is_published_under(cnn_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "xray-cnn-clinic").symlink_to(cnn_bundle)
    loaded = models.load([cnn_bundle, tmp_path / "xray-cnn-clinic"], "onnxruntime")
    assert list(loaded) == ["xray-cnn", "xray-cnn-clinic"]


def of_sources(engine: Engine, *kinds: str) -> Model:
    found = copy.copy(engine)
    found.manifest = replace(engine.manifest, sources=kinds)
    return Model.of(found, "")


def test_models_of_the_most_sources_answer_unless_others_are_chosen(
    engine: Engine, patients: list[Path]
) -> None:
    engines = {"a": of_sources(engine, "coronahack"), "b": of_sources(engine, "coronahack", "folder")}
    assert models.preferred(engines) == ["b"]
    for wrong in (None, [], ["c"], 3, "a", {"a": 1}, [["a"], {}, None]):
        assert list(models.choose(engines, wrong)) == ["b"]
    assert models.choose({}) == {}
    assert list(models.choose(engines, ["b", "a"])) == ["a", "b"]
    uploads = [unpack([str(each)]) for each in patients[:3]]
    found = [own for (own,) in answers.answer_visitors(engines, uploads, [None, ["a"], ["b"]])]
    assert [list(each.predictions) for each in found] == [["b"], ["a"], ["b"]]
    assert [each.name for each in found] == [path.name for path in patients[:3]]


def test_models_of_different_classes_are_not_served_together(cnn_bundle: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(cnn_bundle, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    names = {"0": "healthy", "1": "ill", "2": "unknown"}
    (other / "config.json").write_text(json.dumps({**config, "id2label": names}))
    with pytest.raises(BundleError, match=r"different classes \(.*healthy, ill, unknown\); serve them one"):
        models.load([cnn_bundle, other], "onnxruntime")


def test_every_file_has_the_answer_that_the_engine_gives(
    model: Model, engine: Engine, patients: list[Path]
) -> None:
    paths = [patients[n % 3] for n in range(20)]  # more than one batch
    for path, found in zip(paths, answered({"one": model, "two": model}, *paths), strict=True):
        assert found.name.split(" (")[0] == path.name
        for said in found.predictions.values():
            assert not isinstance(said, ImageError)
            assert said.probabilities == pytest.approx(engine.predict(path).probabilities, abs=1e-5)


def test_a_file_that_cannot_be_read_leaves_the_others_alone(
    one: Models, patients: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "scan.png").write_bytes(b"")
    first, torn, last = answered(one, patients[0], tmp_path / "scan.png", patients[1])
    assert str(torn.reading) == "scan.png is empty (0 bytes); copy or download it again."
    assert torn.predictions == {}
    assert len(first.predictions) == len(last.predictions) == 1


def test_visitors_who_share_a_batch_get_their_own_answers(one: Models, patients: list[Path]) -> None:
    uploads = unpack(map(str, patients))
    given = [[], uploads[:2], uploads[2:]]
    none, two, single = answers.answer_visitors(one, given, [None] * 3)
    assert [len(none), [each.name for each in two], [each.name for each in single]] == [
        0,
        [path.name for path in patients[:2]],
        [patients[2].name],
    ]


def test_in_bulk_is_the_same_in_order(one: Models, patients: list[Path]) -> None:
    uploads = unpack(str(patients[n % 3]) for n in range(20))
    found = [row for batch in answers.answer_in_bulk(one, uploads, table.of) for row in batch]
    assert [row.file for row in found] == [upload.name for upload in uploads]


def test_a_version_changes_with_the_calibration(one: Models, cnn_bundle: Path) -> None:
    described = models.describe(one)["one"]
    assert described["labels"] == list(PAPER_CLASSES)
    assert described["is_synthetic"]
    assert len(described["version"]) == 12


def test_a_rejected_image_shows_why_and_no_probabilities(one: Models, tmp_path: Path) -> None:
    html = rendering.as_html(one, answered(one, plain(tmp_path)))
    assert "rejected: not a frontal chest X-ray</p>" in html
    assert "Why: it is almost uniform." in html
    assert "<table" not in html
    assert 'class="map"' not in html


def test_an_answer_shows_every_class_and_heatmap(one: Models, patients: list[Path]) -> None:
    html = rendering.as_html(one, answered(one, patients[1]))
    assert all(f'<th scope="row">{label}</th>' in html for label in PAPER_CLASSES)
    assert html.count('class="map"') == len(PAPER_CLASSES)
    assert html.count(" selected>") == 1
    assert "http" not in html.replace("data:image", "")


@pytest.mark.parametrize(
    ("reason", "headline", "why"),
    [
        (OUTSIDE, "rejected: outside the training distribution", "the answer would be a guess"),
        (f"it {CORRECTIONS['negative']}", "rejected", f"it {CORRECTIONS['negative']}"),
    ],
)
def test_a_rejection_claims_no_more_than_is_known(
    one: Models, patients: list[Path], reason: str, headline: str, why: str
) -> None:
    found = answered(one, patients[0])[0].predictions["one"]
    assert isinstance(found, Prediction)
    said = rendering.said(replace(found, decision=REJECTED, reason=reason))
    assert (said["headline"], said["why"], said["shares"]) == (headline, why, {})
    assert (said["decision"], said["reason"]) == (REJECTED, reason)


def test_models_that_disagree_say_so(one: Models, model: Model, patients: list[Path], tmp_path: Path) -> None:
    [first] = answered(one, patients[0])
    [other] = answered({"two": model}, plain(tmp_path))
    both = {**first.predictions, **other.predictions}
    served = dict.fromkeys(("one", "two", "three"), model)
    sentence, do_agree = rendering.verdict(served, both)
    assert not do_agree
    assert sentence.startswith("Models disagree: rely on neither (one answers ")
    (sure,) = first.predictions.values()
    assert isinstance(sure, Prediction)
    assert "do not rely on any of them (" in rendering.verdict(served, {**both, "three": sure})[0]
    normal, unsure = replace(sure, decision="Normal"), replace(sure, decision=UNSURE)
    said = rendering.verdict(served, {"one": normal, "two": unsure})
    assert said == ("one answers Normal, two is unsure.", True)
    assert rendering.verdict(served, {"one": unsure, "two": unsure}) == ("Both models are unsure.", True)


def test_agreement_of_models_of_the_same_data_is_called_little(
    model: Model, one: Models, patients: list[Path]
) -> None:
    [found] = answered(one, patients[0])
    (sure,) = found.predictions.values()
    assert isinstance(sure, Prediction)
    both = dict.fromkeys(("one", "two"), replace(sure, decision="Normal"))
    alike, do_agree = rendering.verdict({"one": model, "two": model}, both)
    assert do_agree
    assert alike == f"Both models answer Normal. {sentences.AGREEMENT}"
    sources = tuple(replace(each, name="another") for each in model.report.sources)
    stranger = replace(model, report=replace(model.report, sources=sources))
    assert rendering.verdict({"one": model, "two": stranger}, both) == ("Both models answer Normal.", True)


def test_names_of_files_are_no_html(one: Models, patients: list[Path]) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    found = Answer(name, read(patients[0]), answered(one, patients[0])[0].predictions)
    for html in (rendering.as_html(one, [found]), table.as_html(one, [table.of(found)])):
        assert "<img src=x" not in html
        assert "&lt;img src=x" in html


def test_the_table_holds_files_with_and_without_an_answer(
    one: Models, patients: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "torn.png").write_bytes(b"torn")
    found = [table.of(each) for each in answered(one, patients[0], tmp_path / "torn.png")]
    html = table.as_html(one, found)
    assert "2 files: 1 answered, 1 without an answer" in html
    assert "torn.png is not a readable image" in html
    [good, bad] = csv.DictReader(io.StringIO(table.as_csv(found)))
    assert good["file"] == patients[0].name
    assert sum(float(good[f"one: {label}"]) for label in PAPER_CLASSES) == pytest.approx(1, abs=1e-3)
    assert bad["error"].startswith("torn.png is not a readable image")
    assert bad["one: decision"] == ""


def test_the_table_says_why_and_shows_no_share_of_a_rejected_image(one: Models, tmp_path: Path) -> None:
    found = [table.of(each) for each in answered(one, plain(tmp_path))]
    html = table.as_html(one, found)
    assert "it is almost uniform" in html
    assert "%</td>" not in html
    [cells] = map(table.as_cells, found)
    assert cells["one: decision"] == "rejected"
    assert cells["one: reason"] == "not a frontal chest X-ray: it is almost uniform"
    assert {cells[f"one: {label}"] for label in PAPER_CLASSES} == {None}
    [line] = csv.DictReader(io.StringIO(table.as_csv(found)))
    assert {line[f"one: {label}"] for label in PAPER_CLASSES} == {""}


def test_the_table_counts_decisions_and_says_where_models_agree(model: Model, patients: list[Path]) -> None:
    served = {"one": model, "two": model}
    [found] = answered({"one": model}, patients[0])
    (prediction,) = found.predictions.values()
    assert isinstance(prediction, Prediction)

    def row(*decisions: str) -> table.Row:
        own = [replace(prediction, decision=decision) for decision in decisions]
        return table.Row("a.png", models=dict(zip(served, own, strict=True)))

    rows = [row("Normal", "Normal"), row("Normal", "COVID-19"), row("Normal", UNSURE), row(UNSURE, UNSURE)]
    rows += [row(REJECTED, "Normal"), table.Row("b.png", error="torn")]
    assert [table.agreement(each) for each in rows] == ["agree", "disagree", *["undecided"] * 3, ""]
    assert table.count_decisions(served, rows) == {
        "Normal": {"one": 3, "two": 2},
        "Pneumonia": {"one": 0, "two": 0},
        "COVID-19": {"one": 0, "two": 1},
        UNSURE: {"one": 1, "two": 2},
        REJECTED: {"one": 1, "two": 0},
        "no answer": {"one": 1, "two": 1},
    }
    cells = list(csv.DictReader(io.StringIO(table.as_csv(rows))))
    assert cells[1]["agreement"] == "disagree"
    html = table.as_html(served, rows)
    assert '<tr><th scope="row">Normal</th><td>3</td><td>2</td></tr>' in html


def test_what_was_left_out_of_an_archive_is_said(one: Models, patients: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.write(patients[0], "a/x.png")
        file.write(patients[1], "b/x.png")
        file.writestr("labels.csv", "a,b")
        file.writestr("__MACOSX/._x.png", "")
    left_out: Counter[str] = Counter()
    found = table.collect(one, [str(path)], lambda *_, **__: None, left_out)
    assert [(row.file, row.error) for row in found] == [("a/x.png", ""), ("b/x.png", "")]
    for html in (table.as_html(one, found, left_out), rendering.as_html(one, [], left_out)):
        assert "2 files were skipped: 1 .csv, 1 hidden." in html
    assert "skipped" not in table.as_html(one, found)


def test_a_model_without_an_answer_leaves_the_others_theirs(
    model: Model, one: Models, patients: list[Path]
) -> None:
    [found] = answered(one, patients[0])
    both = {**found.predictions, "two": ImageError("no number for it")}
    row = table.of(Answer("a.png", found.reading, both))
    assert row.error == ""
    assert table.as_cells(row)["two: reason"] == "no number for it"
    assert table.as_html({"one": model, "two": model}, [row]).count("%</td>") == len(PAPER_CLASSES)


def test_no_cell_of_the_csv_is_a_formula() -> None:
    text = table.as_csv([table.Row("=HYPERLINK(1)", error="@bad")])
    assert text.splitlines()[1] == "'=HYPERLINK(1),'@bad,"


def test_of_too_many_files_the_last_row_says_how_many_are_left_out(one: Models) -> None:
    done: list[tuple[int, int]] = []
    paths = ["gone.png"] * (MAX_FILES + 7)
    found = table.collect(one, paths, lambda steps, **_: done.append(steps))
    assert len(found) == MAX_FILES + 1
    assert found[-1].error == f"7 more files are left out; send at most {MAX_FILES} at a time."
    assert done[-1] == (MAX_FILES + 1, MAX_FILES + 1)


def test_the_page_counts_files_over_the_limit_apart_from_those_read(one: Models) -> None:
    html = table.as_html(one, table.collect(one, ["gone.png"] * (MAX_FILES + 7), lambda *_, **__: None))
    assert f"{MAX_FILES} files: 0 answered, {MAX_FILES} without an answer.\n7 more files are left out" in html
