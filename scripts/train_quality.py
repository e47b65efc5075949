"""Train the network behind xray_hf/inference/quality.py, choose its thresholds, measure it externally.

python scripts/train_quality.py --source coronahack=DIR --source folder:radiography=DIR2 … \
    --external folder:openist=DIR3 … --laterals DIR4 --bundle pretrained/xray-resnet18 … \
    --json docs/quality.json

scripts/quality_changes.py draws the changes. A quarter of the training images, by a hash of the patient, is
validation and sets the thresholds. CoronaHack's official test images and the external sets are only reported
on. So is every second lateral.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import quality_changes as changes
import torch
from accelerate import Accelerator
from fitting import fit
from PIL import Image
from scipy.stats import binomtest
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from xray_hf import cores, manifest
from xray_hf.data import cache
from xray_hf.data.dataset import read_samples
from xray_hf.data.sample import Sample
from xray_hf.data.sources import parse_specs
from xray_hf.errors import exit_on_error
from xray_hf.export import to_onnx
from xray_hf.files import atomic_file, write_json
from xray_hf.inference import Engine, Prediction
from xray_hf.inference.quality import FINDINGS, GRAPH, SIDE, QualityCheck, small_copy
from xray_hf.models.lungs import MARGIN, LungCrop
from xray_hf.reading import read_grey
from xray_hf.report import markdown
from xray_hf.training.lung_crops import crop_lungs

DRAWN_SIDE = 160  # pixels at which changes are drawn for training
SEEN_SIDE = 224  # and for the report, as the classifiers see them
WIDTHS = (12, 24, 32, 48, 64)  # channels after each convolution of stride 2
PASSES, EPOCHS, BATCH, RATE = 4, 5, 128, 4e-3  # changes of every image; how often each of these is seen
EVERY = 8  # of the changed images go through whole bundles, for comparison
ALARMS = 0.008  # share of a source's unchanged validation images with any finding, at most
LOWEST = -0.5  # logit of a threshold, however few unchanged images come near it
ENOUGH = 300  # validation images of a source; smaller ones set no threshold
# Unchanged images that an earlier run picked out and a person then looked at: they are negatives, turned, or
# have heart and stomach on the wrong side. They set no threshold and are not counted as false alarms.
DEFECTIVE = {
    *("Normal_Normal-8594.jpg", "Normal_Normal-9232.jpg"),  # negative
    *("COVID_COVID-257.jpg", "COVID_COVID-3063.jpg", "COVID_COVID-3342.jpg", "COVID_COVID-3419.jpg"),
    "Normal_1195.jpg",  # of thorax_scan, on its side
    *("COVID_COVID-353.jpg", "COVID_COVID-783.jpg", "COVID_COVID-2256.jpg", "Normal_Normal-9907.jpg"),
    *("Lung_Opacity_911.jpg", "Lung_Opacity_1119.jpg"),  # these six: mirrored, or organs transposed
}
TURNED = tuple(changes.TURNS)
IGNORED = -1.0  # a target that says nothing


class QualityNet(nn.Module):
    """(B, 1, SIDE, SIDE) uint8 -> (B, len(FINDINGS)) logits."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((1, *WIDTHS), WIDTHS, strict=False):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.1))
        self.head = nn.Linear(WIDTHS[-1] * (SIDE // 2 ** len(WIDTHS)) ** 2, len(FINDINGS))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Standardise each image, since collections differ in grey."""
        grey = pixels.float()
        centred = grey - grey.mean(dim=(2, 3), keepdim=True)
        deviation = centred.square().mean(dim=(2, 3), keepdim=True).sqrt() + 1.0
        found: torch.Tensor = self.head(self.features(centred / deviation))
        return found


def main() -> None:
    """Train, write the graph, measure and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--source", action="append", required=True, metavar="KIND[:NAME]=PLACE")
    parser.add_argument("--external", action="append", default=[], metavar="KIND[:NAME]=PLACE")
    parser.add_argument("--laterals", type=Path, required=True, help="a folder of lateral X-rays")
    parser.add_argument("--bundle", type=Path, action="append", default=[], help="compare with its detector")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument(
        "--measure", action="store_true", help="train nothing, measure the graph that is there"
    )
    options = parser.parse_args()
    laterals = [read_grey(file) for file in sorted(options.laterals.iterdir())]
    samples = read_samples(parse_specs(options.source))[0]
    external = read_samples(parse_specs(options.external))[0] if options.external else []
    own = [sample for sample in samples if sample.official_split != "TEST"]
    whole = [sample for sample in own if Path(sample.file_name).name not in DEFECTIVE]
    validation = [sample for sample in whole if is_validation(sample)]
    if not options.measure:
        torch.manual_seed(0)
        pool = open_pool([each for each in own if not is_validation(each)], DRAWN_SIDE, laterals[::2])
        net = train(*draw(pool, PASSES, cores.usable()), EPOCHS)
        save(net, GRAPH)
        chosen = thresholds(*logits_by_source(QualityCheck(), validation))
        with torch.no_grad():
            net.head.bias -= torch.from_numpy(chosen.astype(np.float32))
        save(net, GRAPH)
    check = QualityCheck()
    seen = by_source([*(each for each in samples if each.official_split == "TEST"), *external])
    pools = {name: open_pool(each, SEEN_SIDE, laterals[1::2]) for name, each in seen.items()}
    logits, sources = logits_by_source(check, validation)
    report = {
        "findings": FINDINGS,
        "graph": manifest.digest(GRAPH),
        "validation": {name: counts(logits[sources == name] > 0) for name in np.unique(sources)},
        "test": {name: measure(check, pool) for name, pool in pools.items()},
        "detector": {bundle.name: baseline(bundle, [*pools.values()]) for bundle in options.bundle},
    }
    write_json(options.json, report)
    print(as_table(report))


def by_source(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Samples by the name of their source."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.source, []).append(sample)
    return found


def is_validation(sample: Sample) -> bool:
    """Whether a training image sets thresholds, by a hash of its patient."""
    return int(hashlib.sha256(sample.patient_id.encode()).hexdigest()[:8], 16) % 4 == 0


def open_pool(samples: Sequence[Sample], side: int, laterals: Sequence[Image.Image]) -> Pool:
    """Decode images and find their lungs."""
    pixels = cache.Joined([cache.prepare(own, side) for own in by_source(samples).values()])
    boxes = crop_lungs(LungCrop.load(), pixels, len(samples), side, Accelerator(cpu=True)).boxes.numpy()
    tight = boxes + np.array([MARGIN, -MARGIN, MARGIN, -MARGIN], np.float32)
    return Pool(pixels.gather(np.arange(len(samples))), tight.clip(0, 1), laterals)


def save(net: QualityNet, path: Path) -> None:
    """Write the graph."""
    with atomic_file(path) as temporary:
        onnx.save(to_onnx(net, ["logits"], SIDE), temporary)


@dataclass(frozen=True)
class Pool:
    """Images to change. pixels: (N, side, side) uint8. lungs: (N, 4) boxes. laterals: to put beside one."""

    pixels: np.ndarray
    lungs: np.ndarray
    laterals: Sequence[Image.Image]

    def image(self, row: int) -> Image.Image:
        """One of them."""
        return Image.fromarray(self.pixels[row])

    def another(self, rng: np.random.Generator) -> Image.Image:
        """A lateral, one time in eight, or any frontal."""
        if rng.random() < 0.12:
            lateral = self.laterals[rng.integers(len(self.laterals))]
            return lateral.resize(self.pixels.shape[1:], Image.Resampling.BILINEAR)
        return self.image(int(rng.integers(len(self.pixels))))


def change(pool: Pool, row: int, names: Sequence[str], rng: np.random.Generator) -> Image.Image:
    """An image with these findings, in the order in which they happen to an X-ray."""
    image = pool.image(row)
    if "cut off" in names:
        image = changes.cut_off(image, rng, pool.lungs[row])
    for name in names:
        if name == "negative":
            image = changes.negative(image, rng)
        elif name == "mirrored":
            image = changes.mirrored(image, rng)
        elif name == "side by side":
            image = changes.side_by_side(image, rng, pool.another(rng))
        elif name in TURNED:
            image = changes.turned(image, rng, name)
    if "writing" in names:
        image = changes.written_over(image, rng)
    return changes.photographed(image, rng) if "photograph" in names else image


def example(pool: Pool, seed: int, row: int) -> tuple[np.ndarray, np.ndarray]:
    """An image with none to two findings and with harmless changes: (SIDE, SIDE) uint8, and its targets."""
    rng = np.random.default_rng((seed, row))
    names: list[str] = []
    if rng.random() < 0.65:
        drawn = rng.choice(FINDINGS, 1 if rng.random() < 0.75 else 2, replace=False)
        names = [name for name in FINDINGS if name in drawn]
        for name in [each for each in names if each in TURNED][1:]:
            names.remove(name)
    image = change(pool, row, names, rng)
    if not names and rng.random() < 0.3:
        image = changes.tight(image, rng, pool.lungs[row])
    for often, spoil in ((0.25, changes.labelled), (0.3, changes.framed), (0.4, changes.tilted)):
        if rng.random() < often:
            image = spoil(image, rng)
    image = changes.exposed(image, rng)
    targets = np.array([float(name in names) for name in FINDINGS], np.float32)
    for name in not_told({*names}):
        targets[FINDINGS.index(name)] = IGNORED
    return small_copy(np.asarray(image)), targets


def not_told(names: set[str]) -> set[str]:
    """The findings that are undefined, given the others."""
    hidden: set[str] = set()
    if names & {*TURNED, "side by side"}:
        hidden |= {"mirrored"}
    if "side by side" in names:
        hidden |= {"cut off"}
    return hidden


def draw(pool: Pool, passes: int, workers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Examples of every image: (N · passes, SIDE, SIDE) uint8 and their targets."""
    rows = np.arange(len(pool.pixels))
    found = []
    with ProcessPoolExecutor(workers, initializer=_share, initargs=(pool,)) as processes:
        for seed in tqdm(range(passes), desc="drawing", unit=" passes", disable=None):
            found += list(processes.map(partial(_example, seed), rows, chunksize=256))
    images, targets = zip(*found, strict=True)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets))


