"""`xray-hf predict`: every image gives its row, in order and once, however often the run is killed."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT
from PIL import Image
from pyarrow import parquet
from running import training_python, two_processes

from xray_hf import cli, manifest
from xray_hf.calibration.calibration import Calibration
from xray_hf.data.synthetic import sample_images
from xray_hf.errors import ConfigError, DataError, ImageError, OutputError, exit_on_error
from xray_hf.files import write_json
from xray_hf.inference import Engine, bulk, inputs, overlay, tables
from xray_hf.inference.inputs import Files, Inputs
from xray_hf.reading import read_grey
from xray_hf.task import PAPER_CLASSES, REJECTED

ACCELERATE = "accelerate.commands.launch --multi_gpu --num_processes 2"  # which needs no GPU
TORCHRUN = "torch.distributed.run --standalone --nproc_per_node 2"
PIECE = 4  # rows; also images in one call
IMAGES, BAD = 18, "07-bad.png"
# Slow enough for a signal to come in the middle; as a file, for launchers to start.
PROGRAM = f"""
import os, sys, time
from xray_hf import cli
from xray_hf.inference import bulk
row, bulk.PIECE = bulk.to_row, {PIECE}
def slow(*arguments):
    rank = os.environ.get("RANK", "0")
    sys.stderr.write("row of " + rank + "\\n")
    sys.stderr.flush()
    time.sleep(0.05)
    assert rank != os.environ.get("FAIL")
    return row(*arguments)
bulk.to_row = slow
if __name__ == "__main__":
    cli.console()
