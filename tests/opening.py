"""Sources opened in one line, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xray_hf.data.dataset import XrayData, open_data, read_samples
from xray_hf.data.sample import Sample
from xray_hf.data.sources import ReadOptions, SourceSpec


def samples_of(folder: Path) -> list[Sample]:
    """The samples of a folder in Kaggle's layout, with their classes; nothing is decoded."""
    samples, _, _ = read_samples([SourceSpec("coronahack", "coronahack", str(folder))])
    return samples


def open_coronahack(folder: Path, side: int, covid_metadata: Path | None = None, **options: Any) -> XrayData:
    """A folder in Kaggle's layout."""
    spec = SourceSpec("coronahack", "coronahack", str(folder))
    return open_data([spec], side, options=ReadOptions(covid_metadata=covid_metadata), **options)
