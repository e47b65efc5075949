"""Write docs/inference.md: speed, agreement, and what the engine refuses, of two bundles.

python scripts/write_inference.py runs/real/xray-resnet18/bundle runs/real/xray-cnn/bundle --external DIR

Nothing is typed in: refusals are read from the bundles' calibration.json, speed from docs/bench_inference.md
(`make bench-inference ARGS="--out docs/bench_inference.json"`), agreement from docs/agreement.md
(`benchmarks/agreement.py --out docs/agreement.json`). DIR holds frontal X-rays of other hospitals.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scipy.stats import binomtest

from xray_hf import manifest
from xray_hf.errors import exit_on_error
from xray_hf.evaluation import figures
from xray_hf.files import write_text
from xray_hf.inference import Engine
from xray_hf.inference.calibrate import as_table
from xray_hf.inference.engine import FOREIGN

DOCS = Path(__file__).resolve().parent.parent / "docs"
PARTS = {"Speed": DOCS / "bench_inference.md", "Agreement": DOCS / "agreement.md"}
TEXTS = {
    "Speed": """`make bench-inference IMAGES=… BUNDLES="…"`, every way in a process of its own, in interleaved
rounds; medians of the rounds with their spread. `ours` reads any format with all checks and gives heatmap and
refusal besides probabilities; the others give probabilities only. The `floor` is decoding and resizing with
Pillow alone plus the bare network alone; the `ceiling` what their CPU seconds allow on all cores. `pipeline`
is transformers' image-classification pipeline, in bulk at the best of its batch sizes 1, 8 and 32; `loader`
a timm-style script: DataLoader with a worker for each core and batches of 64.""",
    "Agreement": """Probabilities before calibration, of the engine in Python, `xray-hf predict`, and
transformers' pipeline on the same bundle (`benchmarks/agreement.py`). Images with a colour tint are left out:
our reader takes their grey, as in training, the pipeline their colours.""",
}
REFUSAL = """A decision is `not a frontal chest X-ray` by cheap rules (colour, proportions, size, contrast) or
by a detector: logistic regression on the network's embedding and on a thumbnail of 32×32 pixels,
standardised. It is fitted on the bundle's training rows against half of the foreign images; the threshold
gives up 1 % of the validation rows. Reported are the other half, and the test rows. [The log](log.md) has
the detectors that were tried.

Lateral chest X-rays are among the COVID-19 images of the data set (4 of 70 with metadata, 1 of the 14 in
test); the detector is right to refuse them, and the table counts them as wrongly refused."""


def main() -> None:
    """Write the page and its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--external", type=Path, help="folder of frontal X-rays of other hospitals")
    options = parser.parse_args()
    sections = [
        "# Inference\n\nThe bundles measured here were trained from random weights on the honest protocol "
        "(`python train.py --no-pretrained`); nothing below is evidence for any clinical use."
    ]
    for title, page in PARTS.items():
        if page.exists():
            sections.append(f"## {title}\n\n{TEXTS[title]}\n\n{page.read_text(encoding='utf-8').strip()}")
    sections.append(f"## Refusal of foreign images\n\n{REFUSAL}")
    for folder in options.bundles:
        sections.append(refusal(folder))
    if options.external:
        sections.append(external(options.bundles, options.external))
    write_text(DOCS / "inference.md", "\n\n".join(sections) + "\n")


def refusal(folder: Path) -> str:
    """The report of one bundle, with its ROC."""
    name = manifest.read(folder).name
    report = manifest.read_json(folder / manifest.CALIBRATION)["foreign_report"]
    figure = f"foreign_roc_{name}.png"
    figures.save(
        figures.foreign_roc(report["scores"], f"{name}: refusal of foreign images"), DOCS / "figures" / figure
    )
    return f"### {name}\n\n{as_table(report)}\n\n![ROC of the refusal by {name}](figures/{figure})"


def external(folders: list[Path], images: Path) -> str:
    """How many X-rays of other hospitals are refused."""
    files = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    lines = ["| model | n | refused | 95 % interval | by a rule |", "| --- | ---: | ---: | ---: | ---: |"]
    for folder in folders:
        engine = Engine.from_pretrained(folder)
        lines.append(f"| {engine.name} | {row(engine, files)} |")
    text = f"""### Frontal X-rays of other hospitals

{len(files)} images of adults; none took part in any fit or threshold. What is refused here is refused
wrongly: the detector has seen children of one hospital and a few dozen adults. [The log](log.md) tells how
weighting the classes, found on the training rows, changed this number."""
    return text + "\n\n" + "\n".join(lines)


def row(engine: Engine, files: list[Path]) -> str:
    """Cells of one engine."""
    found = engine.predict(files)
    refused = [each for each in found if each.decision == FOREIGN]
    by_rule = sum(each.foreign_score is not None and each.foreign_score <= 0.5 for each in refused)
    interval = binomtest(len(refused), len(found)).proportion_ci(method="exact")
    share = f"{len(refused) / len(found):.1%}"
    return f"{len(found)} | {share} | {interval.low:.1%} to {interval.high:.1%} | {by_rule / len(found):.1%}"


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
