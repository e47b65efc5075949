"""Choose the demo's synthetic examples by the answers of the shipped models: xray_hf/demo/examples.json.

python scripts/choose_examples.py

Among the first SEEDS synthetic patients of a group, or more if none of these shows the outcome, it takes the
one about which both multisource models are most confident, or least confident if they should abstain. That
is a choice of pictures to show, not of models: it says nothing about how often an outcome occurs. Run it
again when the models or the atlas change; it takes some minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from xray_hf.demo import examples
from xray_hf.demo.examples import OUTCOMES, Outcome
from xray_hf.errors import DataError, exit_on_error
from xray_hf.files import write_json
from xray_hf.inference import Engine, Prediction
from xray_hf.task import UNSURE

SHIPPED = Path(__file__).resolve().parent.parent / "pretrained"
MULTISOURCE = ("xray-cnn-multisource", "xray-resnet18-multisource")
CORONAHACK = ("xray-resnet18", "xray-cnn")
SEEDS, MOST, BATCH = 500, 10_000, 50


def main() -> None:
    """Search, write and print; raises DataError if an outcome is not found."""
    multisource, coronahack = ([load(name) for name in names] for names in (MULTISOURCE, CORONAHACK))
    chosen: dict[str, dict[str, str | int]] = {}
    for name, outcome in OUTCOMES.items():
        taken = [(each["group"], each["seed"]) for each in chosen.values()]
        group, seed, least = choose(outcome, multisource, coronahack, taken)
        chosen[name] = {"group": group, "seed": seed}
        print(f"{name:10} {group}, seed {seed}: {least:.3f}")
    write_json(examples.CHOSEN, chosen)


def load(name: str) -> Engine:
    """A shipped model."""
    return Engine.from_pretrained(SHIPPED / name)


def choose(
    outcome: Outcome,
    multisource: Sequence[Engine],
    coronahack: Sequence[Engine],
    taken: Sequence[tuple[str | int, str | int]],
) -> tuple[str, int, float]:
    """Group and seed that show an outcome best, and how clearly. taken: examples of other outcomes."""
    for group in outcome.groups:
        found: list[tuple[float, int]] = []
        for start in range(0, MOST, BATCH):
            if found and start >= SEEDS:
                break
            seeds = [seed for seed in range(start, start + BATCH) if (group, seed) not in taken]
            images = {seed: examples.draw(outcome, group, seed) for seed in seeds}
            own = answers(images, multisource, outcome.decision)
            others = answers({seed: images[seed] for seed in own}, coronahack, outcome.of_coronahack)
            found += [(clarity(own[seed], outcome.decision), seed) for seed in others]
        if found:
            least, seed = max(found)
            return group, seed, least
    raise DataError(
        f"none of {MOST:,} seeds of {', '.join(outcome.groups)} shows {outcome.decision}; raise MOST, or "
        "change the outcome in xray_hf/demo/examples.py."
    )


def answers(
    images: Mapping[int, Image.Image], engines: Iterable[Engine], decision: str
) -> dict[int, list[Prediction]]:
    """{seed: answers} of the images that all models give this decision, without a warning; "": of all."""
    found: dict[int, list[Prediction]] = {seed: [] for seed in images}
    for engine in engines if decision else ():
        said = engine.predict([images[seed] for seed in found])
        pairs = list(zip(found.items(), said, strict=True))
        kept = [each for each in pairs if each[1].decision == decision and not each[1].warnings]
        found = {seed: [*before, own] for (seed, before), own in kept}
    return found


def clarity(found: Iterable[Prediction], decision: str) -> float:
    """The lowest confidence of the models; for UNSURE, 1 minus the highest."""
    highest = [max(each.probabilities.values()) for each in found]
    return 1 - max(highest) if decision == UNSURE else min(highest)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
