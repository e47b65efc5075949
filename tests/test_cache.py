"""The pixel cache: the reader's own pixels, decoded once, whole or not there, aligned with the records."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xray_hf.data import cache as pixels
from xray_hf.data.cache import PixelCache, default_cache_dir, prepare
from xray_hf.data.sample import Sample
from xray_hf.errors import DataError, ImageError, OutputError
from xray_hf.images import read_grey, resize
from xray_hf.task import NORMAL

SIDE = 32


def record_of(path: Path) -> Sample:
    return Sample(path.name, path, NORMAL, path.stem, "TRAIN", "", "", "Kermany")


@pytest.fixture
def records(tmp_path: Path) -> list[Sample]:
    """Twelve noisy images; the eighth shows the picture of the third."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(12):
        noise = np.random.default_rng(2 if number == 7 else number).integers(0, 256, (50, 40), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:02}.png")
    return [record_of(path) for path in sorted(folder.iterdir())]


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def expected(records: Sequence[Sample], side: int = SIDE) -> np.ndarray:
    return np.stack([resize(read_grey(record.path), side) for record in records])


def content_of(cache: PixelCache) -> np.ndarray:
    return cache.gather(np.arange(cache.count))


def test_the_cache_holds_what_the_reader_gives(records: list[Sample], cache_dir: Path) -> None:
    cache = prepare(records, SIDE, cache_dir)
    assert (cache.count, cache.side, cache.undecodable) == (12, SIDE, {})
    assert cache.near_duplicates == [(2, 7)]
    np.testing.assert_array_equal(content_of(cache), expected(records))


def test_more_images_than_are_decoded_ahead_stay_in_order(
    records: list[Sample], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "_CHUNK", 5)
    np.testing.assert_array_equal(content_of(prepare(records, SIDE, cache_dir)), expected(records))


