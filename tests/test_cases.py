"""Small files that people have, made after public reports: ../shared/cases, where it is there.

All show one synthetic patient whose grey values are 0, 138 and 255 (lowest, mean, highest).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from xray_hf.errors import ImageError
from xray_hf.reading import read

CASES = ROOT.parent / "shared" / "cases"
REFUSED = {
    "08": "is a lateral view",
    "10": "photometric interpretation is missing",
    "28c": "JPEG XL",
}
MEAN = {"05": 112}  # with black padding at both sides
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases")


def files() -> list[Path]:
    return sorted(path for path in CASES.glob("*") if path.suffix in (".dcm", ".png", ".jpg", ".jxl", ".tif"))


def number(path: Path) -> str:
    return path.name.partition("_")[0]


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_each_file_shows_its_picture_or_says_why_not(path: Path) -> None:
    if number(path) in REFUSED:
        with pytest.raises(ImageError, match=REFUSED[number(path)]):
            read(path)
        return
    grey = np.asarray(read(path).grey)
    assert (grey.min(), grey.max()) == (0, 255)
    assert grey.mean() == pytest.approx(MEAN.get(number(path), 138.2), abs=1)


def test_the_first_of_nine_tables_is_applied(tmp_path: Path) -> None:
    recipe = next(CASES.glob("12_*.py"))
    made = tmp_path / "nine.dcm"
    subprocess.run([sys.executable, recipe, CASES / "control_12bit.dcm", made], check=True)
    grey = np.asarray(read(made).grey)
    assert grey.mean() == pytest.approx(138.2, abs=1)
