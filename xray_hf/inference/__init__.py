"""From a bundle and an X-ray to probabilities."""

from xray_hf.inference.classifier import Classifier

__all__ = ["Classifier"]
