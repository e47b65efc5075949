"""From a bundle and X-ray files to probabilities, heatmaps and refusals."""

from xray_hf.inference.engine import Engine, Prediction

__all__ = ["Engine", "Prediction"]
