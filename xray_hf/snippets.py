"""Bundles -> code that uses their models, ready to copy: for the page and for cards."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from xray_hf import manifest
from xray_hf.manifest import Manifest

FILE = "chest.png"  # the X-ray in every snippet
WHOLE_IMAGE = (
    "For fine-tuning and features, not for classifying: it shows the network the whole image, not the "
    "standardised crop to the lungs that it was trained on, and many answers are wrong."
)
UNCALIBRATED = (
    "Gives uncalibrated probabilities and never abstains or rejects an image; use xray_hf for that."
)
CODE_OF_BUNDLE = "This runs Python code from the bundle; read it first."
NO_CODE_OF_BUNDLE = "Runs no code from the bundle."
# Any file of 8 bits a channel -> `image` as xray_hf.reading has it: upright, on black. Most networks take it
# in grey; the engine's graph takes colours, since it rejects pictures that have many.
# With more bits, Pillow turns grey white and colours nearly black (only the tiles tell their depth). A TIFF
# that it opens by name is mapped into memory, which garbles a rotated one, so it gets an open file.
READ = f"""\
with open("{FILE}", "rb") as file:  # PNG, JPEG or TIFF of 8 bits; xray_hf reads DICOM and 16 bits, too
    image = Image.open(file)
    if image.mode[0] in "IF" or ";16" in str(image.tile):
        raise SystemExit(f"{{file.name}} has more than 8 bits a channel: scale it to 8, or use xray_hf.")
    image = ImageOps.exif_transpose(image).convert("RGBA")
image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
"""
_CACHED = "models--"  # how a Hub repository's folder begins in huggingface_hub's cache


@dataclass(frozen=True)
class Snippet:
    """title: the library. language: python or shell. note: for the reader. code: reads FILE."""

    title: str
    language: str
    note: str
    code: str


def of_model(description: Manifest, repo_id: str | None = None) -> list[Snippet]:
    """Code for a bundle's model: on the Hub if `repo_id` is given or it came from there, else local."""
    repo_id = repo_id or cached_id(description.folder)
    source = repo_id or str(description.folder)
    own = [_engine(source)]
    if (description.folder / manifest.ENGINE).exists():
        own.insert(0, _onnx_runtime(description.folder, repo_id))
    is_cnn = description.name == manifest.XRAY_CNN
    others = [_transformers(source, is_cnn)]
    if not is_cnn:
        others.append(_timm(source, is_on_hub=bool(repo_id)))
    if not description.sees_lungs:
        return [*others, *own]
    return [*own, *(replace(each, note=f"{WHOLE_IMAGE} {each.note}") for each in others)]


def cached_id(folder: Path) -> str | None:
    """The id of the Hub repository whose copy in huggingface_hub's cache a folder is."""
    # As huggingface_hub documents its cache: models--OWNER--NAME/snapshots/REVISION.
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith(_CACHED):
        return repository.removeprefix(_CACHED).replace("--", "/", 1)
    return None


def _transformers(source: str, is_cnn: bool) -> Snippet:
    remote = ", trust_remote_code=True" if is_cnn else ""
    return Snippet(
        "transformers",
        "python",
        f"{CODE_OF_BUNDLE if is_cnn else NO_CODE_OF_BUNDLE} {UNCALIBRATED}",
        f"""\
from PIL import Image, ImageOps
from transformers import pipeline

{READ}
classify = pipeline("image-classification", model={text(source)}{remote})
print(classify(image.convert("L")))
""",
    )


def _timm(source: str, is_on_hub: bool) -> Snippet:
    where = text(("hf-hub:" if is_on_hub else "local-dir:") + source)
    return Snippet(
        "timm",
        "python",
        UNCALIBRATED,
        f"""\
import timm
import torch
from PIL import Image, ImageOps

{READ}
model = timm.create_model({where}, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.inference_mode():
    probabilities = model(transform(image.convert("L").convert("RGB"))[None]).softmax(dim=1)[0]
print(dict(zip(model.pretrained_cfg["label_names"], probabilities.tolist())))
""",
    )


def _onnx_runtime(folder: Path, repo_id: str | None) -> Snippet:
    imports, place = "", text(str(folder))
    if repo_id:
        imports = "from huggingface_hub import snapshot_download\n"
        files = text([manifest.ENGINE, "*.safetensors"])
        place = f"snapshot_download({text(repo_id)}, allow_patterns={files})"
    return Snippet(
        "ONNX Runtime alone",
        "python",
        f"{manifest.ENGINE} is the whole engine as one graph: it calibrates, abstains and rejects as xray_hf "
        "does, but gives no warnings. It reads its weights from the safetensors beside it. PyTorch is not "
        "needed.",
        f"""\
import json

import numpy as np
import onnxruntime
{imports}from PIL import Image, ImageOps

{READ}
folder = {place}
session = onnxruntime.InferenceSession(f"{{folder}}/{manifest.ENGINE}")
outputs = ["probabilities", "decision", "reason"]
probabilities, decision, reason = session.run(outputs, {{"image": np.asarray(image.convert("RGB"))}})
names = session.get_modelmeta().custom_metadata_map
decisions, reasons = json.loads(names["decisions"]), json.loads(names["reasons"])  # the classes come first
print(decisions[decision], reasons[reason], dict(zip(decisions, probabilities.tolist())))
""",
    )


def _engine(source: str) -> Snippet:
    return Snippet(
        "xray_hf",
        "python",
        "Reads DICOM and 16-bit files, too, gives calibrated probabilities, and can abstain. "
        "To install it, run pip install . in a clone of its repository.",
        f"""\
from xray_hf.inference import Engine

engine = Engine.from_pretrained({text(source)})
found = engine.predict("{FILE}")
print(found.decision, found.reason, found.probabilities)
""",
    )


def text(value: object) -> str:
    """A text, or a list of texts, as Python and JSON both write it."""
    return json.dumps(value, ensure_ascii=False)
