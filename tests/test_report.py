"""One report: page, Markdown and terminal show the same numbers, of any classes, whatever a bundle lacks."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from html import unescape
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import reports

from xray_hf import manifest
from xray_hf.report import html, markdown, numbers, sections, sentences, tables, terminal
from xray_hf.report.numbers import Rate
from xray_hf.report.report import Report
from xray_hf.task import PAPER_CLASSES

PAPER = ("Normal", "Pneumonia", "COVID-19")
TASKS = (("No Finding", "Tuberculosis"), PAPER, ("Normal", "Effusion", "Mass", "Nodule", "Edema"))
any_task = pytest.mark.parametrize("classes", TASKS, ids=len)
Files = dict[str, dict[str, Any]]


@pytest.fixture
def files() -> Files:
    return reports.complete(PAPER)


def read(folder: Path, files: Files, name: str = "a") -> Report:
    folder.mkdir(exist_ok=True)
    return Report.read(reports.write(folder, files), name)


def page(*found: Report) -> str:
    return unescape(html.page(found))


def in_markdown(*found: Report) -> str:
    return "\n\n".join(
        markdown.section(own, 2, lambda figure: figure.stem) for own in sections.all_sections(found)
    )


def in_terminal(report: Report) -> str:
    return "\n\n".join(terminal.part(report, name) for name in terminal.PARTS)


def cells(text: str, caption: str, line: str) -> list[str]:
    """Of the page's table with this caption, the cells of a line."""
    table = text.split(f"<caption>{caption}</caption>")[1].split("</table>")[0]
    row = next(each for each in table.split("<tr>") if f'scope="row">{line}<' in each)
    return re.findall(r"<td>([^<]*)</td>", row)


@any_task
def test_every_class_has_its_sensitivity_and_false_positives_everywhere(
    tmp_path: Path, classes: tuple[str, ...]
) -> None:
    files = reports.complete(classes)
    report = read(tmp_path / "bundle", files)
    assert report.classes == classes
    assert report.gaps == []
    matrix = files["metrics.json"]["test"]["confusion_matrix"]
    texts = page(report), in_markdown(report), in_terminal(report)
    for k, label in enumerate(classes):
        found = f"{matrix[k][k] / reports.N:.1%} (25.0–93.8)"
        wrongly = sum(row[k] for row in matrix) - matrix[k][k]
        alarms = f"{wrongly} of {reports.N * (len(classes) - 1)}"
        for text in texts:
            assert found in text
            assert alarms in text
            assert f"sensitivity: {label}" in text
            assert f"false positives: {label}" in text


@any_task
def test_chance_is_one_of_so_many_classes(tmp_path: Path, classes: tuple[str, ...]) -> None:
    report = read(tmp_path / "bundle", reports.complete(classes))
    assert f"where chance is {1 / len(classes):.1%}" in sentences.headline(report)[0]


@any_task
def test_every_class_keeps_its_columns_within_the_terminal(tmp_path: Path, classes: tuple[str, ...]) -> None:
    text = in_terminal(read(tmp_path / "bundle", reports.complete(classes)))
    assert max(map(len, text.splitlines())) <= terminal.WIDTH


def test_a_complete_bundle_has_every_section_and_every_figure(tmp_path: Path, files: Files) -> None:
    report = read(tmp_path / "bundle", files)
    assert [own.title for own in sections.all_sections([report]) if not own.tables or own.without] == []
    shown = re.findall(r'<img loading="lazy" src="figures/0/([^"]+)\.png"', html.page([report]))
    assert sorted(shown) == sorted(map(quote, reports.FIGURES))
    for text in (page(report), in_markdown(report)):
        assert "not in the bundle's files" not in text
        assert "Not measured" not in text