"""


@pytest.fixture(scope="module")
def folder(cnn_bundle: Path) -> Path:
    return cnn_bundle


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of X-rays, one of them not readable, in two folders, and files that are not images."""
    scans = tmp_path_factory.mktemp("input") / "scans"
    (scans / "sub").mkdir(parents=True)
    for number, (_, image) in enumerate(sample_images(IMAGES // 3, seed=1)):
        image.save(scans / ("sub" if number >= 12 else ".") / f"{number:02d}.png")
    (scans / "07.png").rename(scans / BAD)
    (scans / BAD).write_bytes(b"not an image")
    (scans / "labels.csv").write_text("a,b\n")
    (scans / "DICOMDIR").write_bytes(b"DICM")
    (scans / ".hidden.png").write_bytes(b"")
    (scans / ".git").mkdir()
    (scans / ".git" / "x.png").write_bytes(b"")
    return scans


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PIECE", PIECE)


@pytest.fixture(scope="module")
def whole(folder: Path, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of a run that nobody interrupted."""
    out = tmp_path_factory.mktemp("whole") / "results.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "PIECE", PIECE)
        predict(folder, scans, out)
    return out


def predict(folder: Path, scans: Path | str, out: Path, **options: Any) -> bulk.Summary | None:
    return bulk.predict_in_bulk(folder, inputs.find([str(scans)]), out, batch_size=4, **options)


def command(*arguments: object) -> list[str]:
    return ["predict", *map(str, arguments), "--batch-size", "4"]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stop_after(rows: int, patch: pytest.MonkeyPatch, kind: type[BaseException] = KeyboardInterrupt) -> None:
    """Have a run break off when it makes the row after these."""
    made, original = iter(range(rows)), bulk.to_row

    def row(*arguments: Any) -> bulk.Row:
        if next(made, None) is None:
            raise kind
        return original(*arguments)

    patch.setattr(bulk, "to_row", row)


# --- the table


@pytest.mark.slow
def test_every_image_has_its_row_in_the_order_of_the_inputs(whole: Path, folder: Path, scans: Path) -> None:
    rows = parquet.read_table(whole).to_pylist()
    assert [Path(row["source"]).name for row in rows] == sorted(
        path.name for path in scans.rglob("*.png") if ".git" not in path.parts and path.name[0] != "."
    )
    expected = Engine.from_pretrained(folder).stream([row["source"] for row in rows], batch_size=4)
    for row, found in zip(rows, expected, strict=True):
        if isinstance(found, ImageError):
            continue
        assert [row[f"probability_{label}"] for label in PAPER_CLASSES] == list(found.probabilities.values())
        assert (row["label"], row["decision"], row["reason"]) == (found.label, found.decision, found.reason)
        assert row["error"] is None


def test_a_file_that_cannot_be_read_is_a_row_with_its_error(whole: Path) -> None:
    [row] = [row for row in parquet.read_table(whole).to_pylist() if row["error"]]
    assert f"{BAD} is not a readable image" in row.pop("error")
    assert row.pop("source").endswith(BAD)
    assert set(row.values()) == {None}


def test_all_formats_say_the_same(whole: Path, folder: Path, scans: Path, tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl"):
        predict(folder, scans, tmp_path / f"results.{suffix}")
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    table = parquet.read_table(whole)
    assert pa.Table.from_pylist([json.loads(line) for line in lines], table.schema) == table
    with (tmp_path / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == table.column_names
    for row, expected in zip(rows, table.to_pylist(), strict=True):
        numbers = {name: value for name, value in expected.items() if isinstance(value, float)}
        assert {name: np.float32(row[name]) for name in numbers} == numbers
        texts = {name: value or "" for name, value in expected.items() if name not in numbers}
        assert {name: row[name] for name in texts} == texts


def test_the_columns_are_those_that_are_documented(whole: Path) -> None:
    assert parquet.read_table(whole).column_names == [
        *("source", "label", "decision", "reason"),
        *(f"probability_{label}" for label in PAPER_CLASSES),
        *("ood_score", "heat_in_lungs", "warnings", "error"),
    ]
    page = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [
        *("source", "label", "decision", "reason", "probability_CLASS"),
        *("ood_score", "heat_in_lungs", "warnings", "error"),
    ]


def test_a_run_is_summed_up(
    folder: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(command(folder, scans, "--out", tmp_path / "results.csv"))
    said = capsys.readouterr().out
    assert said.startswith("SYNTHETIC patients: ")
    assert f"{IMAGES}  images" in said
    assert "1  without an answer" in said
    assert "skipped because they are not images: 1 .csv, 1 dicomdir, 2 hidden" in said
    lacks = "it is never unsure, only rules reject OOD images"
    assert said.count(f"the model is not calibrated: {lacks}; `xray-hf calibrate` fits that") == 1
    assert re.search(rf"{IMAGES} images in [\d.]+ s, [\d.]+ images/s: .*results\.csv", said)
    assert files_in(tmp_path) == ["results.csv"]


def test_a_run_without_any_answer_fails_and_says_where_its_table_is(
    folder: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.csv"
    assert exit_on_error(lambda: cli.main(command(folder, scans / BAD, "--out", out))) == 1
    [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert error == f"error: no image got an answer; the column `error` of {out} says why."
    assert "is not a readable image" in out.read_text()


def test_a_calibrated_model_is_not_called_otherwise(folder: Path, scans: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(folder, tmp_path / "bundle"))
    write_json(own / manifest.CALIBRATION, {"fitted_on": {"n": 9}})
    summary = predict(own, scans / "00.png", tmp_path / "results.csv")
    assert summary is not None
    assert summary.lacks == "not fully calibrated: only rules reject OOD images"
    assert "xray-hf calibrate" not in str(replace(summary, lacks=""))


def test_names_that_are_no_text_are_written_all_the_same(folder: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b'\xff\n,".png')
    (tmp_path / name).write_bytes(b"")
    for suffix in ("parquet", "csv", "jsonl"):
        predict(folder, tmp_path / name, tmp_path / f"results.{suffix}")
    [row] = parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert row["source"].endswith('\\udcff\n,".png')
    assert "is empty" in row["error"]
    with (tmp_path / "results.csv").open(newline="") as stream:
        assert [each["source"] for each in csv.DictReader(stream)] == [row["source"]]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Stub:
        labels, manifest = PAPER_CLASSES, SimpleNamespace(folder=tmp_path, mark="")
        calibration = Calibration()

        def stream(self, sources: Iterable[str], _: int) -> Iterator[ImageError]:
            return (ImageError(f"{source} is bad") for source in sources)

    monkeypatch.setattr(bulk.Engine, "from_pretrained", lambda *_, **__: Stub())
    monkeypatch.setattr(bulk, "PIECE", 100)
    peaks = []
    for number, count in enumerate((1_000, 10_000, 10_000)):
        names = [f"{each}.png" for each in range(count)]
        given = Inputs((Files(names),), Counter())
        tracemalloc.start()
        bulk.predict_in_bulk(tmp_path, given, tmp_path / f"{number}.parquet")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Ten times the rows are 9 MB. Twice, since threads that other tests left may allocate meanwhile.
    assert min(peaks[1:]) < peaks[0] + 300_000


# --- stopped and gone on with


@pytest.mark.slow
def test_a_run_that_was_killed_again_and_again_gives_the_same_table(
    whole: Path, folder: Path, scans: Path, tmp_path: Path
) -> None:
    program, out = tmp_path / "program.py", tmp_path / "out" / "results.parquet"
    program.write_text(PROGRAM)
    arguments = [sys.executable, str(program), *command(folder, scans, "--out", out, "--resume")]
    dice, kills = random.Random(0), 0
    for _ in range(4):
        with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for _ in range(dice.randint(1, 7)):
                process.stderr.readline()
            try:
                process.wait(dice.uniform(0, 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
    assert kills >= 3
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.count("row") < IMAGES  # the killed runs were of use
    assert out.read_bytes() == whole.read_bytes()
    assert files_in(out.parent) == ["results.parquet"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_and_tells_how_to_go_on(
    whole: Path, folder: Path, scans: Path, tmp_path: Path, number: signal.Signals
) -> None:
    program, out = tmp_path / "program.py", tmp_path / "out" / "results.parquet"
    program.write_text(PROGRAM)
    arguments = [sys.executable, str(program), *command(folder, scans, "--out", out)]
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for _ in range(PIECE + 1):
            process.stderr.readline()
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == 128 + number
    assert "Traceback" not in rest
    assert rest.rstrip().endswith("--resume continues from there.")
    assert "000000.jsonl" in files_in(out.parent / ".results.parquet.pieces")
    predict(folder, scans, out, resume=True)
    assert out.read_bytes() == whole.read_bytes()


def launch(launcher: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    # `accelerate launch --cpu` starts one process only, whatever --num_processes says.
    words = [sys.executable, "-m", *launcher.split(), *map(str, arguments)]
    return subprocess.run(
        words,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", ["", *(pytest.param(each, marks=pytest.mark.exhaustive) for each in (ACCELERATE, TORCHRUN))]
)
def test_two_processes_share_what_one_has_left(
    whole: Path, folder: Path, scans: Path, tmp_path: Path, launcher: str
) -> None:
    program, out = tmp_path / "program.py", tmp_path / "out" / "results.parquet"
    program.write_text(PROGRAM)
    unfinished(folder, scans, out)
    assert files_in(out.parent / ".results.parquet.pieces") == ["000000.jsonl", "job.json"]

    words = command(folder, scans, "--out", out, "--resume")
    if launcher:
        runs = [launch(launcher, program, *words)]
    else:
        runs = two_processes(training_python(), PROGRAM, *map(str, words))
    said, errors = "".join(run.stdout for run in runs), "".join(run.stderr for run in runs)
    assert [run.returncode for run in runs] == [0] * len(runs), errors[-3000:]
    assert [errors.count(f"row of {rank}\n") for rank in (0, 1)] == [PIECE + 2, 2 * PIECE]
    assert said.count(" images/s: ") == 1
    assert f"{IMAGES - PIECE} images in" in said
    assert out.read_bytes() == whole.read_bytes()
    assert files_in(out.parent) == ["results.parquet"]


@pytest.mark.exhaustive
def test_two_processes_end_soon_when_one_fails(
    whole: Path, folder: Path, scans: Path, tmp_path: Path
) -> None:
    program, out = tmp_path / "program.py", tmp_path / "out" / "results.parquet"
    program.write_text(PROGRAM)
    words = command(folder, scans, "--out", out)
    started = time.monotonic()
    assert launch(TORCHRUN, program, *words, FAIL="1").returncode != 0
    assert time.monotonic() - started < 60
    assert not out.exists()
    predict(folder, scans, out, resume=True)
    assert out.read_bytes() == whole.read_bytes()


def test_processes_on_several_machines_are_refused(
    folder: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"one of 4 processes on several machines.*docs/clusters\.md"):
        predict(folder, scans, tmp_path / "results.csv")
    assert files_in(tmp_path) == []


def unfinished(folder: Path, scans: Path, out: Path, **options: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(PIECE, patch)
        with pytest.raises(KeyboardInterrupt):
            predict(folder, scans, out, **options)


def test_only_missing_rows_are_computed(
    folder: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results.csv"
    unfinished(folder, scans, out)
    stop_after(IMAGES - PIECE, monkeypatch)
    summary = predict(folder, scans, out, resume=True)
    assert summary is not None
    assert (summary.images, summary.computed) == (IMAGES, IMAGES - PIECE)
    assert summary.errors + summary.decisions.total() == IMAGES


def test_an_unfinished_run_is_not_begun_again_by_mistake(folder: Path, scans: Path, tmp_path: Path) -> None:
    unfinished(folder, scans, tmp_path / "results.csv")
    with pytest.raises(OutputError, match="holds an unfinished run; pass --resume to go on, or delete"):
        predict(folder, scans, tmp_path / "results.csv")


def change_a_file(folder: Path, scans: Path) -> None:
    os.utime(scans / "03.png", (0, 0))


def add_a_file(folder: Path, scans: Path) -> None:
    shutil.copy(scans / "03.png", scans / "99.png")


def calibrate(folder: Path, scans: Path) -> None:
    write_json(folder / manifest.CALIBRATION, {"temperature": 2.0})


@pytest.mark.parametrize(
    ("change", "said"),
    [(change_a_file, "inputs"), (add_a_file, "images 18, now 19; inputs"), (calibrate, "bundle")],
)
def test_pieces_of_another_job_are_not_gone_on_with(
    folder: Path, scans: Path, tmp_path: Path, change: Callable[[Path, Path], None], said: str
) -> None:
    own_bundle, own_scans = tmp_path / "bundle", tmp_path / "scans"
    shutil.copytree(folder, own_bundle)
    shutil.copytree(scans, own_scans)
    unfinished(own_bundle, own_scans, tmp_path / "results.csv")
    change(own_bundle, own_scans)
    with pytest.raises(OutputError, match=f"pieces of another job: {said} "):
        predict(own_bundle, own_scans, tmp_path / "results.csv", resume=True)


def test_a_finished_run_is_left_as_it_is(
    whole: Path, folder: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copy(whole, tmp_path))
    (tmp_path / ".results.parquet.pieces").mkdir()  # killed while it tidied up
    cli.main(command(folder, scans, "--out", out, "--resume"))
    assert "is finished already" in capsys.readouterr().out
    assert files_in(tmp_path) == ["results.parquet"]
    assert out.read_bytes() == whole.read_bytes()


def test_pieces_without_their_job_are_not_used(
    folder: Path, scans: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.parquet"
    unfinished(folder, scans, out)
    pieces = tmp_path / ".results.parquet.pieces"
    (pieces / tables.JOB).unlink()
    (pieces / "000001.jsonl").write_text("of a run that is over")
    predict(folder, scans, out)
    assert out.read_bytes() == whole.read_bytes()


# --- what is given


def names(given: Inputs) -> list[str]:
    return [item.source for item in given]


def test_a_folder_gives_all_below_it_but_companions_and_hidden_files(scans: Path) -> None:
    given = inputs.find([str(scans)])
    assert names(given) == sorted(names(given))
    assert given.count == len(names(given)) == IMAGES
    assert str(scans / "sub" / "17.png") in names(given)
    assert given.skipped == {".csv": 1, "dicomdir": 1, "hidden": 2}


def test_several_inputs_follow_one_another(scans: Path) -> None:
    given = inputs.find([str(scans / "sub"), str(scans / BAD), str(scans / "0[12].*")])
    assert [Path(name).name for name in names(given)] == [
        *(f"{number}.png" for number in range(12, 18)),
        BAD,
        *("01.png", "02.png"),
    ]


def test_a_pattern_reaches_below_folders(scans: Path) -> None:
    assert len(names(inputs.find([str(scans / "**" / "*")]))) == IMAGES


def test_a_link_to_nothing_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    given = inputs.find([str(tmp_path)])
    assert names(given) == [str(tmp_path / "gone.png")]
    assert given.skipped == {"pipe or device": 1}


def linked(tmp_path: Path) -> Path:
    """A folder with an image of its own, links to three others, circles, and the same folder twice."""
    root, outside = tmp_path / "scans", tmp_path / "elsewhere"
    for folder in (root / "own", outside / "deep"):
        folder.mkdir(parents=True)
        (folder / "x.png").touch()
    (outside / "y.png").touch()
    (root / "a link").symlink_to(outside)
    (root / "the same").symlink_to(outside / "deep")
    (root / "before own").symlink_to(root / "own")
    (root / "own" / "circle").symlink_to(root)
    (outside / "circle").symlink_to(outside)
    (root / "all").symlink_to(tmp_path)
    (root / "z.png").symlink_to(outside / "y.png")
    return root


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    root = linked(tmp_path)
    given = inputs.find([str(root)])
    assert [str(Path(name).relative_to(root)) for name in names(given)] == [
        *("a link/deep/x.png", "a link/y.png", "own/x.png", "z.png")
    ]
    assert given.skipped == {"link to a folder around it": 1}


def test_a_pattern_takes_each_file_once_though_links_go_in_circles(tmp_path: Path) -> None:
    root = linked(tmp_path)
    found = [Path(name).resolve() for name in names(inputs.find([str(root / "**" / "x.png")]))]
    assert sorted(found) == [tmp_path / "elsewhere" / "deep" / "x.png", root / "own" / "x.png"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**", ["a.png", "b/c.png", "b/d/c.jpg", "b/d/e.png"]),
        ("**/*.png", ["a.png", "b/c.png", "b/d/e.png"]),
        ("b/**/c.*", ["b/c.png", "b/d/c.jpg"]),
        ("**/d/*", ["b/d/c.jpg", "b/d/e.png"]),
        ("**/d/**/[a-d].*", ["b/d/c.jpg"]),
        ("*/*.png", ["b/c.png"]),
    ],
)
def test_a_pattern_finds_what_the_shell_would(pattern: str, found: list[str], tmp_path: Path) -> None:
    for name in ("a.png", "b/c.png", "b/d/c.jpg", "b/d/e.png", "b/.f/c.png", "b/labels.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names(inputs.find([str(tmp_path / pattern)])) == [str(tmp_path / name) for name in found]


def test_a_folder_without_images_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there are no files in .*\.$"):
        inputs.find([str(tmp_path)])
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "labels.xlsx"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"only 1 \.xlsx, 1 desktop\.ini, 1 hidden, 1 thumbs\.db\."):
        inputs.find([str(tmp_path)])


@pytest.mark.parametrize("folder", [".git", "__MACOSX", "@eaDir", "$RECYCLE.BIN"])
def test_what_systems_keep_in_folders_of_their_own_is_no_input(folder: str, tmp_path: Path) -> None:
    for path in (tmp_path / "x.png", tmp_path / folder / "x.png"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    given = inputs.find([str(tmp_path)])
    assert names(given) == [str(tmp_path / "x.png")]
    assert given.skipped == {"hidden": 1}


def test_a_rejected_image_has_neither_class_nor_probabilities(folder: Path, tmp_path: Path) -> None:
    Image.new("L", (300, 300), 128).save(tmp_path / "plain.png")
    predict(folder, tmp_path / "plain.png", tmp_path / "results.parquet")
    [row] = parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert (row["decision"], row["error"]) == (REJECTED, None)
    assert "almost uniform" in row["reason"]
    empty = {"label", "heat_in_lungs", *(f"probability_{label}" for label in PAPER_CLASSES)}
    assert {row[column] for column in empty} == {None}


def test_what_the_run_writes_is_no_input(scans: Path, folder: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(scans, tmp_path / "scans"))
    (own / "maps").mkdir()
    (own / "maps" / "map.png").write_bytes(b"")
    assert inputs.find([str(own)], besides=own / "maps").count == IMAGES


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((40, 40), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def write_table(path: Path, **columns: list[Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    parquet.write_table(pa.table(columns), path)


def test_a_folder_of_parquet_is_a_data_set(tmp_path: Path) -> None:
    data = tmp_path / "set"
    write_table(data / "b.parquet", image=[{"bytes": png(3), "path": None}, None])
    write_table(
        data / "a.parquet", image=[{"bytes": png(1), "path": "one.png"}, {"bytes": png(2), "path": None}]
    )
    (data / "README.md").write_text("# Data")
    given = inputs.find([str(data)])
    assert given.count == 4
    assert [(item.source, item.fetch()) for item in given] == [
        ("one.png", png(1)),
        (f"{data}#1", png(2)),
        (f"{data}#2", png(3)),
        (f"{data}#3", b""),  # the reader says that it is empty
    ]
    assert +given.skipped == {".md": 1}


def test_a_column_of_bytes_can_be_chosen(tmp_path: Path) -> None:
    write_table(tmp_path / "rows.parquet", scan=[png(1)], label=[0])
    given = inputs.find([str(tmp_path / "rows.parquet")], image_column="scan")
    assert [item.fetch() for item in given] == [png(1)]
    with pytest.raises(DataError, match="has no column image; found: scan, label"):
        inputs.find([str(tmp_path / "rows.parquet")])
    with pytest.raises(DataError, match="column label"):
        list(inputs.find([str(tmp_path / "rows.parquet")], image_column="label"))


OWN = "hf://datasets/owner/set@commit of v1/"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/hostname",
        "file:///etc/hostname",
        "http://127.0.0.1:9/x.png",
        "hf://datasets/owner/other@main/x.png",
        f"file:///etc/hostname::{OWN}x",
        f"http://127.0.0.1:9/x::{OWN}x",
        f"zip://x::file:///etc/hostname::{OWN}x",
        f"{OWN}../../other/x.png",
    ],
)
@pytest.mark.usefixtures("hub")
def test_rows_cannot_have_anything_else_opened(tmp_path: Path, path: str) -> None:
    write_table(tmp_path / "hub" / "a.parquet", image=[{"bytes": None, "path": path}])
    for given, split in (
        ("hf://datasets/owner/set@v1", "train"),
        (str(tmp_path / "hub" / "a.parquet"), None),
    ):
        [item] = inputs.find([given], split=split)
        assert item.source == path
        with pytest.raises(
            ImageError, match=f"^{re.escape(path)} is not opened; a row holds the bytes of its"
        ):
            item.fetch()


def test_a_row_that_names_a_file_has_the_reason_as_its_error(
    folder: Path, scans: Path, tmp_path: Path
) -> None:
    name = str(scans / "00.png")
    images = [{"bytes": Path(name).read_bytes(), "path": name}, {"bytes": None, "path": name}]
    write_table(tmp_path / "rows.parquet", image=images)
    predict(folder, tmp_path / "rows.parquet", tmp_path / "results.parquet", heatmaps=tmp_path / "maps")
    first, second = parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert first["error"] is None
    assert second["error"].startswith(f"{name} is not opened; a row holds the bytes of its image")


def test_parquet_without_rows_is_said_to_have_none(tmp_path: Path) -> None:
    write_table(tmp_path / "rows.parquet", image=[])
    with pytest.raises(DataError, match=r"rows\.parquet has no rows; expected one for each image"):
        inputs.find([str(tmp_path / "rows.parquet")])


@pytest.mark.usefixtures("hub")
def test_rows_may_name_files_of_their_repository(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    there, gone = f"zip://00.png::{OWN}images.zip", f"{OWN}gone.png"

    def open_it(url: str, mode: str) -> Any:
        if url != there:
            raise FileNotFoundError(url)
        return (scans / "00.png").open(mode)

    monkeypatch.setattr(fsspec, "open", open_it)
    write_table(tmp_path / "hub" / "a.parquet", image=[{"bytes": None, "path": url} for url in (there, gone)])
    found = [item.fetch() for item in inputs.find(["hf://datasets/owner/set@v1"], split="train")]
    assert found == [(scans / "00.png").read_bytes(), gone]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Hub whose one data set has the splits train and test, and no network."""
    import datasets
    import huggingface_hub

    write_table(tmp_path / "hub" / "a.parquet", image=[{"bytes": png(1), "path": "one.png"}])
    original = datasets.load_dataset

    def load_dataset(name: str, **options: Any) -> Any:
        if name == "parquet":
            return original(name, **options)
        assert (name, options) == ("owner/set", {"revision": "commit of v1", "streaming": True})
        files = [str(tmp_path / "hub" / "a.parquet")]
        return original("parquet", data_files={"train": files, "test": files}, streaming=True)

    def dataset_info(_: Any, name: str, *, revision: str | None) -> Any:
        if name != "owner/set":
            raise OSError("404")
        return SimpleNamespace(sha=f"commit of {revision}")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)


@pytest.mark.usefixtures("hub")
def test_a_data_set_of_the_hub_is_streamed_at_one_commit() -> None:
    given = inputs.find(["hf://datasets/owner/set@v1"], split="test")
    assert [(item.source, item.fetch()) for item in given] == [("one.png", png(1))]
    assert given.fingerprint() != inputs.find(["hf://datasets/owner/set@v1"], split="train").fingerprint()


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("name", "split", "said"),
    [
        ("owner/set@v1", None, "choose a --split; the data set owner/set has train, test"),
        ("owner/set@v1", "dev", "there is no split dev; the data set owner/set has train, test"),
        ("owner/other", None, "the data set owner/other cannot be fetched from the Hub: 404"),
        ("owner/set/x y", None, "is not a data set; expected hf://datasets/owner/name"),
    ],
)
def test_what_is_wrong_with_a_data_set_is_said(name: str, split: str | None, said: str) -> None:
    with pytest.raises(DataError, match=said):
        inputs.find([f"hf://datasets/{name}"], split=split)


def test_rows_of_parquet_are_classified_by_the_same_reader(
    whole: Path, folder: Path, scans: Path, tmp_path: Path
) -> None:
    files = names(inputs.find([str(scans)]))
    images = [{"bytes": Path(name).read_bytes(), "path": name} for name in files]
    write_table(tmp_path / "rows.parquet", image=images)
    predict(folder, tmp_path / "rows.parquet", tmp_path / "results.parquet")
    columns = parquet.read_table(whole).column_names[:-1]  # bytes have no name to be called by
    assert parquet.read_table(tmp_path / "results.parquet", columns=columns) == parquet.read_table(
        whole, columns=columns
    )


# --- refused before any work


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["BUNDLE", "SCANS", "--out", "TMP/results.xlsx"], "expected a name that ends in .parquet, .csv", 2),
        (["BUNDLE", "SCANS", "--out", "TMP/old.csv"], "old.csv exists and is not overwritten", 1),
        (["BUNDLE", "TMP/none.png", "--out", "TMP/results.csv"], "none.png does not exist", 1),
        (["BUNDLE", "TMP/*.tif", "--out", "TMP/results.csv"], "there are no files in", 1),
        (["BUNDLE", "TMP", "--out", "TMP/results.csv"], "there are no images in", 1),
        (
            ["BUNDLE", "TMP/old.csv", "--out", "TMP/results.csv"],
            "old.csv is not an image; expected an image, a",
            1,
        ),
        (
            ["BUNDLE", "SCANS", "--out", "TMP/results.csv", "--split", "test"],
            "--split applies to data sets",
            2,
        ),
        (
            ["BUNDLE", "SCANS", "--out", "TMP/results.csv", "--image-column", "x"],
            "--image-column applies to Parq",
            2,
        ),
        (
            ["BUNDLE", "SCANS", "--out", "TMP/results.csv", "--cams", "TMP/old.csv/maps"],
            "cannot write",
            1,
        ),
        (
            ["BUNDLE", "SCANS", "--out", "TMP/old.csv/results.csv", "--cams", "TMP/maps"],
            "cannot write",
            1,
        ),
        (["BUNDLE", "TMP/bad/", "--out", "TMP/results.csv"], "bad/ cannot be read as Parquet", 1),
        (["TMP/no-bundle", "SCANS", "--out", "TMP/results.csv"], "no-bundle is neither a folder nor", 1),
        (["BUNDLE", "SCANS", "--out", "TMP/results.csv", "--backend", "x"], "there is no backend 'x'", 2),
        (["BUNDLE", "SCANS", "--out", "TMP/results.csv", "--cams", "SCANS"], "not an empty folder", 1),
        (["BUNDLE", "SCANS", "--out", "TMP/results.csv", "--batch-size", "0"], "--batch-size is 0", 2),
        (["BUNDLE", "SCANS", "--out", "TMP/old.csv/results.csv"], "cannot write", 1),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    folder: Path,
    scans: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
    code: int,
) -> None:
    (tmp_path / "old.csv").write_text("mine")
    if "bad" in arguments[1]:
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "a.parquet").write_bytes(b"not Parquet")
    before = files_in(tmp_path)
    places = {"BUNDLE": folder, "SCANS": scans, "TMP": tmp_path}
    words = [re.sub("BUNDLE|SCANS|TMP", lambda found: str(places[found[0]]), word) for word in arguments]
    assert exit_on_error(lambda: cli.main(["predict", *words])) == code
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert files_in(tmp_path) == before


