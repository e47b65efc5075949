"""Negatives, turned or mirrored X-rays, photographs: files that no classifier should judge as they are.

A convolutional network of 56,000 parameters looks at a small copy of the image. scripts/train_quality.py
trains it, chooses its thresholds and measures it: docs/quality.json.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from xray_hf.reading import resize

GRAPH = Path(__file__).with_name("quality.onnx")
SIDE = 96  # pixels

# In the order of the network's outputs.
FINDINGS = (
    "negative",
    "upside down",
    "turned left",
    "turned right",
    "mirrored",
    "cut off",
    "side by side",
    "photograph",
    "writing",
)


class QualityCheck:
    """The network, loaded; many threads may share it."""

    def __init__(self, graph: Path = GRAPH) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # it computes for less than 0.1 ms
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(str(graph), options, ["CPUExecutionProvider"])

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """(B, SIDE, SIDE) uint8 -> (B, len(FINDINGS)) float32; above 0 is a finding."""
        found: np.ndarray = self._session.run(["logits"], {"pixels": pixels[:, None]})[0]
        return found

    def findings(self, pixels: np.ndarray) -> list[tuple[str, ...]]:
        """(B, SIDE, SIDE) uint8 -> the findings of each image."""
        above = self.logits(pixels) > 0
        return [
            tuple(name for name, is_found in zip(FINDINGS, row, strict=True) if is_found) for row in above
        ]


def small_copy(pixels: np.ndarray) -> np.ndarray:
    """(side, side) uint8, as a classifier sees it -> (SIDE, SIDE) uint8."""
    return resize(Image.fromarray(pixels), SIDE)
