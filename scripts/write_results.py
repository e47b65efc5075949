"""Write docs/results.md around three questions: does the paper come back, what do more sources change, what
still fails.

python scripts/write_results.py

No number of ours is typed in: runs are read from docs/results.json (scripts/collect_results.py), everything
about the shipped models from pretrained/, choices of the recipe from docs/ablations.md (scripts/ablate.py),
speed and memory from docs/bench_*.md (`make bench-train ARGS="--out docs/bench_train.json"`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import aims
import external_sets
import numpy as np
from collect_results import MODELS
from results_texts import TEXTS
from scipy.stats import fisher_exact

from xray_hf import manifest
from xray_hf.errors import BundleError, exit_on_error
from xray_hf.files import write_text
from xray_hf.report import figures, markdown, sections, sentences, tables
from xray_hf.report.numbers import Rate, mean_and_sd, percent, points
from xray_hf.report.report import Report, measured
from xray_hf.text import counted, listed

ROOT = Path(__file__).resolve().parent.parent
DOCS, PRETRAINED = ROOT / "docs", ROOT / "pretrained"
README = ROOT / "README.md"
RECORD, PICTURES = "results.json", "results"
SHIPPED = (*MODELS, *(f"{model}-multisource" for model in MODELS))
RECIPES = {
    "paper": "the paper's recipe and split",
    "paper-grouped": "the paper's recipe, patient-level split",
    "robust": "**our recipe**",
    "multisource": "**four sources**",
}
PAPER_RECIPES = ("paper", "paper-grouped")
MARKS = ("<!-- scripts/write_results.py writes this table -->", "<!-- end of the table -->")
RANDOM = "random"  # initial weights
START_FILE = "resnet18_imagenet_part.safetensors"
# İbişoğlu and Akçay 2021, table 1 and section III.C: percentages as printed, and right images of 638.
PAPER = {
    "xray-resnet18": {"train": 99.979, "validation": 99.885, "test": 79.623, "right": 508},
    "xray-cnn": {"train": 99.808, "validation": 99.713, "test": 77.115, "right": 492},
}
PAPER_TEST = 638
NAMES = {"train": "train", "validation": "validation", "test": "test", "test_official": "official test"}
VIEW = "view-"  # recipes of runs that were trained on ablated inputs

Runs = Sequence[Mapping[str, Any]]


class Kind(NamedTuple):
    """Runs that differ only in their seeds."""

    model: str
    recipe: str
    start: str  # initial weights

    def of(self, runs: Runs) -> list[Mapping[str, Any]]:
        """Its runs."""
        return [run for run in runs if (run["model"], run["recipe"], run["initial_weights"]) == self]

    @property
    def name(self) -> str:
        """The model and its start in words."""
        return f"{self.model} from {in_words(self.start)}"

    @property
    def title(self) -> str:
        """All of it, for a row of a table."""
        return f"{self.name}, {RECIPES[self.recipe]}"


DETAILS = (
    sections.internal,
    sections.calibration,
    sections.ood,
    sections.subgroups,
    sections.label_errors,
    sections.training,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page and its figures."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0]).parse_args(arguments)
    if not (DOCS / RECORD).exists():
        raise BundleError(
            f"{DOCS / RECORD} is missing; scripts/collect_results.py makes it of finished runs."
        )
    record = json.loads((DOCS / RECORD).read_text(encoding="utf-8"))
    shipped = read_shipped()
    text, readme = page(record, shipped), with_table(README.read_text(encoding="utf-8"), in_short(shipped))
    write_text(DOCS / "results.md", text)
    write_text(README, readme)
    figures.save(internal_and_external(shipped), DOCS / PICTURES / "external.png")
    if histories := watched(record["runs"]):
        title = "The paper's recipe: one epoch more or less"
        figures.save(figures.swing(histories, title), DOCS / PICTURES / "swing.png")


def read_shipped() -> list[Report]:
    """The bundles of pretrained/, in the order of SHIPPED; raises BundleError for an incomplete one."""
    found = [Report.read(PRETRAINED / name, name) for name in SHIPPED if (PRETRAINED / name).is_dir()]
    for each in found:
        if each.gaps or not each.label_errors or not each.ood:
            lacks = each.gaps[0] if each.gaps else "label_noise" if each.ood else "ood_report"
            raise BundleError(
                f"{each.folder} is not a release: it lacks {lacks}; `scripts/release.py` makes it, or "
                "`xray-hf report`, `calibrate` and `evaluate`."
            )
    return found


def page(record: Mapping[str, Any], shipped: Sequence[Report]) -> str:
    """The whole page."""
    runs = [run for run in record["runs"] if run["recipe"] in RECIPES]
    views = [run for run in record["runs"] if run["recipe"].startswith(VIEW)]
    speed = sorted(DOCS.glob("bench_train*.md"))
    parts = [opening(runs, shipped)]
    parts += ["## Does the paper come back?", overview(runs), epochs(runs)]
    parts += [which_is_better(runs, record["compared"]), leak_meter(runs)]
    parts += ["## What do more sources change?", more_sources(runs, shipped)]
    parts += [in_full(own) for own in (sections.external(shipped), sections.sources(shipped)) if own]
    parts += ["## What still fails?", what_fails(shipped)]
    parts += [in_full(sections.controls(shipped)), trained_on_views(views)]
    parts += ["## More numbers", TEXTS["more"]]
    parts += [in_full(make(shipped)) for make in DETAILS]
    parts.append(part(DOCS / "ablations.md", "## Choices of the recipe", TEXTS["ablations"]))
    parts += [part(path, *([] if n else ["## Speed", TEXTS["speed"]])) for n, path in enumerate(speed)]
    parts.append(part(DOCS / "bench_memory.md", "## Memory"))
    return "\n\n".join(text for text in parts if text) + "\n"


def in_full(own: sections.Section) -> str:
    """A section of the shipped models' report, without its figures, which the cards have."""
    return markdown.section(replace(own, figures=()), 3, lambda _: "")


