"""The demo that everybody writes, a pipeline of transformers in gr.Interface: the peer of bench_demo.py.

python benchmarks/plain_demo.py BUNDLE PORT
"""

from __future__ import annotations

import sys
from typing import Any

from PIL import Image


def load(bundle: str) -> Any:
    """The pipeline as a function: an image -> {class: probability}."""
    from transformers import pipeline

    classify = pipeline("image-classification", model=bundle, trust_remote_code=True)

    def predict(image: Image.Image) -> dict[str, float]:
        return {found["label"]: found["score"] for found in classify(image)}

    return predict


def main(bundle: str, port: str) -> None:
    """Serve it until it is stopped."""
    import gradio as gr

    demo = gr.Interface(fn=load(bundle), inputs=gr.Image(type="pil"), outputs=gr.Label())
    demo.launch(server_port=int(port), quiet=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