def test_a_graph_without_heatmaps_is_refused(
    folder: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "has_heatmaps", False, raising=False)
    monkeypatch.setattr(Engine, "_require_answer", lambda _: None)
    with pytest.raises(ConfigError, match="gives no class activation maps; leave --cams out"):
        predict(folder, scans, tmp_path / "results.csv", heatmaps=tmp_path / "maps")
    assert files_in(tmp_path) == []


# --- heatmaps


def test_every_answer_has_its_picture(folder: Path, scans: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    predict(folder, scans, tmp_path / "results.parquet", heatmaps=maps)
    rows = parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert files_in(maps) == [
        f"{number:07d}-{Path(row['source']).stem}.png"
        for number, row in enumerate(rows)
        if row["error"] is None and row["decision"] != REJECTED
    ]
    assert len(files_in(maps)) == IMAGES - 1
    with Image.open(maps / "0000000-00.png") as picture:
        assert picture.mode == "RGB"
        assert picture.size == read_grey(scans / "00.png").size


def test_a_finished_piece_has_its_pictures(folder: Path, scans: Path, tmp_path: Path) -> None:
    maps, out = tmp_path / "maps", tmp_path / "results.csv"
    unfinished(folder, scans, out, heatmaps=maps)
    assert set(files_in(maps)) >= {f"{number:07d}-{number:02d}.png" for number in range(PIECE)}
    predict(folder, scans, out, heatmaps=maps, resume=True)
    assert len(files_in(maps)) == IMAGES - 1


def test_what_is_rejected_has_no_picture(folder: Path, tmp_path: Path) -> None:
    Image.new("L", (300, 300), 128).save(tmp_path / "plain.png")
    summary = predict(folder, tmp_path / "plain.png", tmp_path / "results.csv", heatmaps=tmp_path / "maps")
    assert summary is not None
    assert summary.decisions == {REJECTED: 1}
    assert str(summary).count("1 image in ") == 1
    assert files_in(tmp_path / "maps") == []


def test_a_picture_stays_in_its_folder_whatever_the_source_is_called(folder: Path, tmp_path: Path) -> None:
    [(_, image), *_] = sample_images(1, seed=2)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    sources = ["../../up.png", "/etc/x y\n.png", "..", "é" * 300]
    write_table(tmp_path / "rows.parquet", image=[{"bytes": stream.getvalue(), "path": s} for s in sources])
    predict(folder, tmp_path / "rows.parquet", tmp_path / "results.csv", heatmaps=tmp_path / "maps")
    assert files_in(tmp_path) == ["maps", "results.csv", "rows.parquet"]
    assert files_in(tmp_path / "maps") == [
        *("0000000-up.png", "0000001-x_y_.png", "0000002-...png", f"0000003-{'é' * 40}.png"),
    ]


def test_only_what_speaks_for_the_class_is_coloured() -> None:
    grey = Image.fromarray(np.full((600, 1200), 100, np.uint8))
    heatmap = np.full((7, 7), -1, np.float32)
    heatmap[3, 6] = 5
    picture = np.asarray(overlay.overlay(grey, heatmap, overlay.top_of_scale([heatmap]))).astype(int)
    assert picture.shape == (256, 512, 3)
    assert (picture[:, :256] == 100).all()
    red, green, blue = picture[128, 475]
    assert red > green > blue


def test_weak_evidence_stays_pale() -> None:
    grey, spot = Image.fromarray(np.full((64, 64), 100, np.uint8)), np.zeros((7, 7), np.float32)
    spot[3, 3] = 1
    maps = [spot * peak for peak in (0.1, 9)]
    shown = [overlay.overlay(grey, each, overlay.top_of_scale([each])) for each in maps]
    change = [np.abs(np.asarray(each).astype(int) - 100).max() for each in shown]
    assert change[0] < 0.2 * change[1]


# --- what is shown and imported


@pytest.mark.slow
def test_torch_shows_no_bar_of_its_loading(folder: Path, scans: Path, tmp_path: Path) -> None:
    words = command(folder, scans / "00.png", "--out", tmp_path / "results.csv", "--backend", "torch")
    code = "from xray_hf import cli; cli.main()"
    done = training_python().run(code, *map(str, words), environment={}, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "Loading" not in done.stderr


def test_files_on_onnx_runtime_need_neither_torch_nor_transformers_nor_datasets(
    folder: Path, scans: Path, tmp_path: Path
) -> None:
    words = command(folder, scans, "--out", tmp_path / "results.csv")
    code = f"import sys; from xray_hf import cli; cli.main({words!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "datasets", "accelerate", "matplotlib", "pyarrow", "huggingface_hub"}
    assert not heavy & set(done.stderr.split())