def opening(runs: Runs, shipped: Sequence[Report]) -> str:
    """Three answers and a figure, then what the data cannot tell."""
    answers = [*answer_paper(runs), *answer_sources(shipped), *answer_fails(shipped)]
    picture, table = glance(shipped)
    about = sentences.about_data(shipped)
    how = f"{TEXTS['how to read']} {sentences.INTERVALS} [Limitations](limitations.md) has the rest."
    after = ["## What the data cannot tell", *map(markdown.paragraph, [*about, how])]
    return "\n\n".join(["# Results", TEXTS["opening"], "\n".join(answers), picture, table, *after])


def answer_paper(runs: Runs) -> list[str]:
    """Does the paper come back, in a sentence."""
    own, ours = (by_kind(runs, recipe, tested) for recipe in ("paper", "robust"))
    printed = listed(f"{PAPER[model]['test']:.1f} % ({model})" for model in MODELS)
    lines = [
        f"It prints a test accuracy of {printed}.",
        f"Its recipe gives us, in percent, {own}; ours {ours}.",
    ]
    return bullet("Does the paper come back?", lines)


def answer_sources(shipped: Sequence[Report]) -> list[str]:
    """What more sources change, a sentence for each network that ships both ways."""
    known = {each.name: external_sets.measure(each.folder) for each in shipped}
    lines = []
    for model in MODELS:
        one, several = known.get(model, {}), known.get(f"{model}-multisource", {})
        if "balanced_accuracy" in one and "balanced_accuracy" in several:
            keys = ("balanced_accuracy", "covid_false_positives", "covid_sensitivity")
            (balanced, wrongly, found) = (
                f"{one[key]['value']:.0%} to {several[key]['value']:.0%}" for key in keys
            )
            lines.append(
                f"{model} on the external sets: balanced accuracy goes from {balanced}, healthy adults of "
                f"openist called COVID-19 from {wrongly}, COVID-19 of spain_twitter found from {found}."
            )
    return bullet("What do more sources change?", lines)


def bullet(question: str, lines: Sequence[str]) -> list[str]:
    """One item of a list; none without lines."""
    return [f"- **{question}** {' '.join(lines)}"] if lines else []