def test_the_second_open_decodes_nothing(
    records: list[Sample], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(records, SIDE, cache_dir)

    def fail(*_: object) -> None:
        raise AssertionError("an image was decoded again")

    monkeypatch.setattr(pixels, "_decode", fail)
    assert prepare(records, SIDE, cache_dir) == first


def test_a_changed_file_makes_a_new_cache(records: list[Sample], cache_dir: Path) -> None:
    first = prepare(records, SIDE, cache_dir)
    Image.new("L", (50, 50), 200).save(records[4].path)
    second = prepare(records, SIDE, cache_dir)
    assert second.folder != first.folder
    assert (second.gather(np.array([4])) == 200).all()


def test_a_changed_time_alone_makes_a_new_cache(records: list[Sample], cache_dir: Path) -> None:
    first = prepare(records, SIDE, cache_dir)
    os.utime(records[4].path, ns=(0, 1))
    assert prepare(records, SIDE, cache_dir).folder != first.folder


def test_another_side_order_or_reader_makes_a_new_cache(
    records: list[Sample], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {prepare(records, side, cache_dir).folder for side in (32, 40)}
    folders.add(prepare(records[::-1], SIDE, cache_dir).folder)
    monkeypatch.setattr(pixels, "READER_VERSION", pixels.READER_VERSION + 1)
    folders.add(prepare(records, SIDE, cache_dir).folder)
    assert len(folders) == 4


def test_undecodable_files_are_listed_and_the_others_stay_aligned(
    records: list[Sample], cache_dir: Path
) -> None:
    for number in (0, 5, 11):
        records[number].path.write_text("no image")
    cache = prepare(records, SIDE, cache_dir)
    assert sorted(cache.undecodable) == ["00.png", "05.png", "11.png"]
    assert "05.png is not an image" in cache.undecodable["05.png"]
    kept = [record for record in records if record.file_name not in cache.undecodable]
    assert cache.count == len(kept)
    np.testing.assert_array_equal(content_of(cache), expected(kept))
    # The third and the eighth record, which show one picture, by their rows in the cache.
    assert [(kept[i].file_name, kept[j].file_name) for i, j in cache.near_duplicates] == [
        ("02.png", "07.png")
    ]


def test_rows_come_in_any_order_and_repeatedly(records: list[Sample], cache_dir: Path) -> None:
    cache = prepare(records, SIDE, cache_dir)
    rows = np.array([11, 0, 0, 7, 3, 11])
    batch = cache.gather(rows)
    assert (batch.shape, batch.dtype) == ((6, SIDE, SIDE), np.uint8)
    np.testing.assert_array_equal(batch, expected(records)[rows])
    assert cache.gather(np.array([], np.int64)).shape == (0, SIDE, SIDE)


def test_a_row_that_is_not_there_is_an_error(records: list[Sample], cache_dir: Path) -> None:
    cache = prepare(records, SIDE, cache_dir)
    with pytest.raises(DataError, match=r"there is no row 12; delete this folder, it is made anew"):
        cache.gather(np.array([12]))


@pytest.mark.parametrize("damage", ["no pixels", "short pixels", "no index", "half an index"])
def test_a_damaged_cache_says_that_it_can_be_deleted(
    records: list[Sample], cache_dir: Path, damage: str
) -> None:
    folder = prepare(records, SIDE, cache_dir).folder
    name = pixels.PIXELS_NAME if "pixels" in damage else pixels.INDEX_NAME
    if damage.startswith("no"):
        (folder / name).unlink()
    else:
        os.truncate(folder / name, 40)
    with pytest.raises(DataError, match=r"delete this folder, it is made anew"):
        content_of(prepare(records, SIDE, cache_dir))


def test_an_exception_in_the_middle_leaves_nothing(
    records: list[Sample], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = pixels._decode

    def interrupted(record: Sample, side: int) -> tuple[np.ndarray, np.ndarray] | ImageError:
        if record.file_name == "06.png":
            raise KeyboardInterrupt
        return decode(record, side)

    monkeypatch.setattr(pixels, "_decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(records, SIDE, cache_dir)
    assert not list(cache_dir.iterdir())
    monkeypatch.undo()
    np.testing.assert_array_equal(content_of(prepare(records, SIDE, cache_dir)), expected(records))


KILLED = """
import sys, time
from pathlib import Path
from xray_hf.data import cache as pixels
from xray_hf.data.sample import Sample

decode = pixels._decode

def slow(record, side):
    if record.file_name == "06.png":
        Path(sys.argv[3]).touch()
        time.sleep(60)
    return decode(record, side)

pixels._decode = slow
paths = sorted(Path(sys.argv[1]).iterdir())
records = [Sample(path.name, path, 0, path.stem, "TRAIN", "", "", "Kermany") for path in paths]
pixels.prepare(records, 32, Path(sys.argv[2]))
"""


def test_a_killed_process_leaves_no_cache_that_looks_whole(
    records: list[Sample], cache_dir: Path, tmp_path: Path
) -> None:
    reached = tmp_path / "reached"
    arguments = [sys.executable, "-c", KILLED, str(records[0].path.parent), str(cache_dir), str(reached)]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not reached.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert list(cache_dir.iterdir())  # the process was in the middle of it,
    assert not list(cache_dir.glob("pixels-*"))  # and nothing has the name of a cache
    np.testing.assert_array_equal(content_of(prepare(records, SIDE, cache_dir)), expected(records))


def test_a_cache_that_cannot_be_written_is_an_output_error(records: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*: Not a directory"):
        prepare(records, SIDE, tmp_path / "file" / "cache")


def test_the_folder_is_named_by_the_environment_or_the_home(
    monkeypatch: pytest.MonkeyPatch, pixel_cache: Path
) -> None:
    assert default_cache_dir() == pixel_cache
    monkeypatch.delenv("XRAY_HF_CACHE")
    assert default_cache_dir() == Path.home() / ".cache" / "xray_hf"


def test_the_index_is_plain_json(records: list[Sample], cache_dir: Path) -> None:
    index = json.loads((prepare(records, SIDE, cache_dir).folder / pixels.INDEX_NAME).read_text())
    assert index == {"count": 12, "undecodable": {}, "near_duplicates": [[2, 7]]}