_shared: list[Pool] = []  # of a worker


def _share(pool: Pool) -> None:
    _shared[:] = [pool]


def _example(seed: int, row: int) -> tuple[np.ndarray, np.ndarray]:
    return example(_shared[0], seed, row)


def train(images: torch.Tensor, targets: torch.Tensor, epochs: int) -> QualityNet:
    """Train on drawn examples; returns the average of the weights."""
    net = QualityNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = len(images) // BATCH
    order = torch.empty(0)

    def loss_at(step: int) -> torch.Tensor:
        nonlocal order
        if step % steps == 0:
            order = torch.randperm(len(images))
        batch = order[step % steps * BATCH :][:BATCH]
        wanted = targets[batch]
        return F.binary_cross_entropy_with_logits(
            net(images[batch][:, None]), wanted.clamp(min=0), (wanted != IGNORED).float()
        )

    return fit(net, epochs * steps, RATE, 0.998, loss_at)


def thresholds(logits: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """The lowest thresholds that keep all alarms together within ALARMS in every large source: (F,).

    logits: (N, F) of unchanged validation images. sources: (N,) their names. Every finding may raise the same
    share of alarms.
    """
    large = [logits[sources == name] for name in np.unique(sources) if (sources == name).sum() >= ENOUGH]
    for share in np.linspace(ALARMS, 0, 200):
        chosen = np.max([np.quantile(own, 1 - share, axis=0) for own in large], axis=0).clip(LOWEST)
        if all((own > chosen).any(axis=1).mean() <= ALARMS for own in large):
            return chosen
    raise AssertionError("a logit is above the largest")


def logits_of(check: QualityCheck, images: Iterable[Image.Image | np.ndarray]) -> np.ndarray:
    """Logits of many images: (N, len(FINDINGS))."""
    small = [small_copy(np.asarray(image)) for image in images]
    return np.concatenate([check.logits(np.stack(small[at : at + 64])) for at in range(0, len(small), 64)])


def logits_by_source(check: QualityCheck, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Logits of unchanged images, and the names of their sources."""
    ordered = by_source(samples)
    pixels = [cache.prepare(own, SEEN_SIDE) for own in ordered.values()]
    logits = [logits_of(check, each.gather(np.arange(each.count))) for each in pixels]
    return np.concatenate(logits), np.repeat([*ordered], [each.count for each in pixels])


def measure(check: QualityCheck, pool: Pool) -> dict[str, Any]:
    """In how many unchanged images something is found, and in how many changed ones the change."""
    images = len(pool.pixels)
    found = {
        name: logits_of(check, changed(pool, name, range(images)))[:, k] for k, name in enumerate(FINDINGS)
    }
    return {
        **counts(logits_of(check, pool.pixels) > 0),
        "found": {name: int((logits > 0).sum()) for name, logits in found.items()},
    }


def changed(pool: Pool, name: str, rows: Iterable[int]) -> Iterator[Image.Image]:
    """Images with one finding each."""
    for row in rows:
        yield change(pool, row, [name], np.random.default_rng((FINDINGS.index(name), row)))


def baseline(bundle: Path, pools: Sequence[Pool]) -> dict[str, list[int]]:
    """How many of some changed images the bundle's OOD detector rejects, and their number."""
    engine, rejected = Engine.from_pretrained(bundle), {}
    for name in FINDINGS:
        images = chain.from_iterable(changed(pool, name, range(0, len(pool.pixels), EVERY)) for pool in pools)
        scores = [found.ood_score for found in engine.stream(images) if isinstance(found, Prediction)]
        rejected[name] = [sum(score is not None and score > 0.5 for score in scores), len(scores)]
    return rejected


def counts(found: np.ndarray) -> dict[str, Any]:
    """(N, F) bool, of unchanged images -> their number, and how many have each finding and any."""
    alarms = dict(zip(FINDINGS, found.sum(axis=0).tolist(), strict=True))
    return {"images": len(found), "alarms": {**alarms, "any": int(found.any(axis=1).sum())}}


def as_table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    sets = report["test"]
    images = sum(each["images"] for each in sets.values())
    heads = ["finding", "found", *sets, "false alarms", *report["detector"]]
    rows = []
    for name in FINDINGS:
        found = [each["found"][name] for each in sets.values()]
        alarms = sum(each["alarms"][name] for each in sets.values())
        by_set = [share(each, own["images"]) for each, own in zip(found, sets.values(), strict=True)]
        by_detector = [share(*each[name]) for each in report["detector"].values()]
        rows.append([name, share(sum(found), images), *by_set, with_interval(alarms, images), *by_detector])
    unchanged = [
        [f"{name}, {part}", f"{own['images']:,}", with_interval(own["alarms"]["any"], own["images"])]
        for part in ("validation", "test")
        for name, own in report[part].items()
    ]
    below = markdown.rows_below(["unchanged X-rays", "images", "any finding"], unchanged)
    return f"{markdown.rows_below(heads, rows)}\n\n{below}"


def share(count: int, images: int) -> str:
    """As "98.2%"."""
    return f"{count / images:.1%}"


def with_interval(count: int, images: int) -> str:
    """Count and share with the exact 95 % interval."""
    low, high = binomtest(count, images).proportion_ci()
    return f"{count}, {count / images:.1%} ({100 * low:.1f}–{100 * high:.1f})"


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