def test_external_validation_stands_before_every_internal_number(tmp_path: Path, files: Files) -> None:
    text = page(read(tmp_path / "bundle", files))
    own = files["metrics.json"]["external"]["far <away>"]
    outside, inside = own["balanced_accuracy"], files["metrics.json"]["test"]["balanced_accuracy"]
    first = text[: text.index("<nav")]
    assert first.count("<table>") == 1
    heads = re.findall(r'<th scope="col">(.*?)</th>', first)
    assert heads[:2] == ["Balanced accuracy, external: far <away>", "Balanced accuracy, internal"]
    assert first.index(f"{outside:.1%}") < first.index(f"{inside:.1%}")


def test_the_summary_shows_false_alarms_before_and_after_abstention(tmp_path: Path) -> None:
    files = reports.complete(PAPER_CLASSES)
    outside = files["metrics.json"]["external"]["far <away>"]
    outside["predicted_by_class"]["Normal"] = {"Normal": 0.1, "Pneumonia": 0.2, "COVID-19": 0.7}
    outside["decisions"]["by_class"]["Normal"] = {"Normal": 0.1, "Pneumonia": 0.1, "COVID-19": 0.3}
    text = html.page([read(tmp_path / "bundle", files)])
    images = sum(outside["confusion_matrix"][0])
    assert (
        'data-title="Normal X-rays of far &lt;away&gt; called COVID-19, before → after abstention">'
        f"70.0%<br>→ 30.0%<br>of {images}</td>" in text
    )
    assert "Chance is 33.3%, marked by a line." in text


def test_the_list_of_contents_leads_to_every_heading(tmp_path: Path, files: Files) -> None:
    text = html.page([read(tmp_path / "bundle", files)])
    links = re.findall(r'<li><a href="#([^"]+)">', text)
    assert links == re.findall(r'<h2 id="([^"]+)">', text)
    assert len(set(links)) == len(links) > 5


def test_an_answer_comes_with_its_external_validation(tmp_path: Path) -> None:
    files = reports.complete(PAPER_CLASSES)
    outside = files["metrics.json"]["external"]["far <away>"]
    outside["decisions"]["by_class"]["Normal"]["COVID-19"] = 0.3
    report = read(tmp_path / "bundle", files)
    normal, pneumonia, covid = (sum(row) for row in outside["confusion_matrix"])
    external, internal = sentences.answer_context(report, "COVID-19")
    shares = f"30.0% of {normal} Normal, 25.0% of {pneumonia} Pneumonia and 25.0% of {covid} COVID-19"
    assert external == f"far <away>, after abstention: COVID-19 for {shares} X-rays."
    assert internal.startswith("Internal test set, before abstention: COVID-19 for ")
    inside = files["metrics.json"]["test"]["confusion_matrix"][0]
    assert f"{inside[2] / sum(inside):.1%} of {sum(inside)} Normal" in internal
    assert sentences.answer_context(report, "unsure") == [
        "It was unsure about 25.0% of 36 X-rays from far <away>."
    ]
    del outside["decisions"]["by_class"]
    by_network, _ = sentences.answer_context(read(tmp_path / "old", files), "COVID-19")
    assert by_network.startswith(f"far <away>, before abstention: COVID-19 for 50.0% of {normal} Normal")
    del files["metrics.json"]["external"]
    [unknown] = sentences.answer_context(read(tmp_path / "none", files), "COVID-19")
    assert "was tested on no external test set, so it is unknown" in unknown


def test_an_external_set_without_a_class_shows_sensitivities_alone(tmp_path: Path, files: Files) -> None:
    own = files["metrics.json"]["external"]["far <away>"]
    first = next(iter(own["class_counts"]))
    own["confusion_matrix"][0] = [0] * len(own["confusion_matrix"])
    [said] = sentences.headline(read(tmp_path / "bundle", files))
    assert f"**; the set has no {first}." in said
    assert ": sensitivity " in said
    assert "where chance is" not in said


def test_without_an_external_test_the_headline_says_so(tmp_path: Path, files: Files) -> None:
    del files["metrics.json"]["external"]
    said = sentences.headline(read(tmp_path / "bundle", files))
    assert len(said) == 1
    assert "tested on no external test set" in said[0]
    assert "where chance is 33.3%" in said[0]


