"""Bundles -> code that uses their models, ready to copy: for the page and for cards."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from xray_hf import manifest
from xray_hf.manifest import Manifest

FILE = "chest.png"  # the X-ray in every snippet
_CACHED = "models--"  # how a Hub repository's folder begins in huggingface_hub's cache


@dataclass(frozen=True)
class Snippet:
    """title: what it uses. language: python or shell. note: what to know before. code: reads FILE."""

    title: str
    language: str
    note: str
    code: str


def of_model(description: Manifest, repo_id: str | None = None) -> list[Snippet]:
    """What runs a bundle's model: from the Hub if `repo_id` is given, else where it lies."""
    place = Place(repo_id, is_on_hub=True) if repo_id else place_of(description.folder)
    is_cnn = description.name == manifest.XRAY_CNN
    own = [_transformers(place, is_cnn), _onnx_runtime(place, description), _engine(place)]
    return own if is_cnn else [own[0], _timm(place), *own[1:]]


@dataclass(frozen=True)
class Place:
    """Where a bundle is: source, a Hub id or a folder."""

    source: str
    is_on_hub: bool


def place_of(folder: Path) -> Place:
    """The Hub repository that a folder of huggingface_hub's cache is, else the folder."""
    # As huggingface_hub documents its cache: models--OWNER--NAME/snapshots/REVISION.
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith(_CACHED):
        return Place(repository.removeprefix(_CACHED).replace("--", "/", 1), is_on_hub=True)
    return Place(str(folder), is_on_hub=False)


def _transformers(place: Place, is_cnn: bool) -> Snippet:
    remote = ", trust_remote_code=True" if is_cnn else ""
    note = (
        "Runs the code that lies in the bundle; read it first." if is_cnn else "Runs no code of the bundle."
    )
    return Snippet(
        "transformers",
        "python",
        note,
        f"""\
from transformers import pipeline

classify = pipeline("image-classification", model={text(place.source)}{remote})
print(classify("{FILE}"))
""",
    )


def _timm(place: Place) -> Snippet:
    where = text(("hf-hub:" if place.is_on_hub else "local-dir:") + place.source)
    return Snippet(
        "timm",
        "python",
        "For fine-tuning, features and whatever else timm can do.",
        f"""\
import timm
import torch
from PIL import Image

model = timm.create_model({where}, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
image = Image.open("{FILE}").convert("L").convert("RGB")
with torch.inference_mode():
    probabilities = model(transform(image)[None]).softmax(dim=1)[0]
print(dict(zip(model.pretrained_cfg["label_names"], probabilities.tolist())))
""",
    )


def _onnx_runtime(place: Place, description: Manifest) -> Snippet:
    fetch = "from huggingface_hub import hf_hub_download\n" if place.is_on_hub else ""
    graph = f"hf_hub_download({text(place.source)}, {text(manifest.GRAPH)})"
    graph = graph if place.is_on_hub else text(f"{place.source}/{manifest.GRAPH}")
    side = description.side
    return Snippet(
        "ONNX Runtime alone",
        "python",
        "One file, no torch. The graph scales the pixels itself; its logits are not calibrated.",
        f"""\
import numpy as np
import onnxruntime
{fetch}from PIL import Image

labels = {text(list(description.labels))}
image = Image.open("{FILE}").convert("L").resize(({side}, {side}), Image.Resampling.BILINEAR)
pixels = np.asarray(image)[None, None]  # (1, 1, {side}, {side}) uint8
session = onnxruntime.InferenceSession({graph})
logits = session.run(["logits"], {{"{manifest.GRAPH_INPUT}": pixels}})[0][0]
shares = np.exp(logits - logits.max())
print(dict(zip(labels, (shares / shares.sum()).tolist())))
""",
    )


def _engine(place: Place) -> Snippet:
    return Snippet(
        "xray_hf",
        "python",
        "Reads DICOM and 16 bit, too; calibrated, and it can say that it does not know. "
        "To install it: pip install . in a clone of it.",
        f"""\
from xray_hf.inference import Engine

engine = Engine.from_pretrained({text(place.source)})
found = engine.predict("{FILE}")
print(found.decision, found.reason, found.probabilities)
""",
    )


def text(value: object) -> str:
    """A text, or a list of texts, as Python and JSON both write it."""
    return json.dumps(value, ensure_ascii=False)