def answer_fails(shipped: Sequence[Report]) -> list[str]:
    """What still fails, two sentences for each model of several sources."""
    lines = []
    for each in shipped:
        own = external_sets.measure(each.folder)
        if each.name not in MODELS and "engine" in own:
            mixed = own["mixed"]
            shares = [
                mixed["pneumonia_sensitivity"],
                mixed["covid_false_positives"],
                own["engine"]["decided"],
            ]
            found, wrongly, decided = ("{} of {}".format(*share["counts"]) for share in shares)
            silent = shares[-1]["counts"][1] - shares[-1]["counts"][0]
            lines.append(
                f"{each.name} finds {found} Pneumonia of nih_figure1 and calls "
                f"{wrongly} healthy adults there COVID-19. Its engine gives a class to {decided} healthy "
                f"adults of openist and leaves {silent} without an answer."
            )
    return bullet("What still fails?", lines)


def glance(shipped: Sequence[Report]) -> tuple[str, str]:
    """Internal and external performance of the shipped models, as a figure and a table; "" without any."""
    rows = []
    for each in shipped:
        own = external_sets.measure(each.folder)
        if "balanced_accuracy" in own:
            engine = own.get("engine", {})
            keys = ("covid_false_positives", "covid_sensitivity")
            shares = [own["balanced_accuracy"], own["mixed"]["balanced_accuracy"]]
            shares += [*(own[key] for key in keys), engine.get("decided", {})]
            shares += [engine.get(key, {}) for key in keys]
            numbers = [each.subsets["test"].balanced_accuracy, *map(external_sets.rate, shares)]
            rows.append([each.name, *map(percent, numbers)])
    if not rows:
        return "", ""
    heads = ["", "internal, balanced accuracy", "external, balanced accuracy", "… nih_figure1 alone"]
    heads += ["healthy adults called COVID-19", "COVID-19 found", "engine: healthy adults who get a class"]
    heads += ["engine: healthy adults called COVID-19", "engine: COVID-19 found"]
    said = "; ".join(f"{row[0]}: internal {row[1]}, external {row[2]}" for row in rows)
    picture = f"![Balanced accuracy of the shipped models. {said}. Chance is 33.3%.]({PICTURES}/external.png)"
    risks = [f"{percent(Rate(each.fitted.target_risk), 0)} ({each.name})" for each in shipped if each.fitted]
    note = markdown.paragraph(TEXTS["glance"].format(risks=listed(risks)))
    return picture, f"{note}\n\n{markdown.rows_below(heads, rows)}"


def in_short(shipped: Sequence[Report]) -> str:
    """The table of README.md: internal against external, without intervals."""
    rows = []
    for each in shipped:
        own = external_sets.measure(each.folder)
        parts, keys = (own, own.get("mixed", {})), ("balanced_accuracy", "covid_false_positives")
        shares = [part.get(key, {}) for key in keys for part in parts]
        numbers = [each.subsets["test"].balanced_accuracy, *map(external_sets.rate, shares)]
        cells = (percent(Rate(number.value), 0) for number in numbers)
        rows.append([f"`{each.name}`", counted(len(each.sources), "source"), *cells])
    heads = ["", "trained on", "internal test set", "three external sets", "nih_figure1 alone"]
    heads += [
        f"healthy adults of {name} called COVID-19" for name in (external_sets.ADULTS, external_sets.MIXED)
    ]
    return markdown.rows_below(heads, rows)


def with_table(text: str, table: str) -> str:
    """README.md with its table replaced, which stands between two marks; raises BundleError without them."""
    if any(mark not in text for mark in MARKS):
        raise BundleError(f"{README} lacks the lines {' and '.join(MARKS)}; put them back around its table.")
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{after}"


