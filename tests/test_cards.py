"""Cards say what the bundle's files say, all of it, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import reports
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index

from xray_hf import manifest
from xray_hf.data import sources
from xray_hf.errors import BundleError
from xray_hf.files import write_json
from xray_hf.hub import cards

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = (ROOT / "pretrained" / "xray-resnet18", ROOT / "pretrained" / "xray-cnn")
of_each = pytest.mark.parametrize("bundle", SHIPPED, ids=lambda folder: folder.name)
PLACEHOLDERS = re.compile(r"\{\{|\{%|TODO|More Information Needed|\bnan\b|Undefined|: None|\| None")
# Of the Hub's annotated template, as huggingface_hub has it; ours are spelt in our own way.
EXTERNAL = ("nih_figure1", "openist", "spain_twitter")
SECTIONS = (
    *("Model details", "Uses", "Direct use", "Downstream use", "Out-of-scope use"),
    *(
        "Bias, risks and limitations",
        "Recommendations",
        "How to get started",
        "Training",
        "Data",
        "Procedure",
    ),
    *("Speed and size", "Evaluation", "External validation", "Internal test set", "Shortcut controls"),
    *("Calibration and abstention", "OOD detection", "Subgroups", "Likely label errors"),
    *("Environmental impact", "Technical specifications", "Citation", "Glossary", "Authors and contact"),
)
LINKS = {"https://www.kaggle.com/datasets/praveengovi/coronahack-chest-xraydataset"}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED[1], tmp_path / "bundle"))


@of_each
def test_every_section_is_there_and_no_placeholder(bundle: Path) -> None:
    text = cards.render(bundle, "owner/name")
    assert set(SECTIONS) <= set(re.findall(r"^#+ (.*)$", text, re.MULTILINE))
    assert PLACEHOLDERS.findall(text) == []


@of_each
def test_the_hubs_client_reads_the_metadata(bundle: Path) -> None:
    card = ModelCard(cards.render(bundle, "owner/name", data_set="owner/data"))
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.datasets == ["owner/data"]
    assert card.data.base_model is None
    measured = json.loads((bundle / manifest.METRICS).read_text())
    values = {
        (each.dataset_name, each.metric_type): each.metric_value for each in card.data.eval_results or []
    }
    assert len(values) == 3 * 4 + 2 * 3  # two of the external sets have one class, so no AUROC
    assert values["CoronaHack chest X-ray data set, official test set", "accuracy"] == pytest.approx(
        measured["test_official"]["accuracy"], abs=1e-4
    )
    assert values["external validation: nih_figure1", "roc_auc"] == pytest.approx(
        measured["external"]["nih_figure1"]["macro_auroc"], abs=1e-4
    )
    assert all(
        re.fullmatch(r"(?:[\w-]+/)?[\w.-]+", each.dataset_type) for each in card.data.eval_results or []
    )
    assert eval_results_to_model_index(bundle.name, card.data.eval_results or [])[0]["name"] == bundle.name


@of_each
def test_external_validation_comes_first(bundle: Path) -> None:
    text = cards.render(bundle, "owner/name")
    measured = json.loads((bundle / manifest.METRICS).read_text())["external"]["nih_figure1"]
    opening = text[: text.index("## Model details")]
    assert f"balanced accuracy {measured['balanced_accuracy']:.1%}" in " ".join(
        opening.replace(">", "").split()
    )
    assert "Not a medical device" in opening


@of_each
def test_links_lead_somewhere(bundle: Path) -> None:
    targets = set(re.findall(r"\]\(([^)]+)\)", cards.render(bundle, "owner/name")))
    assert {each for each in targets if each.startswith("http")} == LINKS
    assert all((bundle / each).is_file() for each in targets - LINKS)
    assert {each for each in targets - LINKS if each.endswith(".png")} == {
        f"figures/{path.name}" for path in (bundle / "figures").iterdir() if path.stem != "curves"
    }


@pytest.mark.parametrize(
    ("file", "path", "named"),
    [
        ("metrics.json", ["test", "macro_f1"], "metrics.json: .test.macro_f1 is missing"),
        ("metrics.json", ["test", "per_class", "Normal", "auroc"], "per_class.Normal.auroc is missing"),
        ("metrics.json", ["external", "nih_figure1", "accuracy"], "external.nih_figure1.accuracy is missing"),
        ("metrics.json", ["external", "nih_figure1", "decisions"], "nih_figure1.decisions is missing"),
        (
            "metrics.json",
            ["external", "nih_figure1", "calibration", "after", "ece"],
            "nih_figure1.calibration.after.ece is missing",
        ),
        ("metrics.json", ["external", "nih_figure1", "abstention", "risk"], "abstention.risk is missing"),
        ("metrics.json", ["controls", "border", "confusion_matrix"], "border.confusion_matrix is missing"),
        ("metrics.json", ["source", "web_called_covid", "train"], "web_called_covid.train is missing"),
        (
            "calibration.json",
            ["ood_report", "test_by_class", "COVID-19"],
            "calibration.json: .ood_report.test_by_class.COVID-19 is missing",
        ),
        ("metrics.json", ["test"], "metrics.json: .test is missing"),
        ("calibration.json", ["abstain_below"], "calibration.json: .abstain_below is missing"),
        ("training.json", ["seconds"], "training.json: .seconds is missing"),
        ("splits.json", ["splits", "test", "COVID-19"], "splits.test.COVID-19 is missing"),
    ],
)
def test_a_missing_number_stops_the_card_and_is_named(
    copy: Path, file: str, path: list[str], named: str
) -> None:
    is_calibration = file == manifest.CALIBRATION
    whole = manifest.read_calibration(copy) if is_calibration else json.loads((copy / file).read_text())
    part = whole
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    write_json(copy / file, whole)
    with pytest.raises(BundleError, match=re.escape(named)):
        cards.render(copy, "owner/name")


def test_what_was_not_done_is_said(copy: Path) -> None:
    measured = json.loads((copy / manifest.METRICS).read_text())
    for part in ("external", "controls"):
        del measured[part]
    for subset in ("train", "validation", "test", "test_official"):
        for part in ("calibration", "abstention", "operating_points"):
            del measured[subset][part]
    write_json(copy / manifest.METRICS, measured)
    (copy / manifest.CALIBRATION).unlink()
    text = " ".join(cards.render(copy, "owner/name").replace("\n>", "").split())
    assert "xray-cnn was tested on no external test set." in text
    assert "Not measured for xray-cnn; `xray-hf evaluate --source SOURCE` adds it to a bundle." in text
    assert "xray-cnn is not calibrated" in text
    assert "Not measured for xray-cnn; `xray-hf calibrate --ood-dir` adds it to a bundle." in text


def test_a_bundle_of_synthetic_patients_says_so_in_title_tags_and_text(copy: Path) -> None:
    training = json.loads((copy / manifest.TRAINING).read_text())
    write_json(copy / manifest.TRAINING, {**training, "is_synthetic": True})
    text = cards.render(copy, "owner/name")
    assert "# SYNTHETIC patients: xray-cnn" in text
    assert "Trained on synthetic patients" in text
    data = ModelCard(text).data
    assert "synthetic" in (data.tags or [])
    assert data.license == "cc-by-nc-4.0"
    assert data.model_name == "SYNTHETIC patients: xray-cnn"


def test_an_imagenet_start_is_named_as_the_base_model(copy: Path) -> None:
    training = json.loads((copy / manifest.TRAINING).read_text())
    write_json(copy / manifest.TRAINING, {**training, "initial_weights": "timm/resnet18.tv_in1k"})
    text = cards.render(copy, "owner/name")
    assert ModelCard(text).data.base_model == "timm/resnet18.tv_in1k"
    assert "**Started from:** timm/resnet18.tv_in1k." in text


def test_the_paper_protocols_validation_is_called_worthless(copy: Path) -> None:
    splits = json.loads((copy / manifest.SPLITS).read_text())
    write_json(copy / manifest.SPLITS, {**splits, "protocol": "paper"})
    assert "**Its validation numbers mean nothing.**" in cards.render(copy, "owner/name")


def test_a_bundle_without_its_graph_is_sent_to_export(copy: Path) -> None:
    (copy / manifest.GRAPH).unlink()
    with pytest.raises(BundleError, match=r"model.onnx is missing.*xray-hf export"):
        cards.render(copy, "owner/name")


def changed(bundle: Path, name: str, *path: str, value: object) -> None:
    whole = part = json.loads((bundle / name).read_text())
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    write_json(bundle / name, whole)


def test_sources_that_cannot_be_told_apart_have_no_area(copy: Path) -> None:
    for way in ("embedding", "thumbnail", "histogram"):
        changed(copy, manifest.METRICS, "source", "auroc", way, value=None)
    said = section(cards.render(copy, "owner/name"), "Shortcut controls")
    assert "| xray-cnn | 11 | 6 | 11 of 11 in train |" in said


def test_a_test_of_one_class_alone_has_no_area_in_the_index(copy: Path) -> None:
    changed(copy, manifest.METRICS, "external", "nih_figure1", "macro_auroc", value=None)
    changed(copy, manifest.METRICS, "external", "nih_figure1", "intervals", "macro_auroc", value=None)
    found = ModelCard(cards.render(copy, "owner/name")).data.eval_results or []
    assert len(found) == 17


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("training.json", ["seconds"], None),
        ("training.json", ["config"], 3),
        ("calibration.json", ["temperature"], "hot"),
    ],
)
def test_a_value_of_another_kind_is_one_clear_error(
    copy: Path, file: str, path: list[str], value: object
) -> None:
    changed(copy, file, *path, value=value)
    with pytest.raises(BundleError):
        cards.render(copy, "owner/name")


def test_synthetic_patients_give_no_result_on_the_real_set(copy: Path) -> None:
    changed(copy, manifest.TRAINING, "is_synthetic", value=True)
    text = cards.render(copy, "owner/name")
    own = [each for each in ModelCard(text).data.eval_results or [] if each.dataset_config == "grouped"]
    assert {each.dataset_type for each in own} == {"synthetic"}
    assert "CoronaHack" not in text
    assert "of one hospital" not in text


def test_real_sources_beside_synthetic_patients_are_named(copy: Path) -> None:
    sets = [
        {"kind": "coronahack", "name": "atlas", "images": 60, "is_synthetic": True},
        {"kind": "rsna", "name": "rsna", "images": 90, "is_synthetic": False},
    ]
    changed(copy, manifest.TRAINING, "is_synthetic", value=True)
    changed(copy, manifest.TRAINING, "sources", value=sets)
    about = sources.reader("rsna").ABOUT
    text = cards.render(copy, "owner/name")
    assert "# PARTLY SYNTHETIC patients: xray-cnn" in text
    assert "Trained partly on synthetic patients" in text
    assert "- Synthetic patients, drawn from a statistical atlas, 60 images." in text
    assert f"[{about.title}]({about.url}), 90 images: {about.origin} Licence: {about.licence}" in text
    assert about.citation in text
    assert "CoronaHack" not in text
    data = ModelCard(text).data
    assert data.license == "other"
    assert {each.dataset_type for each in data.eval_results or []} == {"synthetic-rsna", *EXTERNAL}


def section(text: str, title: str) -> str:
    """What stands below a heading, without line breaks."""
    return " ".join(re.split(r"\n#+ ", text.split(f"# {title}\n")[1])[0].split())


@of_each
def test_the_card_says_what_confidence_is_worth_outside(bundle: Path) -> None:
    own = json.loads((bundle / manifest.METRICS).read_text())["external"]["nih_figure1"]
    text = cards.render(bundle, "owner/name")
    row = next(line for line in text.splitlines() if line.startswith("| external: nih_figure1 "))
    before, after = own["calibration"]["before"], own["calibration"]["after"]
    for key in ("ece", "brier", "cross_entropy"):
        assert f"| {before[key]:.3f} → {after[key]:.3f} |" in row
    for key in ("coverage", "risk"):
        low, high = own["abstention"]["intervals"][key]
        assert f"| {own['abstention'][key]:.1%} ({100 * low:.1f}–{100 * high:.1f}) |" in row
    decisions = own["decisions"]
    decided, (low, high) = decisions["decided"], decisions["intervals"]["accuracy_of_decided"]
    right = f"{decisions['accuracy_of_decided']:.1%} ({100 * low:.1f}–{100 * high:.1f})"
    opening = " ".join(text[: text.index("## Model details")].replace("\n>", "").split())
    assert f"gives a class to {decided} of 233; {right} of these classes are right (" in opening
    assert f"{decisions['not_decided']['unsure']:.1%} `unsure`)." in opening


def test_where_nothing_is_decided_no_share_of_it_is_right(copy: Path) -> None:
    here = ("external", "nih_figure1", "decisions")
    changed(copy, manifest.METRICS, *here, "decided", value=0)
    changed(copy, manifest.METRICS, *here, "accuracy_of_decided", value=None)
    text = " ".join(cards.render(copy, "owner/name").replace("\n>", "").split())
    assert "gives a class to 0 of 233 (" in text


def test_decisions_of_an_earlier_calibration_are_left_out(copy: Path) -> None:
    for name in EXTERNAL:
        changed(copy, manifest.METRICS, "external", name, "decisions", value=None)
    text = cards.render(copy, "owner/name")
    assert "gives a class to" not in text
    assert "Decisions of the engine" not in text
    assert "| external: nih_figure1 |" in text


def test_what_was_seen_of_an_external_test_set_is_said_of_that_one_alone(copy: Path) -> None:
    clause = "its effect on this set had been seen"
    assert clause in section(cards.render(copy, "owner/name"), "External validation")
    measured = json.loads((copy / manifest.METRICS).read_text())
    own = measured["external"].pop("nih_figure1")
    write_json(copy / manifest.METRICS, {**measured, "external": {"mine": own}})
    said = section(cards.render(copy, "owner/name"), "External validation")
    assert clause not in said
    assert "`mine`: 100 Normal, 100 Pneumonia and 33 COVID-19 of 204 patients." in said


@of_each
def test_the_card_says_on_which_of_the_webs_images_it_was_trained(bundle: Path) -> None:
    own = json.loads((bundle / manifest.METRICS).read_text())["source"]
    said = section(cards.render(bundle, "owner/name"), "Shortcut controls")
    web, train = own["web"], own["web_called_covid"]["train"]
    assert f"trained on {web['images']} of these {web['images']} images of {web['patients']} patients" in said
    assert f"{train['called']} of {train['images']} in train |" in said


@of_each
def test_the_rejected_of_every_class_are_counted(bundle: Path) -> None:
    classes = manifest.read_calibration(bundle)["ood_report"]["test_by_class"]
    said = section(cards.render(bundle, "owner/name"), "OOD detection")
    for label, own in classes.items():
        low, high = own["interval"]
        share = f"{own['rejected']:.1%} ({100 * low:.1f}–{100 * high:.1f})"
        assert (
            f"| internal test set, {label} | {round(own['n'] * own['rejected'])} of {own['n']} | {share} |"
            in said
        )
    assert f"Lateral views in the internal test set of {bundle.name}: 1 COVID-19." in said


def test_no_lateral_view_is_told_of_synthetic_patients_or_where_no_view_is_known(copy: Path) -> None:
    assert "Lateral views" in cards.render(copy, "owner/name")
    changed(copy, manifest.METRICS, "subgroups", "view_position", value={})
    assert "Lateral views" not in cards.render(copy, "owner/name")
    shutil.copy(SHIPPED[1] / manifest.METRICS, copy)
    changed(copy, manifest.TRAINING, "is_synthetic", value=True)
    assert "Lateral views" not in cards.render(copy, "owner/name")


TASKS = (("No Finding", "Tuberculosis"), ("Normal", "Effusion", "Mass", "Nodule", "Edema"))


@pytest.mark.parametrize("classes", TASKS, ids=len)
def test_a_card_of_other_sources_and_classes_claims_nothing_of_coronahack(
    copy: Path, classes: tuple[str, ...]
) -> None:
    names = {str(k): label for k, label in enumerate(classes)}
    changed(copy, manifest.CONFIG, "id2label", value=names)
    was = json.loads((copy / manifest.TRAINING).read_text())
    found = reports.complete(classes)
    for name, content in found.items():
        write_json(copy / name, content)
    own = found[manifest.TRAINING]
    write_json(copy / manifest.TRAINING, {**was, "sources": own["sources"], "history": own["history"]})
    text = cards.render(copy, "owner/name")
    assert f"chest X-rays as {' or '.join(', '.join(classes).rsplit(', ', 1))}" in text
    assert [
        word for word in ("CoronaHack", "COVID-19", "children", "Kermany", "adults") if word in text
    ] == []
    assert "`clinic`, a source of kind `folder`, 100 images" in text
    data = ModelCard(text).data
    assert (data.license, data.license_name) == ("other", "terms-of-the-training-images")
    assert {each.dataset_type for each in data.eval_results or []} == {"clinic-ward", "far-away-"}
    matrix = found[manifest.METRICS]["test"]["confusion_matrix"]
    for k, label in enumerate(classes):
        wrongly = sum(row[k] for row in matrix) - matrix[k][k]
        assert f"| {label} | 12 | 5 | {matrix[k][k] / 12:.1%} (25.0–93.8) |" in text
        assert f"| {wrongly} of {12 * (len(classes) - 1)} |" in text


def test_a_published_source_brings_its_label_and_citation(copy: Path) -> None:
    changed(copy, manifest.TRAINING, "sources", value=[{"kind": "rsna", "name": "rsna", "images": 90}])
    about = sources.reader("rsna").ABOUT
    text = cards.render(copy, "owner/name")
    assert f"[{about.title}]({about.url}), 90 images: {about.origin} Licence: {about.licence}" in text
    assert about.citation in text
    assert all(error in text for error in about.known_errors)
    assert "CoronaHack" not in text
