"""Figures of predictions, training and data: each function returns a matplotlib Figure, `save` writes it.

Only figure objects, no pyplot: nothing global changes and no display is needed. Colours are those of Okabe
and Ito (jfly.uni-koeln.de/color), which colour-blind readers can tell apart; line styles and numbers
repeat what they say.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve

from xray_hf.calibration import abstention
from xray_hf.calibration import temperature as scaling
from xray_hf.calibration.calibration import Calibration
from xray_hf.calibration.temperature import BINS, calibrated
from xray_hf.evaluation.metrics import Counts, accuracy, auroc, confusion_matrix
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import atomic_file
from xray_hf.report.tables import SUBSETS

# Blue, vermillion, bluish green, reddish purple, sky blue, orange; class i has colour i.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
BLUE = PALETTE[0]
LINES = ("-", "--", "-.")
GREY, PALE, PALEST = "#5F5F5F", "#E6E6E6", "#F2F5F8"
TITLE, TEXT, SMALL = 15, 13, 11  # points
TITLE_LETTERS = 8.5  # letters of a title that fit into an inch
SUBSET_NAMES = {subset: SUBSETS[subset] for subset in ("validation", "test", "test_official")}

DPI = (150, 130, 115, 100, 90, 80, 70, 60)  # the first at which the file is small enough
MAX_BYTES = 200_000


def confusion(matrix: Counts, title: str, classes: Sequence[str]) -> Figure:
    """(C, C) counts, rows true and columns predicted: every cell with its count and its share of the row."""
    totals = matrix.sum(axis=1)
    shares = matrix / np.maximum(totals, 1)[:, None]
    figure = _figure(7, 6.4, title)
    axes = _plot(figure, "Predicted", "True")
    colours = LinearSegmentedColormap.from_list("share", [PALEST, BLUE])
    axes.imshow(shares, cmap=colours, vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        percent = f"{share:.1%}" if totals[row] else "no cases"
        colour = "white" if share > 0.6 else "black" if totals[row] else GREY
        for text, y, size in ((f"{matrix[row, column]:,}", row - 0.06, 24), (percent, row + 0.16, TEXT)):
            axes.text(column, y, text, size=size, color=colour, ha="center", va="center")
    ticks = np.arange(len(classes))
    axes.set_xticks(ticks, classes)
    axes.set_yticks(ticks, [f"{label}\n(n = {n:,})" for label, n in zip(classes, totals, strict=True)])
    # White lines between the cells, in place of the usual frame.
    axes.set_xticks(ticks[1:] - 0.5, minor=True)
    axes.set_yticks(ticks[1:] - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=3)
    axes.grid(which="major", visible=False)
    axes.tick_params(which="minor", length=0)
    return figure


def confusion_of(predictions: Predictions, name: str) -> Figure:
    """`confusion` of some predictions; its title says how many are right."""
    matrix = confusion_matrix(predictions.label, predictions.predicted, len(predictions.classes))
    right = f"{matrix.trace():,} of {matrix.sum():,} right ({accuracy(matrix):.1%})"
    return confusion(matrix, f"{name}: {right}", predictions.classes)


def curves(history: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Loss and accuracy by epoch, side by side.

    history: one mapping an epoch with epoch, train_loss, train_accuracy (both taken while training, so before
    the epoch's last weights), validation_loss, validation_accuracy, and where known test_accuracy (0 to 1).
    """
    figure = _figure(11, 4.8, title)
    epochs = [row["epoch"] for row in history]
    for place, what in enumerate(("loss", "accuracy"), start=1):
        axes = _plot(figure, "Epoch", what.capitalize(), (1, 2, place))
        for index, (name, label) in enumerate(_CURVES.items()):
            if all(f"{name}_{what}" in row for row in history):
                values = [row[f"{name}_{what}"] for row in history]
                marks: dict[str, Any] = {"marker": "os^"[index], "markersize": 7, "clip_on": False}
                axes.plot(epochs, values, label=label, **_line(index), **marks)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    losses, accuracies = figure.axes
    losses.set_ylim(bottom=0)
    accuracies.yaxis.set_major_formatter(PercentFormatter(1))
    _legend_below(figure, accuracies)
    return figure


