"""Bundles -> code that uses their models without this page, ready to copy; and their model cards."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xray_hf import manifest
from xray_hf.demo.formatting import render
from xray_hf.manifest import Manifest

CARD = "README.md"  # of a bundle
FILE = "chest.png"  # the X-ray in every snippet
_CACHED = "models--"  # how a Hub repository's folder begins in huggingface_hub's cache
_FRONT_MATTER = re.compile(r"\A---\s*\n.*?\n---\s*(\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """title: what it uses. language: python or shell. note: what to know before. code: reads FILE."""

    title: str
    language: str
    note: str
    code: str


def as_html(models: Mapping[str, Manifest], address: str) -> str:
    """The code for these models. address: where the page is, until the browser knows better."""
    found = {name: of_model(description) for name, description in models.items()}
    return render("use", models=found, page=of_page(address), address=address)


def of_model(description: Manifest) -> list[Snippet]:
    """What runs the model of a bundle where it lies, in a folder or on the Hub."""
    is_cnn = description.name == manifest.XRAY_CNN
    own = [_transformers(description, is_cnn), _onnx_runtime(description), _engine(description)]
    return own if is_cnn else [own[0], _timm(description), *own[1:]]


def of_page(address: str) -> list[Snippet]:
    """What asks this page, which then answers with all its models."""
    return [
        Snippet(
            "gradio_client",
            "python",
            "Any file that the page reads, DICOM too. The answer has the decision of each model.",
            f"""\
from gradio_client import Client, handle_file

client = Client({_text(address)})
print(client.predict(handle_file("{FILE}"), api_name="/read"))
""",
        ),
        Snippet(
            "curl",
            "shell",
            "Upload the file, ask for an answer, fetch it.",
            f"""\
page={address.rstrip("/")}
file=$(curl -sf -F "files=@{FILE}" "$page/gradio_api/upload" | cut -d '"' -f 2)
call=$(curl -sf -H "Content-Type: application/json" "$page/gradio_api/call/read" \\
  -d '{{"data": [{{"path": "'"$file"'", "meta": {{"_type": "gradio.FileData"}}}}]}}' | cut -d '"' -f 4)
curl -sfN "$page/gradio_api/call/read/$call"
""",
        ),
    ]


def source_of(folder: Path) -> tuple[str, bool]:
    """Where a bundle is: its Hub id and True, or its folder and False."""
    # As huggingface_hub documents its cache: models--OWNER--NAME/snapshots/REVISION.
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith(_CACHED):
        return repository.removeprefix(_CACHED).replace("--", "/", 1), True
    return str(folder), False


def card(folder: Path, number: int) -> str:
    """A bundle's model card as Markdown, without its front matter; "" if it has none that can be read.

    number: the model's place on the page, under which it serves the figures that the card shows.
    """
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return _FRONT_MATTER.sub("", text).replace(f"]({manifest.FIGURES}/", f"]({manifest.FIGURES}/{number}/")


def _transformers(description: Manifest, is_cnn: bool) -> Snippet:
    source, _ = source_of(description.folder)
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

classify = pipeline("image-classification", model={_text(source)}{remote})
print(classify("{FILE}"))
""",
    )


def _timm(description: Manifest) -> Snippet:
    source, is_on_hub = source_of(description.folder)
    where = _text(("hf-hub:" if is_on_hub else "local-dir:") + source)
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


def _onnx_runtime(description: Manifest) -> Snippet:
    source, is_on_hub = source_of(description.folder)
    fetch = "from huggingface_hub import hf_hub_download\n" if is_on_hub else ""
    graph = f"hf_hub_download({_text(source)}, {_text(manifest.GRAPH)})"
    graph = graph if is_on_hub else _text(f"{source}/{manifest.GRAPH}")
    side = description.side
    return Snippet(
        "ONNX Runtime alone",
        "python",
        "One file, no torch. The graph scales the pixels itself; its logits are not calibrated.",
        f"""\
import numpy as np
import onnxruntime
{fetch}from PIL import Image

labels = {_text(list(description.labels))}
image = Image.open("{FILE}").convert("L").resize(({side}, {side}), Image.Resampling.BILINEAR)
pixels = np.asarray(image)[None, None]  # (1, 1, {side}, {side}) uint8
session = onnxruntime.InferenceSession({graph})
logits = session.run(["logits"], {{"{manifest.GRAPH_INPUT}": pixels}})[0][0]
shares = np.exp(logits - logits.max())
print(dict(zip(labels, (shares / shares.sum()).tolist())))
""",
    )


def _engine(description: Manifest) -> Snippet:
    source, _ = source_of(description.folder)
    return Snippet(
        "this package",
        "python",
        "What this page does: DICOM and 16 bit, too, calibrated, and it can say that it does not know.",
        f"""\
from xray_hf.inference import Engine

engine = Engine.from_pretrained({_text(source)})
found = engine.predict("{FILE}")
print(found.decision, found.reason, found.probabilities)
""",
    )


def _text(value: object) -> str:
    """A text, or a list of texts, as Python and JSON both write it."""
    return json.dumps(value, ensure_ascii=False)