def test_names_from_outside_are_escaped(tmp_path: Path, files: Files) -> None:
    text = html.page([read(tmp_path / "bundle", files, "<b>")])
    assert "<b>" not in text
    assert "<away>" not in text


def test_two_models_stand_below_each_other_for_each_thing_measured(tmp_path: Path, files: Files) -> None:
    found = [read(tmp_path / name, files, name) for name in "ab"]
    table = page(*found).split("<caption>Operating points")[1].split("</table>")[0]
    assert len(re.findall(r'scope="rowgroup"', table)) == 1
    assert re.findall(r'scope="row">([^<]+)', table) == ["a", "b"]
    assert "| a, internal test set | 36 |" in in_markdown(*found)


def test_figures_of_the_second_model_have_its_address_whatever_the_first_lacks(
    tmp_path: Path, files: Files
) -> None:
    (tmp_path / "empty").mkdir()
    text = html.page([Report.read(tmp_path / "empty", "empty"), read(tmp_path / "bundle", files)])
    assert "figures/1/roc_test.png" in text
    assert "figures/0/" not in text
    assert "empty came without <code>metrics.json</code>" in text


@pytest.mark.parametrize(
    ("file", "part", "title", "made_by"),
    [
        ("metrics.json", "external", "External validation", "xray-hf evaluate --source SOURCE"),
        ("metrics.json", "controls", "Shortcut controls", "xray-hf report"),
        ("metrics.json", "subgroups", "Subgroups", "xray-hf report"),
        ("metrics.json", "label_noise", "Likely label errors", "xray-hf report"),
        ("calibration.json", "temperature", "Calibration and abstention", "xray-hf calibrate"),
        ("calibration.json", "ood_report", "OOD detection", "xray-hf calibrate --ood-dir"),
        ("training.json", "history", "Training procedure", "train.py"),
    ],
)
def test_what_was_not_measured_is_named_with_the_command_that_adds_it(
    tmp_path: Path, files: Files, file: str, part: str, title: str, made_by: str
) -> None:
    whole = read(tmp_path / "whole", files, "b")
    del files[file][part]
    report = read(tmp_path / "bundle", files)
    alone, beside = (
        next(own for own in sections.all_sections(found) if own.title == title)
        for found in ([report], [whole, report])
    )
    assert alone.gap.endswith(f"for a; `{made_by}` adds it to a bundle.")
    assert beside.gap == f"Not measured, or only in part, for a; `{made_by}` adds it to a bundle."
    assert alone.gap in in_markdown(report)


def test_probabilities_that_copied_rows_cannot_calibrate_are_called_uncalibrated(
    tmp_path: Path, files: Files
) -> None:
    files["calibration.json"] = {}
    files["training.json"]["config"]["data"]["protocol"] = "paper"
    text = in_markdown(read(tmp_path / "bundle", files)).replace("\n", " ")
    assert "a is not calibrated: its probabilities are a plain softmax" in text
    assert "copies of training images, so they cannot be used" in text


def test_numbers_of_version_0_1_read_the_same(tmp_path: Path, files: Files) -> None:
    new = read(tmp_path / "new", files)
    old = json.loads(
        json.dumps(files)
        .replace("abstain_below", "unsure_below")
        .replace("ood_report", "foreign_report")
        .replace("rejected", "refused")
    )
    assert page(read(tmp_path / "old", old)) == page(new)


def test_an_older_bundle_shows_its_numbers_without_intervals(tmp_path: Path, files: Files) -> None:
    test = files["metrics.json"]["test"]
    for key in ("intervals", "patients_per_class", "calibration", "abstention", "operating_points"):
        del test[key]
    del files["metrics.json"]["classes"]
    text = page(read(tmp_path / "bundle", files))
    assert f"{test['accuracy']:.1%}" in cells(text, "All classes together", "internal test set")
    assert "The numbers of a have no intervals." in text


