"""Write docs/inference.md: speed, agreement, and what the engine rejects, of some bundles.

python scripts/write_inference.py BUNDLE … --whole ORIGINALS

No number of the tables is typed in: rejections are read from the bundles' calibration.json and external/,
speed from docs/bench_inference.md (`make bench-inference ARGS="--out docs/bench_inference.json"`),
agreement from docs/agreement.md (`benchmarks/agreement.py --out docs/agreement.json`), rejections of
training images from docs/rejections.md (`scripts/measure_rejections.py`). ORIGINALS holds files of the data
set at their original size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import external_sets
from measure_rejections import RULE, rejected_by

from xray_hf import evidence, manifest
from xray_hf.errors import exit_on_error
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import write_text
from xray_hf.inference import Engine, inputs
from xray_hf.report import captions, markdown, tables
from xray_hf.report.numbers import Rate, part_of, percent
from xray_hf.report.report import Report
from xray_hf.task import REJECTED
from xray_hf.text import counted

DOCS = Path(__file__).resolve().parent.parent / "docs"
PARTS = {"Speed": DOCS / "bench_inference.md", "Agreement": DOCS / "agreement.md"}
REJECTIONS = DOCS / "rejections.md"
TEXTS = {
    "Speed": """Speed was measured with xray-resnet18 and xray-cnn, before their graphs read the weights
from `model.safetensors`. That change affects the time to load, not to answer ([log](log.md)).
`make bench-inference IMAGES=… BUNDLES="…"` runs each way to classify images in its own process, in
interleaved rounds; the tables show medians of the rounds with their spread.

- `ours` reads any format with all checks and gives class activation maps and OOD detection as well as
  probabilities; the others give only probabilities.
- `floor` only decodes and resizes with Pillow and runs the bare network; `ceiling` is the speed that its
  CPU seconds would allow on all cores. ONNX Runtime computes in float32, OpenVINO in bfloat16 if the CPU
  supports it.
- `pipeline` is transformers' default image-classification pipeline, in float32 and with `dtype="bfloat16"`;
  in bulk, with the best of its batch sizes 1, 8 and 32.
- `loader` is a timm-style script: a DataLoader with one worker per core and batches of 64, in float32.

Speed-ups are relative to the float32 pipeline.""",
    "Agreement": """`benchmarks/agreement.py` compares probabilities before calibration: those of the
engine in Python with those of `xray-hf predict` (`cli`) and of transformers' pipeline, on the same bundle.
Images with a colour tint are left out: our reader converts them to grey, as in training; the pipeline keeps
their colours.""",
}
OOD = """An image is rejected by simple rules (colour, proportions, size, contrast), by the [quality
check](quality.md), or by the detector of out-of-distribution (OOD) images. The detector is a logistic
regression on the network's embedding and a standardised thumbnail of 32×32 pixels. It is fitted on the
bundle's training images against half of the OOD images; its threshold rejects at most 1 % of the validation
images of any source. The tables report the other half and the internal test set; brackets hold exact 95 %
intervals. [The log](log.md) describes the detectors that were tried.

Two caveats apply. A few of CoronaHack's COVID-19 images are lateral views, one of them in the test set: the
detector is right to reject them, but they count as wrong rejections. Several of the CT slices and lateral
views come from one publication: some are in the tuning half, some in the reported half and some in
CoronaHack itself ([limitations](limitations.md), 11). The shares for these two kinds therefore say less
about images from new publications than the other shares do."""
WHOLE = """### Files at original size

The test images are kept at the network's size, so only the contrast rule can be tested on them. The files
in this table are from the same data set and have their original size, proportions and colours. Most are
training images, so the detector's rejections here say little."""
TRAINING = """### Training images

This table shows how many of its own training images each model rejects, in a random sample of 1,500
(`scripts/measure_rejections.py`, which writes [rejections.json](rejections.json)). Every rejection of a
frontal view is wrong; brackets hold exact 95 % intervals. An image that both the detector and the quality
check reject counts for both. All images are 224×224 pixels here, so the rules on size and proportions
cannot reject any."""
EXTERNAL = """### Frontal X-rays of other collections

No detector was fitted on X-rays of these adults, and no threshold was set on them; every rejection here is
wrong. The detectors of xray-resnet18 and xray-cnn have seen children of one hospital and a few dozen
adults. Weighting the classes lowered their shares; it was chosen on training images, but after these shares
had been seen ([log](log.md))."""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--whole", type=Path, required=True, help="files of the data set at original size")
    options = parser.parse_args()
    sections = [introduction(options.bundles)]
    for title, page in PARTS.items():
        sections.append(f"## {title}\n\n{TEXTS[title]}\n\n{page.read_text(encoding='utf-8').strip()}")
    sections.append(f"## OOD detection\n\n{OOD}")
    reports = [Report.read(folder, folder.name) for folder in options.bundles]
    sections += [rejection(report) for report in reports]
    sections.append(f"{WHOLE}\n\n{rejected(options.bundles, options.whole)}")
    sections.append(f"{TRAINING}\n\n{REJECTIONS.read_text(encoding='utf-8').strip()}")
    sections.append(f"{EXTERNAL}\n\n{rejected_externally(reports)}")
    write_text(DOCS / "inference.md", "\n\n".join(sections) + "\n")


def introduction(folders: Sequence[Path]) -> str:
    """What was measured."""
    trained = []
    for folder in folders:
        run = manifest.read_json(folder / manifest.TRAINING)
        config = run["config"]
        trained.append(
            f"- {folder.name}: from {run['initial_weights']} weights, "
            f"protocol `{config['data']['protocol']}`, "
            f"{counted(config['optimization']['epochs'], 'epoch')}, seed {config['run']['seed']}"
        )
    return "\n\n".join(["# Inference", "\n".join(trained), "Nothing below is evidence for any clinical use."])


def rejection(report: Report) -> str:
    """What one bundle rejects of the images that were held out, with its ROC."""
    ((figure,),) = captions.figures(["ood_roc"], [report])
    place = f"../{report.folder.parent.name}/{report.folder.name}/{manifest.FIGURES}/{figure.stem}.png"
    return f"### {report.name}\n\n{markdown.table(tables.ood([report]))}\n\n![{figure.alt}]({place})"


def rejected_externally(reports: Sequence[Report]) -> str:
    """How many X-rays of each external set are rejected, as a table; intervals are over patients."""
    rows = []
    for report in reports:
        own = Predictions.read(report.folder / manifest.PREDICTIONS)
        for name, table in evidence.external_sets(report.folder, own).items():
            found = external_sets.share(table, table.decision == REJECTED, table.decision != "")
            rows.append([report.name, name, part_of(found["counts"]), percent(external_sets.rate(found))])
    return markdown.rows_below(["model", "X-rays", "rejected", "share"], rows)


def rejected(folders: Sequence[Path], images: Path) -> str:
    """How many frontal X-rays of a folder are rejected, and by what, as a table."""
    files = [item.source for item in inputs.find([str(images)])]
    rows = []
    for folder in folders:
        engine = Engine.from_pretrained(folder)
        found = [each for each in engine.predict(files) if each.decision == REJECTED]
        by_rule = sum(RULE in rejected_by(each) for each in found)
        counts = (len(found), len(files))
        share = percent(Rate(by_rule / len(files)))
        rows.append([folder.name, part_of(counts), percent(external_sets.exact(*counts)), share])
    return markdown.rows_below(["model", "rejected", "share", "by a rule"], rows)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
