"""Sources opened in one line, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xray_hf.data.dataset import XrayData, open_data
from xray_hf.data.sources import ReadOptions, SourceSpec


def open_coronahack(folder: Path, side: int, covid_metadata: Path | None = None, **options: Any) -> XrayData:
    """A folder in Kaggle's layout."""
    spec = SourceSpec("coronahack", "coronahack", str(folder))
    return open_data([spec], side, options=ReadOptions(covid_metadata=covid_metadata), **options)
