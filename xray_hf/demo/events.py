"""What happens on the page, without the page: a file and names of models in, answers or plain words out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from xray_hf.errors import ConfigError, ImageError, XrayHFError
from xray_hf.images import read_grey
from xray_hf.inference import Engine, Prediction
from xray_hf.inference.engine import FOREIGN

PREVIEW_SIDE = 1024  # pixels; a detector's full image would take seconds to send and shows no more


@dataclass(frozen=True)
class Answer:
    """What the page shows at a time.

    preview: the X-ray as the models see it, or None. predictions: {model: what it says} of those that
    answered. problem: why there is no answer, in words for the person at the page, or "".
    """

    preview: Image.Image | None = None
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    problem: str = ""


def load_engines(folders: Sequence[Path]) -> dict[str, Engine]:
    """Load bundles; two of the same name are told apart by their folders.

    Raises BundleError for a folder that holds no complete bundle.
    """
    loaded = {folder: Engine.from_pretrained(folder) for folder in folders}
    times = Counter(engine.name for engine in loaded.values())
    return {
        f"{engine.name} ({folder})" if times[engine.name] > 1 else engine.name: engine
        for folder, engine in loaded.items()
    }


def answer(engines: Mapping[str, Engine], path: str | None, chosen: Sequence[str]) -> Answer:
    """What to show for the uploaded file and the chosen models; never raises for a bad file or choice."""
    if path is None:
        return Answer()
    if not Path(path).exists():
        return Answer(problem=f"{Path(path).name} is too old and was deleted here; upload it again.")
    try:
        preview = read_preview(path)
    except ImageError as error:
        return Answer(problem=str(error))
    try:
        return Answer(preview, classify(engines, path, chosen))
    except XrayHFError as error:
        return Answer(preview, problem=str(error))


def classify(engines: Mapping[str, Engine], path: str | None, chosen: Sequence[str]) -> dict[str, Prediction]:
    """{model: what it says} of the chosen models, in the page's order.

    Raises ConfigError if no file, no model or an unknown model is given, ImageError for an unreadable file.
    """
    unknown = [name for name in chosen if name not in engines]
    if unknown:
        raise ConfigError(f"there is no model {unknown[0]!r}; choose from {', '.join(engines)}.")
    if not chosen:
        raise ConfigError("no model is chosen; tick at least one.")
    if path is None:
        raise ConfigError("no X-ray is given; upload one or take an example.")
    return {name: each.predict(Path(path)) for name, each in engines.items() if name in chosen}


def shares(prediction: Prediction | None) -> dict[str, float]:
    """The probabilities to show; none of an image that was refused, since they would mean nothing."""
    return prediction.probabilities if prediction and prediction.decision != FOREIGN else {}


def describe(prediction: Prediction | None) -> str:
    """A prediction's decision in one sentence of Markdown, where it is not simply the label; or ""."""
    if prediction is None or prediction.decision == prediction.label:
        return ""
    return f"**{prediction.decision[0].upper()}{prediction.decision[1:]}**: {prediction.reason}."


def read_preview(path: str) -> Image.Image:
    """The X-ray as the one reader gives it, at most PREVIEW_SIDE pixels a side; raises ImageError."""
    image = read_grey(path)
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    return image
