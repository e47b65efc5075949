"""The web page: X-rays in, the probabilities of several models side by side out."""

import os

# Gradio reads this when it is imported; the page sends nothing to anybody unless its owner wants that.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
