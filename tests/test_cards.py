"""Cards say what the bundle's files say, all of it, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index
from xray_hf.evaluation.words import rate

from xray_hf import manifest
from xray_hf.errors import BundleError
from xray_hf.files import write_json
from xray_hf.hub import cards

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = (ROOT / "pretrained" / "xray-resnet18", ROOT / "pretrained" / "xray-cnn")
of_each = pytest.mark.parametrize("bundle", SHIPPED, ids=lambda folder: folder.name)
PLACEHOLDERS = re.compile(r"\{\{|\{%|TODO|More Information Needed|\bnan\b|Undefined|: None|\| None")
# Of the Hub's annotated template, as huggingface_hub has it; ours are spelt in our own way.
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
    *("Speed and size", "Evaluation", "Controls", "Calibration and abstention", "Environmental impact"),
    *("Technical specifications", "Citation", "Glossary", "Authors and contact"),
)
LINKS = {
    "https://www.kaggle.com/datasets/praveengovi/coronahack-chest-xraydataset",
    "https://doi.org/10.1016/j.cell.2018.02.010",
    "https://github.com/ieee8023/covid-chestxray-dataset",
}


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
    assert len(values) == 3 * 4
    assert values["CoronaHack, official test", "accuracy"] == pytest.approx(
        measured["test_official"]["accuracy"], abs=1e-4
    )
    assert values["another collection: nih_figure1", "roc_auc"] == pytest.approx(
        measured["external"]["nih_figure1"]["macro_auroc"], abs=1e-4
    )
    assert all(
        re.fullmatch(r"(?:[\w-]+/)?[\w.-]+", each.dataset_type) for each in card.data.eval_results or []
    )
    assert eval_results_to_model_index(bundle.name, card.data.eval_results or [])[0]["name"] == bundle.name


@of_each
def test_the_test_elsewhere_comes_first(bundle: Path) -> None:
    text = cards.render(bundle, "owner/name")
    measured = json.loads((bundle / manifest.METRICS).read_text())["external"]["nih_figure1"]
    opening = text[: text.index("## Model details")]
    assert f"its accuracy is {measured['accuracy']:.1%}" in opening
    assert "Not a medical device" in opening


@of_each
def test_links_lead_somewhere(bundle: Path) -> None:
    targets = set(re.findall(r"\]\(([^)]+)\)", cards.render(bundle, "owner/name")))
    assert {each for each in targets if each.startswith("http")} == LINKS
    assert all((bundle / each).is_file() for each in targets - LINKS)
    assert len(targets - LINKS) == 4


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
        ("metrics.json", ["test_official"], "metrics.json: .test_official is missing"),
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
    text = cards.render(copy, "owner/name")
    assert "It was tested on no other collection." in text
    assert "None was made; `xray-hf report" in text
    assert "it is never `unsure`" in text
    assert "Nothing was fitted; cheap rules" in text


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


def test_sources_that_cannot_be_told_apart_are_left_out(copy: Path) -> None:
    for way in ("embedding", "thumbnail", "histogram"):
        changed(copy, manifest.METRICS, "source", "auroc", way, value=None)
    assert "Within Pneumonia" not in cards.render(copy, "owner/name")


def test_a_test_of_one_class_alone_has_no_area_in_the_index(copy: Path) -> None:
    changed(copy, manifest.METRICS, "external", "nih_figure1", "macro_auroc", value=None)
    changed(copy, manifest.METRICS, "external", "nih_figure1", "intervals", "macro_auroc", value=None)
    found = ModelCard(cards.render(copy, "owner/name")).data.eval_results or []
    assert len(found) == 11


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


def section(text: str, title: str) -> str:
    """What stands below a heading, without line breaks."""
    return " ".join(re.split(r"\n#+ ", text.split(f"# {title}\n")[1])[0].split())


@of_each
def test_the_card_says_what_its_confidence_is_worth_elsewhere(bundle: Path) -> None:
    own = json.loads((bundle / manifest.METRICS).read_text())["external"]["nih_figure1"]
    text = cards.render(bundle, "owner/name")
    said = section(text, "Another collection")
    before, after = own["calibration"]["before"], own["calibration"]["after"]
    assert f"error {before['ece']:.3f} before the temperature, {after['ece']:.3f} after it" in said
    assert f"Brier score {before['brier']:.3f} and {after['brier']:.3f} (0 is best, 2 worst)" in said
    for key in ("coverage", "risk"):
        low, high = own["abstention"]["intervals"][key]
        assert f"{own['abstention'][key]:.1%} ({100 * low:.1f}–{100 * high:.1f})" in said
    decisions = own["decisions"]
    decided, right = decisions["decided"], rate(decisions, "accuracy_of_decided")
    assert "(" in right
    assert f"{decided} of 233 get a class, {right} of these the right one; " in said
    assert f"{decisions['not_decided']['unsure']:.1%} `unsure`." in said
    opening = " ".join(text[: text.index("## Model details")].replace("\n>", "").split())
    answered = f"Of the {decided} of these that it neither refuses nor calls `unsure`, {right} are right."
    assert answered in opening
    assert opening.index(answered) < opening.index("On the test images of its own collection")


def test_where_nothing_is_decided_elsewhere_no_share_of_it_is_right(copy: Path) -> None:
    here = ("external", "nih_figure1", "decisions")
    changed(copy, manifest.METRICS, *here, "decided", value=0)
    changed(copy, manifest.METRICS, *here, "accuracy_of_decided", value=None)
    text = cards.render(copy, "owner/name")
    assert "neither refuses" not in text
    assert "0 of 233 get a class; " in section(text, "Another collection")


def test_decisions_of_an_earlier_calibration_are_left_out(copy: Path) -> None:
    changed(copy, manifest.METRICS, "external", "nih_figure1", "decisions", value=None)
    text = cards.render(copy, "owner/name")
    assert "neither refuses" not in text
    assert "get a class" not in text
    assert "before the temperature" in section(text, "Another collection")


def test_what_was_seen_of_the_external_test_is_said_of_that_one_alone(copy: Path) -> None:
    clause = "the share that it refused here had been seen"
    assert clause in section(cards.render(copy, "owner/name"), "Another collection")
    measured = json.loads((copy / manifest.METRICS).read_text())
    own = measured["external"].pop("nih_figure1")
    write_json(copy / manifest.METRICS, {**measured, "external": {"mine": own}})
    said = section(cards.render(copy, "owner/name"), "Another collection")
    assert clause not in said
    assert "worth on `mine`" in said


@of_each
def test_controls_show_what_is_called_covid_anyway(bundle: Path) -> None:
    measured = json.loads((bundle / manifest.METRICS).read_text())
    rows = section(cards.render(bundle, "owner/name"), "Controls").split("| |")
    for view in ("border", "centre_masked"):
        own = measured["controls"][view]
        row = next(each for each in rows if each.strip().startswith(view.replace("_", " ")))
        matrix = own["confusion_matrix"]
        cells = [cell.strip() for cell in row.split("|")]
        assert cells[2].startswith(f"{own['balanced_accuracy']:.1%} (")
        assert cells[6] == f"{matrix[0][2] + matrix[1][2]} of {sum(matrix[0]) + sum(matrix[1])}"


@of_each
def test_the_card_says_on_which_of_the_webs_images_it_was_trained(bundle: Path) -> None:
    own = json.loads((bundle / manifest.METRICS).read_text())["source"]
    said = section(cards.render(bundle, "owner/name"), "Controls")
    web, train = own["web"], own["web_called_covid"]["train"]
    images, patients = web["images"], web["patients"]
    assert f"web's {images} images there, of {patients} patients, the network was trained on {images}" in said
    assert f"{train['called']} of {train['images']} in train are called COVID-19." in said


@of_each
def test_the_rejected_of_the_rarest_class_are_counted(bundle: Path) -> None:
    report = manifest.read_calibration(bundle)["ood_report"]["test_by_class"]
    own = report["COVID-19"]
    text = cards.render(bundle, "owner/name")
    said = section(text, "Test images of its own collection")
    low, high = own["interval"]
    assert f"Of the {own['n']} of COVID-19, 1 of them a lateral view, the detector" in said
    share = f"{own['rejected']:.1%} ({100 * low:.1f}–{100 * high:.1f})"
    assert f"refuses {round(own['n'] * own['rejected'])}, or {share}; these get no class." in said
    assert f"COVID-19 {own['rejected']:.1%} of {own['n']})" in section(text, "Foreign input")


def test_no_lateral_view_is_told_of_synthetic_patients_or_where_no_view_is_known(copy: Path) -> None:
    assert "lateral view," in cards.render(copy, "owner/name")
    changed(copy, manifest.METRICS, "subgroups", "view_position", value={})
    assert "lateral view," not in cards.render(copy, "owner/name")
    shutil.copy(SHIPPED[1] / manifest.METRICS, copy)
    changed(copy, manifest.TRAINING, "is_synthetic", value=True)
    assert "lateral view," not in cards.render(copy, "owner/name")