def swing(groups: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], title: str) -> Figure:
    """Validation and test accuracy after every epoch: a panel for each {name: histories}, a line a history.

    A history: one mapping an epoch with epoch, validation_accuracy and test_accuracy (0 to 1).
    """
    figure = _figure(4.6 * len(groups), 4.8, title)
    for place, (name, histories) in enumerate(groups.items(), start=1):
        axes = _plot(figure, "Epoch", "Accuracy" if place == 1 else "", (1, len(groups), place))
        axes.set_title(name, fontsize=TEXT)
        for index, subset in enumerate(("validation", "test")):
            for number, history in enumerate(histories):
                values = [row[f"{subset}_accuracy"] for row in history]
                label = subset if number == 0 else None
                axes.plot([row["epoch"] for row in history], values, "o-", color=PALETTE[index], label=label)
        axes.set_ylim(0.6, 1.01)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_below(figure, figure.axes[0])
    return figure


def roc(predictions: Predictions, title: str = "ROC, each class against the rest") -> Figure:
    """One ROC curve a class with its area; a class without cases is named as such, not drawn."""
    labels, probabilities = predictions.label, predictions.probabilities
    figure = _figure(6.6, 6.8, title)
    axes = _plot(figure, "False positive rate (1 − specificity)", "True positive rate (sensitivity)")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    for index, area in enumerate(auroc(labels, probabilities)):
        name, n = predictions.classes[index], (labels == index).sum()
        if np.isfinite(area):
            x, y, _ = roc_curve(labels == index, probabilities[:, index])
            text = f"{name}: area {area:.3f} (n = {n:,})"
            axes.plot(x, y, label=text, clip_on=False, **_line(index))
        else:
            axes.plot([], [], linestyle="none", label=f"{name}: {'only' if n else 'no'} cases")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(loc="lower right", fontsize=TEXT, frameon=False)
    return figure


def reliability(predictions: Predictions, temperature: float, title: str) -> Figure:
    """Accuracy by confidence, before and after the temperature, above the histogram of the confidences.

    A calibrated model's dots lie on the dotted line; below it, the model is overconfident. A dot's area is
    its number of images, so small bins also look unimportant.
    """
    figure = _figure(11, 6.6, title)
    labels = predictions.label
    for column, (name, by) in enumerate(
        {"before": 1.0, f"after, T = {temperature:.2f}": temperature}.items()
    ):
        probabilities = calibrated(predictions.logits, by)
        n, sure, right = scaling.reliability(labels, probabilities)
        above = _plot(figure, "", "Accuracy", (4, 2, (1 + column, 5 + column)))
        above.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        above.scatter(sure, right, s=20 + 400 * n / n.max(), color=BLUE, clip_on=False, zorder=3)
        error = scaling.expected_calibration_error(labels, probabilities)
        above.set_title(f"{name}: ECE {error:.3f}", fontsize=TEXT)
        above.set_ylim(0, 1)
        above.yaxis.set_major_formatter(PercentFormatter(1))
        below = _plot(figure, "Confidence (highest probability)", "Images", (4, 2, 7 + column))
        below.bar((np.arange(BINS) + 0.5) / BINS, n, 0.94 / BINS, color=BLUE)
        below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        for axes in (above, below):
            axes.set_xlim(0.9 / len(predictions.classes), 1)  # of C classes the highest has 1 / C or more
            axes.xaxis.set_major_formatter(PercentFormatter(1))
    return figure


def risk_coverage(parts: Mapping[str, Predictions], fitted: Calibration, title: str) -> Figure:
    """Selective risk by coverage, one line for each of {name: rows}; the threshold as a dot."""
    figure = _figure(7.6, 6.4, title)
    axes = _plot(figure, "Coverage", "Selective risk")
    axes.axhline(fitted.target_risk, color=GREY, linewidth=1, linestyle=":")
    for index, (name, part) in enumerate(parts.items()):
        curve = abstention.risk_coverage(part.label, calibrated(part.logits, fitted.temperature))
        line = _line(index)
        label = f"{name}: area {curve.area:.3f} (n = {len(part):,})"
        axes.plot(curve.coverage, curve.risk, label=label, **line)
        if answered := int((curve.confidence >= fitted.abstain_below).sum()):
            place = curve.coverage[answered - 1], curve.risk[answered - 1]
            axes.plot(*place, "o", color=line["color"], markersize=10, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, max(0.05, axes.get_ylim()[1])))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    below, risk = fitted.abstain_below, fitted.target_risk
    dots = f"dots: abstains below {below:.1%}, for {risk:.1%} wrong on validation"
    axes.set_title(dots, fontsize=TEXT)
    _legend_below(figure, axes)
    return figure