def internal_and_external(shipped: Sequence[Report]) -> figures.Figure:
    """Balanced accuracy of each shipped model on both kinds of test sets, with the chance line."""
    shares: dict[str, dict[str, float]] = {}
    ends: dict[str, dict[str, Sequence[float]]] = {}
    for each in shipped:
        own = external_sets.measure(each.folder)
        outside = [part.get("balanced_accuracy", {}) for part in (own, own.get("mixed", {}))]
        network, _, _ = each.name.partition("-multisource")
        name = f"{network}\n{'CoronaHack' if network == each.name else 'four sources'}"
        names = ("three external sets", "nih_figure1, the one with all classes")
        numbers = {"internal test set": each.subsets["test"].balanced_accuracy}
        numbers |= dict(zip(names, map(external_sets.rate, outside), strict=True))
        known = {what: number for what, number in numbers.items() if number.value is not None}
        shares[name] = {what: number.value or 0 for what, number in known.items()}
        ends[name] = {what: number.interval or (0, 0) for what, number in known.items()}
    drawn = figures.rates(shares, ends, "Internal and external test sets", "Balanced accuracy")
    chance = 1 / len(shipped[0].classes) if shipped else 0
    axes = drawn.axes[0]
    axes.axhline(chance, color=figures.GREY, linestyle="--", linewidth=1)
    axes.text(axes.get_xlim()[1], chance, " chance", va="center", color=figures.GREY, size=figures.TEXT)
    return drawn


def more_sources(runs: Runs, shipped: Sequence[Report]) -> str:
    """The aims of the preset `multisource`, networks over seeds and engines as shipped; what a run costs."""
    several = {kind.model: kind.of(runs) for kind in kinds_of(runs) if kind.recipe == "multisource"}
    costs = [
        f"Training {model} on four sources takes {minutes(own)} minutes ({images_a_second(own)} images per "
        "second)."
        for model, own in several.items()
    ]
    tables = [aims.of_networks(several, shipped), aims.of_engines(shipped)]
    return "\n\n".join([TEXTS["more sources"], *tables, *costs])


def what_fails(shipped: Sequence[Report]) -> str:
    """The aims that are missed, model by model, and what no number of this page can repair."""
    missed = [
        f"- {each.name} as shipped misses {len(own)} of {aims.COUNT} aims: {listed(own)}."
        for each in shipped
        if each.name not in MODELS and (own := aims.missed(each))
    ]
    return "\n\n".join(["\n".join(missed), TEXTS["fails"]]) if missed else TEXTS["fails"]


def trained_on_views(runs: Runs) -> str:
    """Networks that never saw anything but an ablated input."""
    named = [(run, run["recipe"].removeprefix(VIEW)) for run in runs]
    sets = [
        (run["model"], tables.control_title("whole" if view == manifest.WHOLE else view), own)
        for run, view in named
        if (own := measured(run["metrics"]["test"], tuple(run["metrics"]["test"]["per_class"])))
    ]
    if not sets:
        return ""
    classes = list(sets[0][2].classes)
    found = [tables.performance("", sets), tables.class_columns("", sets, classes)]
    drawn = [markdown.table(table.without_empty()) for table in found]
    covid = [run["metrics"]["test"]["per_class"]["COVID-19"] for run, view in named if view == "border"]
    border = [TEXTS["of border"].format(**each) for each in covid[:1]]
    return "\n\n".join(["### Trained on ablated inputs", TEXTS["trained on views"], *border, *drawn])


def part(path: Path, *before: str) -> str:
    """A page that another script has written, below these paragraphs; "" if it is not there."""
    if not path.exists():
        return ""
    return "\n\n".join([*before, path.read_text(encoding="utf-8").strip()])


def kinds_of(runs: Runs) -> list[Kind]:
    """Every kind of run there is: models and recipes in their order, random weights first."""
    kinds = {Kind(run["model"], run["recipe"], run["initial_weights"]) for run in runs}
    order = [*MODELS, *RECIPES]
    places = {
        kind: (order.index(kind.model), order.index(kind.recipe), kind.start != RANDOM) for kind in kinds
    }
    return sorted(kinds, key=places.__getitem__)


def in_words(start: str) -> str:
    """Initial weights: random weights, or the file or id that they come from."""
    return "random weights" if start == RANDOM else start