@pytest.mark.parametrize("damage", ["[]", "{", '{"test": 3}', '{"test": {"accuracy": "high"}}', "{}"])
def test_damaged_numbers_are_no_numbers(tmp_path: Path, files: Files, damage: str) -> None:
    read(tmp_path / "bundle", files)
    for name in files:
        (tmp_path / "bundle" / name).write_text(damage)
    assert "<td>" not in page(Report.read(tmp_path / "bundle", "a"))


def leaves(value: Any, place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The places of all values in JSON objects."""
    if not isinstance(value, dict):
        return [place]
    return [place, *(each for key, own in value.items() for each in leaves(own, (*place, key)))]


@pytest.mark.slow
def test_any_value_may_be_missing_or_of_another_kind(tmp_path: Path) -> None:
    files = reports.complete(("Normal", "Tuberculosis"))
    reports.write(tmp_path, files)
    for name in ("metrics.json", "calibration.json", "training.json"):
        for place, value in zip(leaves(files[name])[1:], cycle((None, "high", [], {}, [[1]])), strict=False):
            whole = copy.deepcopy(files[name])
            part = whole
            for key in place[:-1]:
                part = part[key]
            part[place[-1]] = value
            (tmp_path / name).write_text(json.dumps(whole))
            report = Report.read(tmp_path, "a")
            assert html.page([report])
            assert terminal.part(report, "controls")
        (tmp_path / name).write_text(json.dumps(files[name]))


@pytest.mark.parametrize(
    ("file", "place", "named"),
    [
        ("metrics.json", ("test", "macro_f1"), "metrics.json: .test.macro_f1"),
        ("metrics.json", ("external", "far <away>", "decisions"), ".external.far <away>.decisions"),
        ("metrics.json", ("controls", "border", "confusion_matrix"), ".controls.border.confusion_matrix"),
        (
            "calibration.json",
            ("ood_report", "test_by_class", "COVID-19"),
            ".ood_report.test_by_class.COVID-19",
        ),
        ("training.json", ("seconds",), "training.json: .seconds"),
    ],
)
def test_a_missing_number_is_a_gap_with_its_place(
    tmp_path: Path, files: Files, file: str, place: tuple[str, ...], named: str
) -> None:
    part: Any = files[file]
    for key in place[:-1]:
        part = part[key]
    del part[place[-1]]
    assert read(tmp_path / "bundle", files).gaps[0].endswith(named)


def test_sources_stand_beside_the_pooled_test(tmp_path: Path, files: Files) -> None:
    report = read(tmp_path / "bundle", files)
    text = page(report)
    for name in ("clinic", "ward"):
        own = files["metrics.json"]["by_source"][name]
        assert cells(text, "Internal test set by source", name)[3].startswith(
            f"{own['balanced_accuracy']:.1%} ("
        )
    worst = files["metrics.json"]["by_source"]["ward"]["balanced_accuracy"]
    assert f"Worst source of a: ward, with a balanced accuracy of {worst:.1%} (25.0–93.8)" in text
    caption = "Within-source AUROC on the internal test set"
    assert cells(text, caption, "COVID-19")[1:] == ["0.625 (0.500–0.750)", "2", "42"]
    assert ">Normal<" not in text.split(f"<caption>{caption}")[1].split("</table>")[0]  # of one source alone
    assert "of Normal only" not in text
    ward = files["metrics.json"]["by_source"]["ward"]
    ward["confusion_matrix"] = [[5, 1, 0], [0, 0, 0], [0, 0, 0]]
    text = page(read(tmp_path / "normal", files))
    assert "ward has images of Normal only: its balanced accuracy is the mean over this class." in text
    one = reports.complete(PAPER)
    for key in ("by_source", "worst_source", "within_source"):
        del one["metrics.json"][key]
    assert "Performance by source" not in page(read(tmp_path / "one", one))


def test_calibration_and_operating_points_name_the_worst_source(tmp_path: Path, files: Files) -> None:
    ward = files["metrics.json"]["by_source"]["ward"] = copy.deepcopy(
        files["metrics.json"]["by_source"]["ward"]
    )
    ward["calibration"]["after"]["ece"] = 0.25
    ward["operating_points"][0]["sensitivity"] = 0.375
    report = read(tmp_path / "bundle", files)
    text = page(report)
    title = "Calibration, before → after temperature scaling, and abstention"
    assert "0.125 → 0.250" in cells(text, title, "internal test set, ward")
    assert "0.125 → 0.062" in cells(text, title, "validation set, clinic")
    for said in (text, " ".join(terminal.part(report, "calibration").split())):
        assert "of a in a source: clinic on validation (0.062, 36 images) and ward on test (0.250, 36" in said
        assert "on validation at or below 2.0%, also within clinic." in said
        assert "Too few validation images to check this risk in ward." in said
    point = "COVID-19, threshold for specificity 90%"
    row = cells(text, "Operating points, set on validation, on the internal test set", point)
    assert row[3] == "ward 37.5%"
    one = reports.complete(PAPER)
    for key in ("by_source", "validation_by_source", "worst_source", "within_source"):
        del one["metrics.json"][key]
    del one["calibration.json"]["fitted_on"]["risk_kept_in"]
    text = page(read(tmp_path / "one", one))
    assert "of a source" not in text
    assert "also within" not in text
    assert "Too few validation images" not in text


def test_each_held_out_source_is_a_row_of_leave_one_source_out(tmp_path: Path) -> None:
    found = []
    for held_out in ("clinic", "ward"):
        files = reports.complete(PAPER)
        files["metrics.json"]["external"] = {held_out: reports.numbers(PAPER, 3, decisions=None)}
        files["training.json"]["config"]["data"]["hold_out"] = [held_out]
        found.append(read(tmp_path / held_out, files, f"without-{held_out}"))
    assert [each.name for each in found[0].sources] == ["ward"]
    table = tables.leave_one_source_out(found)
    assert [(row.model, row.what) for row in table.rows] == [
        ("without-clinic", "held out: clinic"),
        ("without-ward", "held out: ward"),
    ]
    files = reports.complete(PAPER)["metrics.json"]["test"]
    outside = found[0].external["clinic"].balanced_accuracy.value or 0
    assert table.rows[0].cells[-2] == f"{100 * (outside - files['balanced_accuracy']):+.1f}"
    assert "Leave one source out" in page(*found)


def test_a_held_out_source_without_a_class_has_sensitivities_in_place_of_a_difference(tmp_path: Path) -> None:
    files = reports.complete(PAPER)
    own = reports.numbers(PAPER, 3, decisions=None)
    own["class_counts"]["COVID-19"], own["confusion_matrix"][2] = 0, [0, 0, 0]
    files["metrics.json"]["external"] = {"clinic": own}
    files["training.json"]["config"]["data"]["hold_out"] = ["clinic"]
    [row] = tables.leave_one_source_out([read(tmp_path / "bundle", files)]).rows
    assert list(row.cells[2:4]) == [numbers.UNKNOWN, numbers.UNKNOWN]
    assert row.cells[4].startswith("Normal ")
    assert ", Pneumonia " in row.cells[4]
    assert "COVID-19" not in row.cells[4]


def test_synthetic_models_are_marked(tmp_path: Path, files: Files) -> None:
    assert "synthetic patients" not in page(read(tmp_path / "real", files))
    files["training.json"]["is_synthetic"] = True
    report = read(tmp_path / "bundle", files)
    assert "a: trained and tested on synthetic patients" in page(report)
    assert terminal.part(report, "splits").startswith("SYNTHETIC patients")


def test_models_of_real_and_synthetic_patients_are_marked_as_such(tmp_path: Path, files: Files) -> None:
    files["training.json"]["is_synthetic"] = True
    for source, is_synthetic in zip(files["training.json"]["sources"], (True, False), strict=True):
        source["is_synthetic"] = is_synthetic
    report = read(tmp_path / "bundle", files)
    assert "a: trained and tested partly on synthetic patients" in page(report)
    assert terminal.part(report, "splits").startswith("PARTLY SYNTHETIC patients")
    files["training.json"]["config"]["data"]["hold_out"] = ["ward"]
    assert read(tmp_path / "without", files).mark == "SYNTHETIC patients: "


def test_models_of_several_sources_say_first_that_a_source_may_be_recognised(
    tmp_path: Path, files: Files
) -> None:
    report = read(tmp_path / "bundle", files)
    assert sentences.about_data([report])[0].startswith("a learnt from clinic and ward. Where a class comes")
    found = sentences.shortcut(report)
    assert found
    assert found.title == "Hospitals differ."


def test_this_projects_own_mixture_says_that_covid_19_comes_from_other_hospitals(
    tmp_path: Path, files: Files
) -> None:
    sources = [
        {"kind": "coronahack", "name": "coronahack", "images": 5000},
        *(
            {"kind": "folder", "name": name, "images": 100}
            for name in ("radiography", "thorax_scan", "web_covid")
        ),
    ]
    alone = copy.deepcopy(files)
    alone["training.json"]["sources"] = sources[:1]
    files["training.json"]["sources"] = sources
    pair = [read(tmp_path / "one", alone, "one"), read(tmp_path / "four", files, "four")]
    several, one, _ = sentences.about_data(pair)
    assert several.startswith(
        "four learnt from coronahack, radiography, thorax_scan and web_covid. No hospital contributed"
    )
    assert one.startswith("In CoronaHack, ")
    titles = [found.title for each in pair if (found := sentences.shortcut(each))]
    assert titles == [
        "Children and adults come from different sources.",
        "COVID-19 comes from other hospitals.",
    ]
    assert sentences.sources(pair[1])[1].startswith(
        "`radiography`, a source of kind `folder`, 100 images: adults of the COVID-19 Radiography Database"
    )
    assert "owner's own images" not in "".join(sentences.sources(pair[1]))
    errors = [line for line in sentences.limits(pair[1:]) if "36 pairs" in line]
    assert errors == ["CoronaHack chest X-ray data set: 36 pairs of images show the same picture."]


def test_coronahack_is_spoken_of_only_where_it_was_trained_on(tmp_path: Path, files: Files) -> None:
    assert "CoronaHack" not in page(read(tmp_path / "other", files))
    del files["training.json"]["sources"]  # as before there were several
    text = page(read(tmp_path / "coronahack", files))
    assert "In CoronaHack, Normal and Pneumonia are X-rays of children from one hospital" in text


def test_every_table_is_named_and_has_heads_with_a_scope(tmp_path: Path, files: Files) -> None:
    found = [read(tmp_path / name, files, name) for name in "ab"]
    drawn = re.findall(r"<table>.*?</table>", page(*found), re.DOTALL)
    summary = 1
    assert len(drawn) == summary + sum(len(own.tables) for own in sections.all_sections(found))
    for table in drawn:
        assert table.count("<caption>") == 1
        assert re.findall(r"<th(?!ead| scope=)", table) == []
        widths = {row.count("<td>") for row in table.split("<tr>")[2:]}
        assert len(widths) == 1


def test_a_figure_says_its_numbers_to_who_does_not_see_it(tmp_path: Path, files: Files) -> None:
    matrix = files["metrics.json"]["test"]["confusion_matrix"]
    normal = ", ".join(f"{n} were predicted {label}" for label, n in zip(PAPER, matrix[0], strict=True))
    alts = re.findall(r'alt="([^"]*)"', page(read(tmp_path / "bundle", files)))
    assert (
        sum(f"a: confusion matrix on the internal test set. Of 12 Normal, {normal}." in alt for alt in alts)
        == 1
    )
    assert len(alts) == len(set(alts)) == len(reports.FIGURES)


def test_the_terminal_names_the_files_of_the_lowest_self_confidence(tmp_path: Path, files: Files) -> None:
    report = read(tmp_path / "bundle", files)
    assert re.search(r"^a\.png +Normal +Pneumonia +90\.0%$", terminal.part(report, "controls"), re.MULTILINE)
    assert "a.png" not in page(report)


@pytest.mark.parametrize("test_set", ["of one class", "predicted as one"])
def test_a_model_that_names_one_class_doubts_no_label(tmp_path: Path, files: Files, test_set: str) -> None:
    matrix = [[4, 5, 3], [0, 0, 0], [0, 0, 0]] if test_set == "of one class" else [[12, 0, 0]] * 3
    files["metrics.json"]["test"]["confusion_matrix"] = matrix
    report = read(tmp_path / "bundle", files)
    for text in (page(report), in_markdown(report), in_terminal(report)):
        assert "Label errors cannot be found for a" in " ".join(text.split())
        assert "looks like" not in text
        assert "Not measured for a; `xray-hf report`" not in text


def test_likely_label_errors_are_counted_by_kind(tmp_path: Path, files: Files) -> None:
    row = cells(page(read(tmp_path / "bundle", files)), "Likely label errors in the internal test set", "a")
    assert row[:2] == ["4", "2 Normal → Pneumonia, 2 Pneumonia → COVID-19"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.percent(Rate(0.8125, (0.5, 1.0))), "81.2% (50.0–100.0)"),
        (numbers.percent(Rate(0.5), digits=0), "50%"),
        (numbers.percent(Rate()), "-"),
        (numbers.decimal(Rate(0.94812, (0.93, 0.964))), "0.948 (0.930–0.964)"),
        (numbers.part_of((1182, 1200)), "1,182 of 1,200"),
        (numbers.part_of(None), "-"),
        (numbers.change(0.678, 0.718), "0.678 → 0.718"),
        (numbers.change(0.678, None), "-"),
        (numbers.points(Rate(0.024, (-0.013, 0.06))), "+2.4 (-1.3 to +6.0)"),
        (numbers.mean_and_sd([0.92, 0.94]), "93.0 ± 1.4"),
        (numbers.mean_and_sd([0.92]), "92.0"),
    ],
)
def test_a_number_is_written_one_way(written: str, expected: str) -> None:
    assert written == expected


def test_a_report_is_read_and_shown_without_torch_or_what_draws() -> None:
    code = "import sys, xray_hf.report.html, xray_hf.report.terminal; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "gradio", "matplotlib", "sklearn", "transformers"} & set(run.stdout.split())


def test_a_held_out_source_is_none_of_training(tmp_path: Path, files: Files) -> None:
    training = files["training.json"]
    training["config"]["data"]["hold_out"] = ["ward"]
    training["sources"][0] = {"kind": "coronahack", "name": "coronahack", "images": 100}
    assert manifest.sources_of(training) == ("coronahack",)
    del files["splits.json"]  # as fetched from the Hub
    report = read(tmp_path / "bundle", files)
    assert ([each.name for each in report.sources], report.held_out) == (["coronahack"], ("ward",))


def test_source_detection_names_the_class_and_sites_that_it_is_of(tmp_path: Path, files: Files) -> None:
    area = {"value": 0.75, "interval": [0.5, 1.0]}
    counts = {split: {"images": 4, "called": 1} for split in ("train", "validation", "test")}
    own = {
        "class": "Normal",
        "sites": {"web": "Hannover", "children": "NIH"},
        "called": "COVID-19",
        "web": {"images": 12, "patients": 9},
        "children": {"images": 90, "patients": 80},
        "auroc": dict.fromkeys(("thumbnail", "histogram", "embedding"), area),
        "web_called_covid": counts,
    }
    files["metrics.json"]["source"] = own
    report = read(tmp_path / "new", files)
    text = page(report)
    assert "Source detection within Normal: Hannover against NIH" in text
    assert "children" not in text
    files["metrics.json"]["source"] = {
        key: value for key, value in own.items() if key not in ("class", "sites", "called")
    }
    old = read(tmp_path / "old", files, "b")
    assert "within Pneumonia: web collection against children's hospital" in in_markdown(old)
    both = in_markdown(report, old)
    assert "Source detection within one class" in both
    assert "Normal: Hannover against NIH" in both
