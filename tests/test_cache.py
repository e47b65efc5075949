"""The pixel cache: the reader's own pixels, each file decoded once, aligned with the samples."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xray_hf.data import cache as pixels
from xray_hf.data import groups
from xray_hf.data.cache import Joined, PixelCache, default_cache_dir, find_duplicates, prepare
from xray_hf.data.groups import THUMBNAIL_SIDE
from xray_hf.data.sample import Sample
from xray_hf.errors import DataError, ImageError, OutputError
from xray_hf.reading import read_grey, resize

SIDE = 32


def sample_of(path: Path, source: str = "clinic") -> Sample:
    return Sample(path.name, path, source, (), path.stem)


def write_noise(path: Path, seed: int) -> Sample:
    noise = np.random.default_rng(seed).integers(0, 256, (50, 40), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return sample_of(path)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Twelve noisy images."""
    folder = tmp_path / "images"
    folder.mkdir()
    return [write_noise(folder / f"{number:02}.png", number) for number in range(12)]


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were decoded, in that order; tests empty it."""
    names: list[str] = []
    decode = pixels._decode

    def watched(path: Path, side: int) -> tuple[np.ndarray, np.ndarray] | ImageError:
        names.append(path.name)
        return decode(path, side)

    monkeypatch.setattr(pixels, "_decode", watched)
    return names


def expected(samples: Sequence[Sample], side: int = SIDE) -> np.ndarray:
    return np.stack([resize(read_grey(sample.path), side) for sample in samples])


def content_of(cache: PixelCache) -> np.ndarray:
    return cache.gather(np.arange(cache.count))


def assert_holds(cache: PixelCache, samples: Sequence[Sample]) -> None:
    np.testing.assert_array_equal(content_of(cache), expected(samples))
    np.testing.assert_array_equal(cache.thumbnails, expected(samples, THUMBNAIL_SIDE))


def test_the_cache_holds_what_the_reader_gives(samples: list[Sample], cache_dir: Path) -> None:
    cache = prepare(samples, SIDE, cache_dir)
    assert (cache.count, cache.side, cache.undecodable) == (12, SIDE, {})
    assert_holds(cache, samples)


def test_the_second_open_decodes_nothing(samples: list[Sample], cache_dir: Path, decoded: list[str]) -> None:
    prepare(samples, SIDE, cache_dir)
    assert len(decoded) == 12
    decoded.clear()
    assert_holds(prepare(samples, SIDE, cache_dir), samples)
    assert decoded == []


def test_a_new_file_is_the_only_one_decoded(
    samples: list[Sample], cache_dir: Path, decoded: list[str]
) -> None:
    prepare(samples, SIDE, cache_dir)
    decoded.clear()
    more = [*samples[:5], write_noise(samples[0].path.with_name("new.png"), 99), *samples[5:]]
    assert_holds(prepare(more, SIDE, cache_dir), more)
    assert decoded == ["new.png"]


def test_a_changed_file_is_the_only_one_decoded(
    samples: list[Sample], cache_dir: Path, decoded: list[str]
) -> None:
    first = prepare(samples, SIDE, cache_dir)
    before = content_of(first)
    decoded.clear()
    Image.new("L", (50, 50), 200).save(samples[4].path)
    os.utime(samples[7].path, ns=(0, 1))  # the time alone is a change as well
    assert_holds(prepare(samples, SIDE, cache_dir), samples)
    assert sorted(decoded) == ["04.png", "07.png"]
    np.testing.assert_array_equal(content_of(first), before)  # whoever has it open keeps what it had


def test_files_may_go_and_change_places_without_decoding(
    samples: list[Sample], cache_dir: Path, decoded: list[str]
) -> None:
    prepare(samples, SIDE, cache_dir)
    decoded.clear()
    samples[3].path.unlink()
    for rest in ([*samples[:3], *samples[4:]], samples[:3:-1], samples[1:2]):
        assert_holds(prepare(rest, SIDE, cache_dir), rest)
    assert decoded == []


def test_one_file_in_two_samples_is_decoded_once(
    samples: list[Sample], cache_dir: Path, decoded: list[str]
) -> None:
    link = samples[0].path.with_name("link.png")
    link.symlink_to(samples[0].path)
    both = [*samples, sample_of(link)]
    assert_holds(prepare(both, SIDE, cache_dir), both)
    assert len(decoded) == 12


def test_another_side_reader_or_source_has_its_own_cache(
    samples: list[Sample], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {prepare(samples, side, cache_dir).folder for side in (32, 40)}
    folders.add(prepare([sample_of(each.path, "other") for each in samples], SIDE, cache_dir).folder)
    monkeypatch.setattr(pixels, "READER_VERSION", pixels.READER_VERSION + 1)
    folders.add(prepare(samples, SIDE, cache_dir).folder)
    assert len(folders) == 4


def test_undecodable_files_are_listed_remembered_and_tried_again_when_they_change(
    samples: list[Sample], cache_dir: Path, decoded: list[str]
) -> None:
    for number in (0, 5, 11):
        samples[number].path.write_text("no image")
    for _ in range(2):
        cache = prepare(samples, SIDE, cache_dir)
        assert sorted(cache.undecodable) == ["00.png", "05.png", "11.png"]
        assert "05.png is not a readable image" in cache.undecodable["05.png"]
        assert_holds(cache, [each for each in samples if each.file_name not in cache.undecodable])
        assert len(decoded) == 12
    write_noise(samples[5].path, 5)
    cache = prepare(samples, SIDE, cache_dir)
    assert sorted(cache.undecodable) == ["00.png", "11.png"]
    assert_holds(cache, samples[1:11])


def test_a_source_without_images_has_an_empty_cache(cache_dir: Path) -> None:
    cache = prepare([], SIDE, cache_dir)
    assert cache.gather(np.array([], np.int64)).shape == (0, SIDE, SIDE)
    assert not cache_dir.exists()


def test_rows_come_in_any_order_and_repeatedly(samples: list[Sample], cache_dir: Path) -> None:
    cache = prepare(samples, SIDE, cache_dir)
    rows = np.array([11, 0, 0, 7, 3, 11])
    batch = cache.gather(rows)
    assert (batch.shape, batch.dtype) == ((6, SIDE, SIDE), np.uint8)
    np.testing.assert_array_equal(batch, expected(samples)[rows])
    with pytest.raises(IndexError):
        cache.gather(np.array([12]))


def test_joined_sources_keep_the_order_asked_for(samples: list[Sample], cache_dir: Path) -> None:
    parts = (samples[:5], [], samples[5:6], samples[6:])
    joined = Joined([prepare(part, SIDE, cache_dir) for part in parts])
    rows = np.random.default_rng(0).integers(0, 12, 40)
    np.testing.assert_array_equal(joined.gather(rows), expected(samples)[rows])
    assert joined.gather(np.array([], np.int64)).shape == (0, SIDE, SIDE)
    with pytest.raises(IndexError):
        joined.gather(np.array([12]))


@pytest.mark.parametrize("damage", ["no pixels", "short pixels", "short thumbnails", "half an index"])
def test_a_damaged_cache_says_which_folder_to_delete(
    samples: list[Sample], cache_dir: Path, damage: str
) -> None:
    folder = prepare(samples, SIDE, cache_dir).folder
    what = damage.split()[-1]
    name = {"pixels": pixels.PIXELS_NAME, "thumbnails": pixels.THUMBNAILS_NAME, "index": pixels.INDEX_NAME}[
        what
    ]
    if damage.startswith("no"):
        (folder / name).unlink()
    else:
        os.truncate(folder / name, 40)
    with pytest.raises(
        DataError, match=f"{folder} is damaged .*; delete this folder, and it will be rebuilt"
    ):
        prepare(samples, SIDE, cache_dir)


def test_a_cache_of_somebody_else_is_not_called_damaged(
    samples: list[Sample], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)  # not chmod: root reads everything
    with pytest.raises(DataError, match=r"cannot be read: Permission denied\. Choose another --cache-dir"):
        prepare(samples, SIDE, cache_dir)
    with pytest.raises(DataError, match=r"cannot be read: Permission denied\. Choose another --cache-dir"):
        find_duplicates(np.zeros((2, 64, 64), np.uint8), cache_dir)


@pytest.mark.parametrize(
    "index",
    [
        "[]",
        "{}",
        '{"rows": 1, "files": [["a", 1, 2, 1]]}',
        '{"rows": 0, "files": [["a"]]}',
        '{"rows": 99, "files": []}',
    ],
)
def test_an_index_of_another_content_is_damage(samples: list[Sample], cache_dir: Path, index: str) -> None:
    folder = prepare(samples, SIDE, cache_dir).folder
    (folder / pixels.INDEX_NAME).write_text(index)
    with pytest.raises(DataError, match="delete this folder, and it will be rebuilt"):
        prepare(samples, SIDE, cache_dir)


def test_pixels_that_vanish_under_an_open_cache_are_an_error(samples: list[Sample], cache_dir: Path) -> None:
    cache = prepare(samples, SIDE, cache_dir)
    os.truncate(cache.folder / pixels.PIXELS_NAME, 40)
    with pytest.raises(DataError, match=r"ends before row 3\); delete this folder"):
        cache.gather(np.array([3]))


def test_an_interrupted_run_is_continued(
    samples: list[Sample], cache_dir: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    monkeypatch.setattr(pixels, "_CHUNK", 4)
    watched = pixels._decode

    def interrupted(path: Path, side: int) -> tuple[np.ndarray, np.ndarray] | ImageError:
        if path.name == "06.png":
            raise KeyboardInterrupt
        return watched(path, side)

    monkeypatch.setattr(pixels, "_decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(samples, SIDE, cache_dir)
    monkeypatch.setattr(pixels, "_decode", watched)
    decoded.clear()
    assert_holds(prepare(samples, SIDE, cache_dir), samples)
    assert sorted(decoded) == [f"{number:02}.png" for number in range(4, 12)]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        yield


def test_a_full_disk_leaves_the_old_cache_usable(
    samples: list[Sample], cache_dir: Path, request: pytest.FixtureRequest
) -> None:
    prepare(samples[:8], SIDE, cache_dir)
    request.getfixturevalue("full_disk")
    with pytest.raises(OutputError, match="No space left on device"):
        prepare(samples, SIDE, cache_dir)
    assert_holds(prepare(samples[:8], SIDE, cache_dir), samples[:8])


def test_a_cache_that_cannot_be_written_is_an_output_error(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*: Not a directory"):
        prepare(samples, SIDE, tmp_path / "file" / "cache")


def test_a_file_that_cannot_be_opened_is_named(samples: list[Sample], cache_dir: Path) -> None:
    samples[2].path.unlink()
    with pytest.raises(DataError, match=r"02\.png cannot be opened: No such file"):
        prepare(samples, SIDE, cache_dir)


# Decodes with 4 images an update, slowly; writes the name of each file that it decodes on a line of stdout.
CHILD = """
import sys, time
from pathlib import Path
from xray_hf.data import cache as pixels
from xray_hf.data.sample import Sample

