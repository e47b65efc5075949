"""Chest X-ray classification, done properly on the Hugging Face stack.

`import xray_hf` is cheap: it imports no torch. Import what you need from its subpackage, for instance
`from xray_hf.data.sources import coronahack` or `from xray_hf.inference import Engine`.
"""

import os

from xray_hf.task import PAPER_CLASSES

# ONNX Runtime reads this when it is loaded; by default it sends telemetry to its maker and leaves files.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["PAPER_CLASSES", "__version__"]
