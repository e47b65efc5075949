"""How often 95 % intervals contain the truth, at the sizes of our test sets: docs/intervals.md.

python scripts/measure_intervals.py

Draws TRIALS sets of answers with known rates for each cell of the tables, which takes a few minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm
from tqdm import tqdm

from xray_hf import evidence, manifest
from xray_hf.errors import exit_on_error
from xray_hf.evaluation.predictions import Predictions
from xray_hf.evaluation.uncertainty import TAILS, balanced_accuracy_interval, share_interval
from xray_hf.files import write_text
from xray_hf.report import markdown
from xray_hf.task import COVID19, NORMAL, PNEUMONIA

ROOT = Path(__file__).resolve().parent.parent
BUNDLE, OUT = ROOT / "pretrained" / "xray-cnn", ROOT / "docs" / "intervals.md"
TRIALS, DRAWS, SEED = 2000, 1000, 0
RATES = (0.75, 0.85, 0.95, 0.98)
CORRELATIONS = (0.0, 0.5, 1.0)  # of the answers about two images of a patient
OTHERS = (0.83, 0.95)  # sensitivity for Normal and Pneumonia, as of xray-cnn
IN_COMMON = 0.5  # share of the patients about whom two models are right or wrong for the same reasons

Bounds = NDArray[np.float64]  # (2, T), low and high of each trial
Answers = NDArray[np.bool_]  # (T, N), which of the N images are right in each trial
Sizes = NDArray[np.int64]  # (P,) how many images each patient has

PAGE = """# Intervals

Brackets in model cards, on the demo's pages and in these docs hold 95 % intervals. Images of one patient
resemble each other, so the intervals treat patients, not images, as the sample.

| number | interval |
| --- | --- |
| shares: accuracy, sensitivity, specificity, precision, coverage, risk | Wilson |
| balanced accuracy | from the intervals of the classes (MOVER) |
| F1, AUROC, ECE, Brier score, cross entropy, difference of two models | patient bootstrap, percentiles |
| shares of images without known patients, such as OOD images | exact (Clopper and Pearson 1934) |

