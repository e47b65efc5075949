"""The web page: X-rays in, the probabilities of several models side by side out."""

import os

# Gradio reads this when it is imported; the page sends nothing to anybody unless its owner wants that.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# After each answer it would make a table of the last 10,000, for a dashboard that the page does not have.
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
# It sets matplotlib's backend around each answer; if none is chosen, it takes seconds to search for one.
os.environ.setdefault("MPLBACKEND", "agg")
