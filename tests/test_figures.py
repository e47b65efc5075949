"""The figures: they can be drawn, say what they should, stay small and are the same bytes each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from xray_hf.calibration.calibration import Calibration
from xray_hf.errors import OutputError
from xray_hf.evaluation.predictions import Predictions
from xray_hf.report import figures
from xray_hf.task import PAPER_CLASSES

MATRIX = np.array([[216, 10, 8], [22, 354, 14], [0, 0, 0]])
HISTORY = [
    {
        "epoch": epoch,
        "train_loss": 0.6 / epoch,
        "train_accuracy": 1 - 0.2 / epoch,
        "validation_loss": 0.5 / epoch,
        "validation_accuracy": 1 - 0.3 / epoch,
    }
    for epoch in (1, 2, 3)
]


def toy(official: bool = True) -> Predictions:
    """60 test images of all classes; COVID-19 is not of the official test set."""
    rng = np.random.default_rng(0)
    label = np.arange(60) % 3
    names = np.array([f"{row}.jpeg" for row in range(60)])
    official_split = np.where((label < 2) & official, "TEST", "TRAIN")
    logits = (rng.normal(size=(60, 3)) + 2 * np.eye(3)[label]).astype(np.float32)
    return Predictions(
        classes=PAPER_CLASSES,
        file_name=names,
        source=np.array("coronahack"),
        patient_id=names,
        split=np.array("test"),
        official_split=official_split,
        label=label,
        logits=logits,
    )


def texts_of(figure: Figure) -> list[str]:
    """Every string of a figure."""
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(Text)]


FITTED = Calibration(temperature=1.5, abstain_below=0.8, target_risk=0.02, fitted_on={"n": 60})
RAMP = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
COUNTS = {"train": {"Normal": 3, "Pneumonia": 1234}, "test": {"Pneumonia": 2, "COVID-19": 1}}
SHARES = {"whole": {"Normal": 0.9, "Pneumonia": 1.0}, "border": {"Pneumonia": 0.25}}
ENDS = {"whole": {"Normal": [0.8, 0.95], "Pneumonia": [0.7, 1.0]}, "border": {"Pneumonia": [0.2, 0.5]}}
DRAWINGS: dict[str, Callable[[], Figure]] = {
    "confusion": lambda: figures.confusion(MATRIX, "A title", PAPER_CLASSES),
    "curves": lambda: figures.curves(HISTORY, "A title"),
    "curves of one epoch": lambda: figures.curves(HISTORY[:1], "A title"),
    "roc": lambda: figures.roc(toy(), "A title"),
    "reliability": lambda: figures.reliability(toy(), 1.5, "A title"),
    "risk and coverage": lambda: figures.risk_coverage({"test": toy()}, FITTED, "A title"),
    "bars": lambda: figures.bars(COUNTS, "A title"),
    "rates": lambda: figures.rates(SHARES, ENDS, "A title", "Sensitivity"),
    "sheet": lambda: figures.sheet([("one", RAMP), ("two", RAMP), ("three", RAMP)], 2, "A title"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_a_small_picture_with_something_on_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new folder" / "figure.png"
    figure = DRAWINGS[name]()
    figures.save(figure, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) >= 400
        assert len(np.unique(np.asarray(image.convert("L")))) > 20
    assert path.stat().st_size < figures.MAX_BYTES
    assert "A title" in texts_of(figure)


def test_a_figure_is_the_same_bytes_each_time_and_names_no_version(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        figures.save(figures.roc(toy()), tmp_path / name)
    data = (tmp_path / "1.png").read_bytes()
    assert data == (tmp_path / "2.png").read_bytes()
    assert b"tEXt" not in data
    assert b"tIME" not in data


@pytest.mark.slow
def test_many_detailed_images_still_fit_the_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soft = [
        Image.fromarray(rng.integers(0, 256, (24, 24), dtype=np.uint8)).resize((224, 224)) for _ in range(12)
    ]
    figures.save(figures.sheet([("x", np.asarray(image)) for image in soft], 4, "Many"), tmp_path / "s.png")
    assert (tmp_path / "s.png").stat().st_size < figures.MAX_BYTES


def test_an_x_ray_keeps_its_grey_values(tmp_path: Path) -> None:
    # A dim image must not be stretched to full contrast.
    figures.save(figures.sheet([("dim", np.full((32, 32), 100, np.uint8))], 1, "Grey"), tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as image:
        assert image.mode == "L"
        assert image.getpixel((image.width // 2, image.height * 2 // 3)) == 100


def test_the_confusion_matrix_shows_counts_and_shares_of_the_truth() -> None:
    texts = texts_of(figures.confusion(MATRIX, "Official test", PAPER_CLASSES))
    assert {"216", "92.3%", "354", "90.8%", "True", "Predicted"} <= set(texts)
    assert "Normal\n(n = 234)" in texts
    assert texts.count("no cases") == 3


def test_curves_show_the_test_set_only_where_it_was_measured() -> None:
    assert "test" not in texts_of(figures.curves(HISTORY, "Training"))
    measured = [{**row, "test_accuracy": 0.8} for row in HISTORY]
    figure = figures.curves(measured, "Training")
    assert {"train (while training)", "validation", "test"} <= set(texts_of(figure))
    losses, accuracies = figure.axes
    assert (len(losses.lines), len(accuracies.lines)) == (2, 3)


def test_a_roc_curve_is_drawn_for_each_class_with_cases() -> None:
    figure = figures.roc(toy().select("test_official"))
    texts = texts_of(figure)
    assert "COVID-19: no cases" in texts
    assert sum("area" in text and "(n = 20)" in text for text in texts) == 2


def test_reliability_is_shown_before_and_after_the_temperature() -> None:
    figure = figures.reliability(toy(), 1.5, "Test")
    texts = texts_of(figure)
    assert any(text.startswith("before: ECE 0.") for text in texts)
    assert any(text.startswith("after, T = 1.50: ECE 0.") for text in texts)
    bars = [sum(bar.get_height() for bar in axes.patches) for axes in figure.axes]
    assert bars == [0, 60, 0, 60]  # above each histogram of all images lies its plot


def test_the_threshold_is_a_dot_on_each_line_unless_nothing_is_answered() -> None:
    parts = {"validation": toy(), "test": toy()}
    figure = figures.risk_coverage(parts, FITTED, "Test")
    assert "dots: abstains below 80.0%, for 2.0% wrong on validation" in texts_of(figure)
    assert [line.get_marker() for line in figure.axes[0].lines].count("o") == 2
    never = Calibration(1.5, 1.0, 0.02)
    assert "o" not in [line.get_marker() for line in figures.risk_coverage(parts, never, "x").axes[0].lines]


def test_bars_carry_their_numbers_and_the_colours_of_their_classes() -> None:
    figure = figures.bars({"train": dict.fromkeys(PAPER_CLASSES, 1234)}, "Images")
    assert texts_of(figure).count("1,234") == 3


def test_rates_carry_their_intervals() -> None:
    """Each as a line from end to end, upon its bar."""
    axes = figures.rates(SHARES, ENDS, "Views", "Sensitivity").axes[0]
    lines = [each for each in axes.collections if isinstance(each, LineCollection)]
    drawn = [sorted(segment[:, 1]) for each in lines for segment in each.get_segments()]
    expected = [
        ENDS[group][name] for name in ("Normal", "Pneumonia") for group in SHARES if name in SHARES[group]
    ]
    assert np.allclose(drawn, expected)


def test_draw_all_draws_what_there_is() -> None:
    names = ["confusion_test.png", "confusion_test_official.png", "roc_test.png", "curves.png"]
    assert list(figures.draw_all(toy(), HISTORY, Calibration(), "")) == names


def test_draw_all_leaves_out_what_has_no_rows() -> None:
    drawn = figures.draw_all(toy(official=False), [], Calibration(), "")
    assert list(drawn) == ["confusion_test.png", "roc_test.png"]


def test_draw_all_draws_a_calibration_where_there_is_one() -> None:
    drawn = figures.draw_all(toy(), [], FITTED, "")
    assert {"reliability_test.png", "risk_coverage.png"} <= drawn.keys()


def test_a_figure_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        figures.save(figures.confusion(MATRIX, "x", PAPER_CLASSES), tmp_path / "file" / "figure.png")


@pytest.mark.parametrize("classes", [("Normal", "Tuberculosis"), tuple("ABCDEFGH")])
def test_a_bundle_of_any_number_of_classes_is_drawn_under_their_names(classes: tuple[str, ...]) -> None:
    label = np.arange(64) % len(classes)
    logits = np.random.default_rng(0).normal(size=(64, len(classes))).astype(np.float32)
    names = np.array([f"{row}" for row in range(64)])
    table = Predictions(
        classes=classes,
        file_name=names,
        source=np.array("own"),
        patient_id=names,
        split=np.array("test"),
        label=label,
        logits=logits,
    )
    drawn = figures.draw_all(table, [], FITTED, "")
    assert {"confusion_test.png", "roc_test.png", "reliability_test.png"} <= drawn.keys()
    assert set(classes) <= set(texts_of(figures.confusion_of(table, "x")))