def overview(runs: Runs) -> str:
    """The paper's table beside ours."""
    rows: list[list[Any]] = []
    for model in MODELS:
        printed = [PAPER[model][subset] for subset in ("train", "validation", "test")]
        rows.append([f"{model}, as the paper prints", 1, *printed, *["not given"] * 3])
        for kind in kinds_of(runs):
            if kind.model == model and kind.recipe != "multisource":
                own = kind.of(runs)
                cells = [spread(own, subset, "accuracy") for subset in NAMES]
                cells.append(spread(own, "test", "balanced_accuracy"))
                rows.append([kind.title, len(own), *cells, minutes(own)])
    heads = ["accuracy, %", "seeds", *NAMES.values(), "test, balanced", "minutes"]
    where = sorted({f"{run['device']}, {run['precision']}, torch {run['torch']}" for run in runs})
    texts = [markdown.paragraph(TEXTS["overview"].format(where="; ".join(where)))]
    if any(run["initial_weights"] == START_FILE for run in runs):
        texts.append(markdown.paragraph(TEXTS["start"]))
    return "\n\n".join([*texts, markdown.rows_below(heads, rows)])


def images_a_second(runs: Runs) -> str:
    """The median speed of training over all epochs of some runs."""
    return f"{np.median([row['images_per_second'] for run in runs for row in run['history']]):.0f}"


def minutes(runs: Runs) -> str:
    """The mean wall time of some runs."""
    return f"{np.mean([run['seconds'] for run in runs]) / 60:.0f}"


def which_is_better(runs: Runs, compared: Iterable[Mapping[str, Any]]) -> str:
    """Does the paper's difference survive?"""
    right = [PAPER[model]["right"] for model in MODELS]
    p_value = fisher_exact(np.asarray([[n, PAPER_TEST - n] for n in right])).pvalue
    pairs = sorted(compared, key=lambda row: ([*RECIPES].index(row["recipe"]), row["seed"]))
    rows = []
    for row in pairs:
        differences, test = (row["accuracy"], row["balanced_accuracy"]), row["mcnemar"]
        cells = [points(Rate(own["difference"], own["interval"])) for own in differences]
        counts = [test["only_b_right"], test["only_a_right"], f"{test['p_value']:.2g}"]
        start = in_words(row["initial_weights"])
        rows.append([f"{RECIPES[row['recipe']]}, ResNet18 from {start}", row["seed"], *cells, *counts])
    heads = ["recipe", "seed", "accuracy", "balanced accuracy"]
    heads += ["only ResNet18 right", "only the CNN right", "p"]
    text = markdown.paragraph(TEXTS["better"].format(right=right, total=PAPER_TEST, p_value=p_value))
    found = [text, *means_apart(runs), markdown.rows_below(heads, rows)]
    seeds: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in pairs:
        seeds.setdefault((row["recipe"], row["initial_weights"]), []).append(row)
    verdicts = [
        survives(f"{RECIPES[recipe]}, ResNet18 from {in_words(start)}", rows)
        for (recipe, start), rows in seeds.items()
    ]
    return "\n\n".join(["### Is one of the two models better?", *found, "\n".join(verdicts)])


def means_apart(runs: Runs) -> list[str]:
    """ResNet18 from a start other than random weights against the CNN, whose runs are not paired with it."""
    lines = []
    for kind in kinds_of(runs):
        cnn = Kind(MODELS[1], kind.recipe, RANDOM).of(runs)
        if kind.model == MODELS[0] and kind.start != RANDOM and kind.recipe in PAPER_RECIPES and cnn:
            resnet = kind.of(runs)
            means = [np.mean([tested(run) for run in own]) for own in (resnet, cnn)]
            lines.append(
                f"- {RECIPES[kind.recipe]}, ResNet18 from {in_words(kind.start)}: test accuracy "
                f"{spread(resnet, 'test', 'accuracy')} % over {counted(len(resnet), 'seed')}, of the CNN "
                f"{spread(cnn, 'test', 'accuracy')} % over {len(cnn)}: {100 * (means[0] - means[1]):+.1f} "
                "points."
            )
    return ["\n".join(lines)] if lines else []


def survives(title: str, rows: Runs) -> str:
    """What the seeds of one recipe say of the difference, in words."""
    gaps = mean_and_sd([row["accuracy"]["difference"] for row in rows])
    intervals = [row["accuracy"]["interval"] for row in rows]
    smallest = f"smallest p {min(row['mcnemar']['p_value'] for row in rows):.2g}"
    if all(low > 0 for low, _ in intervals):
        verdict = "ResNet18 is better with every seed"
    elif all(high < 0 for _, high in intervals):
        verdict = "the CNN is better with every seed"
    elif all(low <= 0 <= high for low, high in intervals):
        verdict = "no seed shows a difference that chance would not"
    else:
        verdict = "it depends on the seed"
    return f"- {title}: {gaps} points over {counted(len(rows), 'seed')}; {verdict} ({smallest})."