Wilson's interval is computed for the effective number of images: the number of independent images that
would vary as much as these ([Rao and Scott 1992](https://doi.org/10.2307/2532311)). Its quantile is that of
Student's t for the number of patients. MOVER is the method of variance estimates recovery ([Zou and Donner
2008](https://doi.org/10.1002/sim.3095)).

If all answers are right, a bootstrap interval has no width. The answers then do not show how much images of
one patient resemble each other, so each patient counts as one image:
for {perfect}, Wilson's interval is {wilson}. The intervals of F1 and AUROC
still have no width for a class that is recognised perfectly; read them together with the number of patients.

## Simulation

`python scripts/measure_intervals.py` writes this page. For each cell it simulates {trials:,} test sets with
as many patients, and as many images of each patient, as ours. Answers about two images of a patient are
correlated by 0, 0.5 or 1 (beta-binomial). Each cell shows the coverage, which should be 95, and the mean
width, both in %. The last row shows the lowest coverage and the mean width. The methods in bold columns are
in use; the method `previous` was used before.

### Sensitivity of one class

Cells show the lowest coverage and the mean width over true sensitivities of {rates}. `exact` and the first
`Wilson` treat images as independent. `previous` is the bootstrap, except that it takes the exact interval
for the number of patients if all or no answers are right.

{share}

### Balanced accuracy

The test sets have {images} images of Normal, Pneumonia and COVID-19. The true sensitivities are {others}
and, for COVID-19, the one that the row states. `previous` is the bootstrap, with draws from the posterior
(Jeffreys' prior) for a class where all or no answers are right.

{balanced}

### Difference in balanced accuracy of two models

The test sets are the same as above. Both models have the same true rates and make the same errors on half
of the patients. `previous` is the method described above; the comparisons in [results](results.md) were
recorded with it. With the bootstrap, only one of them would change: seed 1 of the paper's recipe with
patient-level split, where one network finds no COVID-19.

{difference}
"""


def main() -> None:
    """Measure and write."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    test = Predictions.read(BUNDLE / manifest.PREDICTIONS)
    external = evidence.external_sets(BUNDLE, test)
    test = test.select("test")
    classes = [sizes_of(test, index) for index in (NORMAL, PNEUMONIA, COVID19)]
    sets = [sizes_of(external[name], COVID19) for name in ("nih_figure1", "spain_twitter")]
    covid = classes[-1]
    found = share_interval(np.ones(covid.sum(), bool), np.repeat(np.arange(len(covid)), covid))
    text = PAGE.format(
        perfect=f"{covid.sum()} of {covid.sum()} images of {len(covid)} patients",
        wilson="{:.1f}–{:.1f} %".format(*(100 * end for end in found or ())),
        trials=TRIALS,
        rates=listed(RATES),
        share=shares([covid, *sets, *classes[:-1]]),
        images=", ".join(str(sizes.sum()) for sizes in classes),
        others=listed(OTHERS),
        balanced=balanced(classes),
        difference=difference(classes),
    )
    write_text(OUT, text)
    print(text)


def listed(rates: Sequence[float]) -> str:
    """75 %, 85 % and so on."""
    return ", ".join(f"{rate:.0%}" for rate in rates)


def sizes_of(predictions: Predictions, index: int) -> Sizes:
    """How many images of a class each patient has."""
    return np.unique(predictions.patient_id[predictions.label == index], return_counts=True)[1]


class Trials:
    """Sets of answers about the same patients of one class, and draws of these patients.

    sizes: (P,). patient: (N,) the patient of each image.
    """

    def __init__(self, sizes: Sizes, seed: int) -> None:
        self.rng, self.sizes = np.random.default_rng([SEED, seed]), sizes
        self.patient = np.repeat(np.arange(len(sizes)), sizes)
        self.uniforms = self.uniform()

    def uniform(self) -> tuple[Bounds, Bounds]:
        """(T, P) and (T, N) numbers from 0 to 1, on which an answer depends in addition to its rate."""
        return self.rng.random((TRIALS, len(self.sizes))), self.rng.random((TRIALS, len(self.patient)))

    def answers(self, rate: float, correlation: float, is_second: bool = False) -> Answers:
        """(T, N), those of a second model on request, which has IN_COMMON of the patients with the first."""
        of_patients, of_images = self.uniforms
        if is_second:
            is_common = self.rng.random(of_patients.shape) < IN_COMMON
            own = self.uniform()
            of_patients = np.where(is_common, of_patients, own[0])
            of_images = np.where(is_common[:, self.patient], of_images, own[1])
        if correlation == 0 or rate == 1:
            rates = np.full_like(of_patients, rate)
        elif correlation == 1:
            rates = (of_patients < rate).astype(float)
        else:
            both = 1 / correlation - 1
            rates = beta.ppf(of_patients, rate * both, (1 - rate) * both)
        return of_images < rates[:, self.patient]

    def drawn(self, answers: Answers, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """(D, T) rates of each draw of patients and trial; times: (D, P) how often each is drawn."""
        right = np.add.reduceat(answers, np.cumsum(self.sizes) - self.sizes, axis=1, dtype=float)
        with np.errstate(invalid="ignore"):
            return times @ right.T / (times @ self.sizes)[:, None]

    def of_ours(self, answers: Answers) -> Bounds:
        """The intervals of xray_hf."""
        return np.asarray([share_interval(own, self.patient) for own in answers]).T


def draws_of(patients: Sequence[int]) -> list[NDArray[np.float64]]:
    """DRAWS draws of all patients of some classes; (D, P) how often each of a class is drawn."""
    total = sum(patients)
    times = np.random.default_rng(SEED).multinomial(total, np.full(total, 1 / total), DRAWS).astype(float)
    return np.split(times, np.cumsum(patients)[:-1], axis=1)


def middle(drawn: NDArray[np.float64]) -> Bounds:
    """The percentile bootstrap."""
    return np.nanquantile(drawn, TAILS, axis=0)


def exact(rates: NDArray[np.float64], total: int) -> Bounds:
    """Clopper and Pearson 1934."""
    right = rates * total
    low = beta.ppf(TAILS[0], np.maximum(right, 1e-9), total - right + 1)
    high = beta.ppf(TAILS[1], right + 1, np.maximum(total - right, 1e-9))
    return np.stack([np.where(rates > 0, low, 0), np.where(rates < 1, high, 1)])


def wilson(rates: NDArray[np.float64], total: int) -> Bounds:
    """Wilson 1927."""
    spread = norm.ppf(TAILS[1]) ** 2 / total
    half = np.sqrt(spread * (rates * (1 - rates) + spread / 4))
    return (rates + spread / 2 + np.outer([-1, 1], half)) / (1 + spread)


def posterior(drawn: NDArray[np.float64], trials: Trials) -> NDArray[np.float64]:
    """What the bootstrap drew; draws from the posterior where all or no answers of a trial are right."""
    right = np.where((drawn == 1).all(axis=0), 1.0, np.where((drawn == 0).all(axis=0), 0.0, np.nan))
    patients = len(trials.sizes)
    of_all, of_none = (
        np.random.default_rng(SEED + patients).beta(n + 0.5, patients - n + 0.5, DRAWS)[:, None]
        for n in (patients, 0)
    )
    return np.where(right == 1, of_all, np.where(right == 0, of_none, drawn))


def result(truth: float, bounds: Bounds) -> tuple[float, float]:
    """Coverage and mean width, in %."""
    low, high = bounds
    is_held = (low <= truth + 1e-9) & (truth <= high + 1e-9)
    return 100 * is_held.mean(), 100 * (high - low).mean()


def shares(sets: Sequence[Sizes]) -> str:
    """The table of one class."""
    found = {}
    for number, sizes in enumerate(tqdm(sets, disable=None)):
        trials, (times,) = Trials(sizes, number), draws_of([len(sizes)])
        for correlation in CORRELATIONS:
            ways: dict[str, list[tuple[float, float]]] = {}
            for rate in RATES:
                answers = trials.answers(rate, correlation)
                rates, drawn = answers.mean(axis=1), middle(trials.drawn(answers, times))
                bounds = {
                    "bootstrap": drawn,
                    "previous": np.where((rates == 0) | (rates == 1), exact(rates, len(sizes)), drawn),
                    "exact": exact(rates, sizes.sum()),
                    "Wilson": wilson(rates, sizes.sum()),
                    "Wilson, effective number": trials.of_ours(answers),
                }
                for way, own in bounds.items():
                    ways.setdefault(way, []).append(result(rate, own))
            title = f"{sizes.sum()} images of {len(sizes)} patients, {correlation:g}"
            found[title] = {way: worst(own) for way, own in ways.items()}
    return table("images, correlation", found, "Wilson, effective number")


def balanced(classes: Sequence[Sizes]) -> str:
    """The table of the mean over classes."""
    trials, times = [Trials(*own[::-1]) for own in enumerate(classes)], draws_of([*map(len, classes)])
    found = {}
    for correlation in tqdm(CORRELATIONS, disable=None):
        for rate in (*RATES, 1.0):
            truths = (*OTHERS, rate)
            answers = [own.answers(truth, correlation) for own, truth in zip(trials, truths, strict=True)]
            drawn = [own.drawn(*each) for own, *each in zip(trials, answers, times, strict=True)]
            value = np.mean([each.mean(axis=1) for each in answers], axis=0)
            before = middle(np.mean([posterior(*each) for each in zip(drawn, trials, strict=True)], axis=0))
            labels = np.repeat(np.arange(len(classes)), [own.sum() for own in classes])
            patients = np.concatenate([own.patient + 1000 * k for k, own in enumerate(trials)])
            ours = [
                balanced_accuracy_interval(right, labels, patients)
                for right in np.concatenate(answers, axis=1)
            ]
            bounds = {
                "bootstrap": middle(np.mean(drawn, axis=0)),
                "previous": np.stack([np.minimum(before[0], value), np.maximum(before[1], value)]),
                "MOVER": np.asarray(ours).T,
            }
            title = f"COVID-19 {rate:.0%}, {correlation:g}"
            found[title] = {way: result(np.mean(truths), own) for way, own in bounds.items()}
    return table("sensitivity, correlation", found, "MOVER")


def difference(classes: Sequence[Sizes]) -> str:
    """The table of two models."""
    trials, times = [Trials(*own[::-1]) for own in enumerate(classes)], draws_of([*map(len, classes)])
    found = {}
    for correlation in tqdm(CORRELATIONS, disable=None):
        for rate in (*RATES, 1.0):
            plain, before = [], []
            for is_second in (False, True):
                drawn = [
                    own.drawn(own.answers(truth, correlation, is_second), each)
                    for own, truth, each in zip(trials, (*OTHERS, rate), times, strict=True)
                ]
                plain.append(np.mean(drawn, axis=0))
                before.append(np.mean([posterior(*each) for each in zip(drawn, trials, strict=True)], axis=0))
            found[f"COVID-19 {rate:.0%}, {correlation:g}"] = {
                "bootstrap": result(0, middle(plain[1] - plain[0])),
                "previous": result(0, middle(before[1] - before[0])),
            }
    return table("sensitivity, correlation", found, "bootstrap")


def worst(results: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The lowest coverage, and the mean width."""
    coverages, widths = zip(*results, strict=True)
    return min(coverages), float(np.mean(widths))


def table(first: str, found: Mapping[str, Mapping[str, tuple[float, float]]], ours: str) -> str:
    """{row: {way: coverage and width}} as Markdown; `ours` is the way we use."""
    ways = list(next(iter(found.values())))
    rows = dict(found) | {"all": {way: worst([own[way] for own in found.values()]) for way in ways}}
    cells = [[name, *("{:.1f}, {:.1f}".format(*own[way]) for way in ways)] for name, own in rows.items()]
    return markdown.rows_below([first, *(f"**{way}**" if way == ours else way for way in ways)], cells)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