def ood_roc(scores: Mapping[str, Sequence[float]], title: str) -> Figure:
    """One ROC curve for each kind of OOD image against the test X-rays; the left fifth of it.

    scores: "test" and each kind, higher is less like a chest X-ray, above 0 rejected: that point is marked.
    """
    figure = _figure(7.6, 6.8, title)
    axes = _plot(figure, "Test X-rays wrongly rejected", "OOD images rejected")
    test = np.asarray(scores["test"])
    for index, (kind, own) in enumerate((kind, own) for kind, own in scores.items() if kind != "test"):
        is_ood = np.repeat([False, True], [len(test), len(own)])
        x, y, _ = roc_curve(is_ood, np.concatenate([test, own]), drop_intermediate=False)
        area = roc_auc_score(is_ood, np.concatenate([test, own]))
        line = _line(index)
        axes.plot(x, y, label=f"{kind.replace('_', ' ')}: area {area:.3f} (n = {len(own)})", **line)
        axes.plot((test > 0).mean(), (np.asarray(own) > 0).mean(), "o", color=line["color"], markersize=9)
    axes.set(xlim=(-0.005, 0.2), ylim=(0, 1.02))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    legend = {"title": "dot: where the threshold is set", "title_fontsize": TEXT, "fontsize": TEXT}
    axes.legend(loc="lower right", frameon=False, **legend)
    return figure