def leak_meter(runs: Runs) -> str:
    """Validation against test, the same recipe under both protocols; "" before such runs are there."""
    rows = []
    for kind in kinds_of(runs):
        if kind.recipe in PAPER_RECIPES:
            own = kind.of(runs)
            leak = [f"{own[0]['leak'][what]['all']:.0%}" for what in ("image", "patient")]
            validation, test = (spread(own, subset, "accuracy") for subset in ("validation", "test"))
            apart = mean_and_sd([run["unleaked"]["accuracy"] for run in own])
            unleaked = f"{apart} of {own[0]['unleaked']['n']}"
            gap = mean_and_sd([behind(run) for run in own])
            rows.append([kind.title, len(own), *leak, validation, unleaked, test, gap])
    if not rows:
        return ""
    heads = ["", "seeds", "leak, image", "leak, patient", "validation"]
    heads += ["validation, unleaked", "test", "gap"]
    ours = by_kind(runs, "robust", behind)
    gap = markdown.paragraph(TEXTS["gap"].format(less=by_kind(runs, "paper", leaking), ours=ours))
    title = "### How much of 99.9 % was leak"
    return f"{title}\n\n{TEXTS['leak']}\n\n{markdown.rows_below(heads, rows)}\n\n{gap}"


def by_kind(runs: Runs, recipe: str, share: Callable[[Mapping[str, Any]], float]) -> str:
    """A share of a recipe's runs, kind by kind: 2.3 ± 1.5 (xray-resnet18 from random weights) and …"""
    return listed(
        f"{mean_and_sd([share(run) for run in kind.of(runs)])} ({kind.name})"
        for kind in kinds_of(runs)
        if kind.recipe == recipe
    )


def tested(run: Mapping[str, Any]) -> float:
    """Its test accuracy."""
    return float(run["metrics"]["test"]["accuracy"])


def leaking(run: Mapping[str, Any]) -> float:
    """How much better all validation rows are than those that training does not know."""
    return float(run["metrics"]["validation"]["accuracy"] - run["unleaked"]["accuracy"])


def behind(run: Mapping[str, Any]) -> float:
    """How much better validation is than test."""
    return float(run["metrics"]["validation"]["accuracy"] - tested(run))


def epochs(runs: Runs) -> str:
    """How test accuracy swings over the epochs of the paper's recipe, which its validation hides."""
    lines = []
    for name, histories in watched(runs).items():
        tests = [[row["test_accuracy"] for row in history] for history in histories]
        ends = "; ".join(f"{min(own):.1%} to {max(own):.1%}" for own in tests)
        steps = 100 * np.mean([np.abs(np.diff(own)).mean() for own in tests])
        name = " ".join(name.split())
        lines.append(
            f"{name}, seed by seed: {ends}; from one epoch to the next by {steps:.1f} points on average"
        )
    if not lines:
        return ""
    alt = f"Test accuracy over the epochs of the paper's recipe. {'. '.join(lines)}."
    title = "### One epoch more or less"
    picture = f"![{alt}]({PICTURES}/swing.png)"
    return "\n\n".join([title, TEXTS["epochs"], "\n".join(f"- {line}." for line in lines), picture])


def is_watched(run: Mapping[str, Any]) -> bool:
    """Whether its test accuracy is known after every epoch."""
    return all("test_accuracy" in row for row in run["history"])


def watched(runs: Runs) -> dict[str, list[list[Mapping[str, Any]]]]:
    """{kind in short: the history of each run} of the paper's recipe."""
    shown = [run for run in runs if run["recipe"] == "paper" and is_watched(run)]
    kinds = kinds_of(shown)
    return {
        f"{kind.model}\nfrom {in_words(kind.start)}": [run["history"] for run in kind.of(shown)]
        for kind in kinds
    }


def spread(runs: Runs, subset: str, key: str) -> str:
    """Mean ± sd over seeds, in percent."""
    return mean_and_sd([run["metrics"][subset][key] for run in runs])


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
