"""Write docs/inference.md: speed, agreement, and what the engine refuses, of two bundles.

python scripts/write_inference.py BUNDLE BUNDLE --whole ORIGINALS --external DIR

No number of the tables is typed in: refusals are read from the bundles' calibration.json, speed from
docs/bench_inference.md (`make bench-inference ARGS="--out docs/bench_inference.json"`), agreement from
docs/agreement.md (`benchmarks/agreement.py --out docs/agreement.json`). ORIGINALS holds files of the data set
at their original size, DIR frontal X-rays of other hospitals.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from xray_hf import manifest
from xray_hf.calibration.fit_ood import as_table
from xray_hf.errors import exit_on_error
from xray_hf.evaluation import figures
from xray_hf.files import write_text
from xray_hf.inference import Engine, inputs
from xray_hf.inference.engine import REJECTED, UNLIKE

DOCS = Path(__file__).resolve().parent.parent / "docs"
PARTS = {"Speed": DOCS / "bench_inference.md", "Agreement": DOCS / "agreement.md"}
TEXTS = {
    "Speed": """`make bench-inference IMAGES=… BUNDLES="…"`, every way in a process of its own, in
interleaved rounds; medians of the rounds with their spread. `ours` reads any format with all checks and
gives heatmap and refusal besides probabilities; the others give probabilities only. The `floor` is decoding
and resizing with Pillow alone plus the bare network alone; the `ceiling` what their CPU seconds allow on
all cores. ONNX Runtime computes in float32, OpenVINO in bfloat16 where the CPU has it. `pipeline` is
transformers' image-classification pipeline as it comes, in float32, and with `dtype="bfloat16"`, in bulk at
the best of its batch sizes 1, 8 and 32; `loader` a timm-style script: DataLoader with a worker for each
core and batches of 64, in float32. What is faster than the pipeline is measured against float32.""",
    "Agreement": """Probabilities before calibration, of the engine in Python, `xray-hf predict`, and
transformers' pipeline on the same bundle (`benchmarks/agreement.py`). Images with a colour tint are left
out: our reader takes their grey, as in training, the pipeline their colours.""",
}
REFUSAL = """A decision is `not a frontal chest X-ray` by cheap rules (colour, proportions, size, contrast)
or by a detector: logistic regression on the network's embedding and on a thumbnail of 32×32 pixels,
standardised. It is fitted on the bundle's training rows against half of the foreign images; the threshold
gives up 1 % of the validation rows. Reported are the other half, and the test rows. [The log](log.md) has
the detectors that were tried.

Two things to know of the table. A few of the data set's COVID-19 images are lateral views, one of them in
test: the detector is right to refuse them, and they count as wrongly refused. And of the CT slices and the
lateral views several come from one publication, some in the tuning half, some in the reported one and some
in the data set itself ([limitations](limitations.md), 11): for them the shares say less of new
publications than for the other kinds."""
WHOLE = """### Files at original size

Of the rules, only contrast can be tried on the test rows, which are kept at the network's size. These files
of the data set have their own size, proportions and colours; most are training images, so what the detector
refuses here says little."""
EXTERNAL = """### Frontal X-rays of other hospitals

Adults, none of whom took part in any fit or threshold. What is refused here is refused wrongly: the
detector has seen children of one hospital and a few dozen adults. [The log](log.md) tells how weighting the
classes, found on the training rows, changed this number."""


def main() -> None:
    """Write the page and its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--whole", type=Path, required=True, help="files of the data set at original size")
    parser.add_argument("--external", type=Path, required=True, help="frontal X-rays of other hospitals")
    options = parser.parse_args()
    sections = [introduction(options.bundles)]
    for title, page in PARTS.items():
        sections.append(f"## {title}\n\n{TEXTS[title]}\n\n{page.read_text(encoding='utf-8').strip()}")
    sections.append(f"## Refusal of foreign images\n\n{REFUSAL}")
    sections += [refusal(folder) for folder in options.bundles]
    engines = [Engine.from_pretrained(folder) for folder in options.bundles]
    sections.append(f"{WHOLE}\n\n{refused(engines, options.whole)}")
    sections.append(f"{EXTERNAL}\n\n{refused(engines, options.external)}")
    write_text(DOCS / "inference.md", "\n\n".join(sections) + "\n")


def introduction(folders: Sequence[Path]) -> str:
    """What was measured."""
    runs = [manifest.read_json(folder / manifest.TRAINING) for folder in folders]
    trained = "; ".join(describe(run) for run in runs)
    return f"# Inference\n\nMeasured with {trained}. Nothing below is evidence for any clinical use."


def describe(run: dict[str, Any]) -> str:
    """How a model was trained."""
    config = run["config"]
    return (
        f"{run['model']} from {run['initial_weights']} weights, protocol `{config['data']['protocol']}`, "
        f"{config['optimization']['epochs']} epochs, seed {config['run']['seed']}"
    )


def refusal(folder: Path) -> str:
    """The report of one bundle, with its ROC."""
    name = manifest.read(folder).name
    report = manifest.read_calibration(folder)["ood_report"]
    figure = f"foreign_roc_{name}.png"
    drawn = figures.foreign_roc(report["scores"], f"{name}: refusal of foreign images")
    figures.save(drawn, DOCS / "figures" / figure)
    return f"### {name}\n\n{as_table(report)}\n\n![ROC of the refusal by {name}](figures/{figure})"


def refused(engines: Sequence[Engine], images: Path) -> str:
    """How many frontal X-rays of a folder are refused, and by what, as a table."""
    files = [item.source for item in inputs.find([str(images)])]
    lines = ["| model | n | refused | 95 % interval | by a rule |", "| --- | ---: | ---: | ---: | ---: |"]
    for engine in engines:
        reasons = [each.reason for each in engine.predict(files) if each.decision == REJECTED]
        by_rule = sum(reason != UNLIKE for reason in reasons)
        interval = binomtest(len(reasons), len(files)).proportion_ci(method="exact")
        lines.append(
            f"| {engine.name} | {len(files)} | {len(reasons) / len(files):.1%} "
            f"| {interval.low:.1%} to {interval.high:.1%} | {by_rule / len(files):.1%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