def bars(counts: Mapping[str, Mapping[str, int]], title: str) -> Figure:
    """Grouped bars with their numbers: `counts[group][series]`, for instance `counts["train"]["Normal"]`."""
    figure, axes = _grouped(counts, title, "Images", "{:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.margins(y=0.1)
    return figure


def rates(
    shares: Mapping[str, Mapping[str, float]],
    ends: Mapping[str, Mapping[str, Sequence[float]]],
    title: str,
    what: str,
) -> Figure:
    """Grouped bars of shares, 0 to 1, with their numbers: `shares[group][series]`; a missing one has no bar.

    ends: the intervals, [low, high], drawn on the bars. what: the label of the axis.
    """
    figure, axes = _grouped(shares, title, what, "{:.0%}", ends)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(0, 1.08)
    return figure


def sheet(images: Sequence[tuple[str, NDArray[np.uint8]]], columns: int, title: str) -> Figure:
    """Contact sheet of (caption, (H, W) uint8 image), row by row; grey values as they are."""
    rows = -(-len(images) // columns)
    figure = _figure(2 * columns, 2.3 * rows + 0.6, title)
    for place, (caption, image) in enumerate(images, start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
        axes.set_title(caption, fontsize=SMALL)
    return figure


def draw_all(
    predictions: Predictions, history: Sequence[Mapping[str, Any]], fitted: Calibration, mark: str
) -> dict[str, Figure]:
    """The pictures of a bundle: confusion_<subset>.png, roc_test.png, curves.png, and of a calibration
    reliability_test.png, risk_coverage.png, ood_roc.png; each where there is something to draw.

    mark: the prefix of every title.
    """
    drawn: dict[str, Figure] = {}
    for subset, name in SUBSET_NAMES.items():
        if len(part := predictions.select(subset)):
            drawn[f"confusion_{subset}.png"] = confusion_of(part, f"{mark}{name}")
    if len(test := predictions.select("test")):
        drawn["roc_test.png"] = roc(test, f"{mark}internal test set, each class against the rest")
        if fitted.fitted_on:
            title = f"{mark}internal test set, reliability"
            drawn["reliability_test.png"] = reliability(test, fitted.temperature, title)
    if fitted.fitted_on:
        parts = {SUBSET_NAMES[subset]: predictions.select(subset) for subset in ("validation", "test")}
        parts = {name: part for name, part in parts.items() if len(part)}
        drawn["risk_coverage.png"] = risk_coverage(parts, fitted, f"{mark}selective risk by coverage")
    if history:
        drawn["curves.png"] = curves(history, f"{mark}training")
    if "scores" in fitted.ood_report:
        drawn["ood_roc.png"] = ood_roc(fitted.ood_report["scores"], f"{mark}OOD detection")
    return drawn


def save(figure: Figure, path: Path) -> None:
    """Write a PNG atomically, the same bytes each time; 150 dpi, or down to 60 to stay below 200 kB.

    Raises OutputError when it cannot be written.
    """
    data = b""
    for dpi in DPI:
        data = _png(figure, dpi)
        if len(data) < MAX_BYTES:
            break
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


_CURVES = {"train": "train (while training)", "validation": "validation", "test": "test"}


def _figure(width: float, height: float, title: str) -> Figure:
    """An empty figure with its title; sizes in inches."""
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    lines = textwrap.fill(title, int(TITLE_LETTERS * width), break_on_hyphens=False)
    figure.suptitle(lines, fontsize=TITLE, fontweight="bold")
    return figure


def _plot(figure: Figure, x: str, y: str, place: tuple[int, int, int | tuple[int, int]] = (1, 1, 1)) -> Axes:
    """A plot with named axes and light grid lines behind the data, without a frame."""
    axes = figure.add_subplot(*place)
    axes.set_xlabel(x, fontsize=TEXT, labelpad=6)
    axes.set_ylabel(y, fontsize=TEXT, labelpad=6)
    axes.tick_params(labelsize=TEXT, length=0, pad=7)
    axes.grid(color=PALE)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    return axes


def _legend_below(figure: Figure, axes: Axes) -> None:
    """One legend for the figure, in a row below it, where it hides no data."""
    handles, labels = axes.get_legend_handles_labels()
    options = {"ncols": len(labels), "fontsize": TEXT, "frameon": False}
    figure.legend(handles, labels, loc="outside lower center", **options)


def _grouped(
    values: Mapping[str, Mapping[str, float]],
    title: str,
    y: str,
    label: str,
    ends: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
) -> tuple[Figure, Axes]:
    """Bars of values[group][series], each with its number in the format `label`, and with its interval."""
    series = list(dict.fromkeys(name for group in values.values() for name in group))
    figure = _figure(2.2 + 0.75 * (len(series) + 0.6) * len(values), 5, title)
    axes = _plot(figure, "", y)
    width = 0.84 / len(series)
    for index, name in enumerate(series):
        known = [(place, group[name]) for place, group in enumerate(values.values()) if name in group]
        places = np.asarray([place for place, _ in known]) + (index - (len(series) - 1) / 2) * width
        heights = [height for _, height in known]
        options: dict[str, Any] = {"color": PALETTE[index % len(PALETTE)], "label": name}
        if ends:
            of_bars = np.asarray([ends[group][name] for group in values if name in values[group]])
            options |= {"yerr": abs(of_bars.T - heights), "error_kw": {"linewidth": 1.2, "ecolor": GREY}}
        drawn = axes.bar(places, heights, width * 0.94, **options)
        axes.bar_label(drawn, fmt=label, fontsize=SMALL, padding=2)
    axes.grid(visible=False)  # the bars carry their numbers, which lines would cross
    axes.set_xticks(np.arange(len(values)), list(values), fontsize=TEXT)
    _legend_below(figure, axes)
    return figure, axes


def _line(index: int) -> dict[str, Any]:
    """Colour and dashes of the line with this index, so that either tells it from the others."""
    return {"color": PALETTE[index % len(PALETTE)], "linestyle": LINES[index % len(LINES)], "linewidth": 2.4}


def _png(figure: Figure, dpi: int) -> bytes:
    """The figure as a PNG without version or time inside; one channel if all is grey, as X-rays are."""
    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, pil_kwargs={"compress_level": 0})
    image = Image.open(drawn).convert("RGB")
    red, green, blue = (channel.tobytes() for channel in image.split())
    (image.convert("L") if red == green == blue else image).save(packed, format="PNG", optimize=True)
    return packed.getvalue()
