"""The networks: names to modules, without any data."""

from xray_hf.models.create import MODELS, Network, Preprocessing, create_model

__all__ = ["MODELS", "Network", "Preprocessing", "create_model"]