decode = pixels._decode

def slow(path, side):
    print(path.name + "\\n", end="", flush=True)  # in one piece: threads write at once
    time.sleep(float(sys.argv[3]))
    return decode(path, side)

pixels._decode, pixels._CHUNK = slow, 4
paths = sorted(Path(sys.argv[1]).iterdir())
pixels.prepare([Sample(path.name, path, "clinic", (), path.stem) for path in paths], 32, Path(sys.argv[2]))
"""


def child(samples: list[Sample], cache_dir: Path, pause: float) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", CHILD, str(samples[0].path.parent), str(cache_dir), str(pause)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 5, 10])
def test_a_killed_process_leaves_no_wrong_pixels(samples: list[Sample], cache_dir: Path, after: int) -> None:
    with child(samples, cache_dir, 0.1) as process:
        assert process.stdout
        for _ in range(after):
            process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert_holds(prepare(samples, SIDE, cache_dir), samples)


def test_rows_that_a_killed_process_wrote_without_naming_them_are_written_over(
    samples: list[Sample], cache_dir: Path
) -> None:
    folder = prepare(samples[:4], SIDE, cache_dir).folder
    for name in (pixels.PIXELS_NAME, pixels.THUMBNAILS_NAME):
        with (folder / name).open("ab") as stream:
            stream.write(b"x" * 1500)
    assert_holds(prepare(samples[:4], SIDE, cache_dir), samples[:4])
    assert_holds(prepare(samples, SIDE, cache_dir), samples)


def test_two_processes_at_once_decode_each_file_once(samples: list[Sample], cache_dir: Path) -> None:
    processes = [child(samples, cache_dir, 0.05) for _ in range(2)]
    names = [name for process in processes for name in process.communicate(timeout=120)[0].split()]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(names) == [each.file_name for each in samples]
    assert_holds(prepare(samples, SIDE, cache_dir), samples)


def test_the_folder_is_named_by_the_environment_or_the_home(
    monkeypatch: pytest.MonkeyPatch, pixel_cache: Path
) -> None:
    assert default_cache_dir() == pixel_cache
    monkeypatch.delenv("XRAY_HF_CACHE")
    assert default_cache_dir() == Path.home() / ".cache" / "xray_hf"


def test_near_duplicates_are_searched_once(
    samples: list[Sample], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thumbnails = prepare([*samples, samples[3]], SIDE, cache_dir).thumbnails
    assert find_duplicates(thumbnails, cache_dir) == [(3, 12)]
    monkeypatch.setattr(groups, "near_duplicates", lambda _: pytest.fail("searched again"))
    assert find_duplicates(thumbnails, cache_dir) == [(3, 12)]
    remembered = next(cache_dir.glob("duplicates-*.json"))
    remembered.write_text(json.dumps([1]))
    with pytest.raises(DataError, match="delete this file, and it will be rebuilt"):
        find_duplicates(thumbnails, cache_dir)
