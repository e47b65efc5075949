"""From a bundle and X-ray files to decisions, probabilities and class activation maps."""

from xray_hf.inference.engine import Engine, Prediction

__all__ = ["Engine", "Prediction"]
