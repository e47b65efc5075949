"""The aims of the preset `multisource`, set before its search, and the numbers that it reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import external_sets
import numpy as np
from collect_results import MODELS

from xray_hf.report import markdown
from xray_hf.report.numbers import UNKNOWN, Rate, decimal, percent
from xray_hf.report.report import Report
from xray_hf.text import counted

Run = Mapping[str, Any]  # of docs/results.json


def of_networks(seeds: Mapping[str, Sequence[Run]], shipped: Sequence[Report]) -> str:
    """The aims for networks as a table: {model: its runs} of several sources, beside shipped ones of one."""
    single = [(each, external_sets.measure(each.folder)) for each in shipped if each.name in MODELS]
    heads = [f"{model}, four sources, {counted(len(runs), 'seed')}" for model, runs in seeds.items()]
    heads += [f"{each.name}, CoronaHack" for each, _ in single]
    rows = [
        [
            aim.what,
            aim.wanted,
            *(aim.over_seeds(runs) for runs in seeds.values()),
            *(aim.cell(aim.of_shipped(*each)) for each in single),
        ]
        for aim in NETWORKS
    ]
    return markdown.rows_below(["networks", "aim", *heads], rows)


def of_engines(shipped: Sequence[Report]) -> str:
    """The aims for the engines of shipped bundles as a table."""
    known = [(each, external_sets.measure(each.folder)) for each in shipped]
    rows = [[aim.what, aim.wanted, *(aim.cell(aim.of_shipped(*each)) for each in known)] for aim in ENGINES]
    return markdown.rows_below(["engines as shipped", "aim", *(each.name for each, _ in known)], rows)


def worst_calibration(report: Report) -> Rate:
    """The highest expected calibration error of a source on validation."""
    sets = report.validation_by_source.values() or [report.subsets["validation"]]
    return Rate(max((own.after.ece for own in sets if own.after and own.after.ece is not None), default=None))


def rejected(report: Report, are_lateral: bool) -> Rate:
    """The share of OOD images rejected: lateral views, or all others."""
    kinds = report.ood.kinds.items() if report.ood else ()
    counts = [own.counts for kind, own in kinds if own.counts and ("lateral" in kind) == are_lateral]
    return external_sets.exact(sum(k for k, _ in counts), sum(n for _, n in counts)) if counts else Rate()


def answers(key: str) -> Callable[[Report, Mapping[str, Any]], Rate]:
    """A function that reads a share of the engine's answers on the unseen sets."""
    return lambda _, own: external_sets.rate(own.get("engine", {}).get(key, {}))


class Aim(NamedTuple):
    """A number to reach.

    of_shipped: reads it from a report and its external_sets.measure. of_run: reads it from a run.
    """

    what: str
    limit: float
    is_minimum: bool
    of_shipped: Callable[[Report, Mapping[str, Any]], Rate]
    of_run: Callable[[Run], float | None] = lambda _: None
    write: Callable[[Rate], str] = percent

    @property
    def wanted(self) -> str:
        return f"{'≥' if self.is_minimum else '≤'} {self.write(Rate(self.limit))}"

    def is_reached(self, value: float) -> bool:
        return value >= self.limit if self.is_minimum else value <= self.limit

    def cell(self, number: Rate) -> str:
        """The number, bold where it reaches the aim."""
        is_bold = number.value is not None and self.is_reached(number.value)
        return f"**{self.write(number)}**" if is_bold else self.write(number)

    def over_seeds(self, runs: Sequence[Run]) -> str:
        """Mean ± sd of runs, bold where the mean reaches the aim."""
        values = [value for run in runs if (value := self.of_run(run)) is not None]
        if not values:
            return UNKNOWN
        deviation = f" ± {self.write(Rate(float(np.std(values, ddof=1))))}" if len(values) > 1 else ""
        text = f"{self.write(Rate(float(np.mean(values))))}{deviation}"
        return f"**{text}**" if self.is_reached(float(np.mean(values))) else text


def of_records(what: str, key: str, limit: float, is_minimum: bool, write: Callable[[Rate], str]) -> Aim:
    """An aim for a number of `external_sets.measure`."""
    return Aim(
        what,
        limit,
        is_minimum,
        lambda _, own: external_sets.rate(own.get(key, {})),
        lambda run: run.get("external_sets", {}).get(key, {}).get("value"),
        write,
    )


NETWORKS = (
    of_records("openist, spain_twitter: AUROC, COVID-19 against Normal", "covid_auroc", 0.985, True, decimal),
    of_records("openist: healthy adults called COVID-19", "covid_false_positives", 0.03, False, percent),
    of_records("spain_twitter: COVID-19 found", "covid_sensitivity", 0.85, True, percent),
    of_records("thorax_scan: AUROC, Pneumonia against Normal", "pneumonia_auroc", 0.88, True, decimal),
    Aim(
        "official 624: accuracy",
        0.93,
        True,
        lambda report, _: report.subsets["test_official"].accuracy,
        lambda run: run["metrics"]["test_official"]["accuracy"],
    ),
)
# Runs are not calibrated, so these are only of shipped bundles.
ENGINES = (
    Aim(
        "validation, worst source: ECE",
        0.08,
        False,
        lambda report, _: worst_calibration(report),
        write=decimal,
    ),
    Aim("openist, spain_twitter: frontal X-rays rejected", 0.03, False, answers("rejected")),
    Aim("photographs, knees, brain MRI, CT rejected", 0.98, True, lambda report, _: rejected(report, False)),
    Aim("lateral chest X-rays rejected", 0.90, True, lambda report, _: rejected(report, True)),
    Aim(
        "openist: COVID-19 among the classes given to healthy adults",
        0.02,
        False,
        answers("covid_among_decided"),
    ),
)
COUNT = len(NETWORKS) + len(ENGINES)


def missed(shipped: Report) -> list[str]:
    """The aims that a shipped bundle misses, each with what it reached."""
    own = external_sets.measure(shipped.folder)
    found = [(aim, aim.of_shipped(shipped, own)) for aim in (*NETWORKS, *ENGINES)]
    return [
        f"{aim.what} {aim.write(number)} ({aim.wanted})"
        for aim, number in found
        if number.value is not None and not aim.is_reached(number.value)
    ]
