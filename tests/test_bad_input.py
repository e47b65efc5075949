"""What the commands do with bad input: one line that says what came and what to do, and an exit code.

Commands run in this process, where an exception that is not turned into that line fails the test.
"""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from runpy import run_path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from conftest import ROOT
from opening import open_coronahack, samples_of
from PIL import Image
from running import run_training

from xray_hf import bundle, cli
from xray_hf.data.cache import INDEX_NAME
from xray_hf.data.sources.coronahack import CSV_NAME
from xray_hf.data.synthetic import sample_images
from xray_hf.errors import exit_on_error
from xray_hf.files import atomic_folder
from xray_hf.models import create_model
from xray_hf.training import checkpoints

TRAINING = ("--model", "xray-cnn", "--no-pretrained", "--epochs", "1", "--batch-size", "8")

Said = Callable[..., str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a command that must fail and return its `error:` line."""

    def run(command: str, *arguments: object, code: int = 1) -> str:
        found = exit_on_error(lambda: cli.main([command, *map(str, arguments)]))
        return the_error(found, capsys.readouterr().err, code)

    return run


def the_error(found: int, stderr: str, code: int = 1) -> str:
    """The last line of stderr, which must be the only one that begins with `error:`."""
    assert found == code
    assert "Traceback" not in stderr
    lines = stderr.rstrip().splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    return lines[-1]


@pytest.fixture
def data(synthetic: Path, tmp_path: Path) -> Path:
    """A copy of the synthetic data set, to be damaged."""
    return Path(shutil.copytree(synthetic, tmp_path / "set"))


@pytest.fixture(scope="module")
def finished_run(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has ended well; tests leave it as it is."""
    out = tmp_path_factory.mktemp("runs") / "cnn"
    run_training("--data-dir", synthetic, "--out", out, *TRAINING, draws=False)
    return out


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def change_csv(folder: Path, column: str, change: Callable[[str], str] | None) -> None:
    """Change a column of the CSV, or take it out."""
    with (folder / CSV_NAME).open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        value = row.pop(column)
        if change is not None:
            row[column] = change(value)
    with (folder / CSV_NAME).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def first_image(folder: Path) -> Path:
    return samples_of(folder)[0].path


# --- the data set


def gone(folder: Path) -> None:
    shutil.rmtree(folder)


def another_folder(folder: Path) -> None:
    gone(folder)
    folder.mkdir()


def without_column(folder: Path) -> None:
    change_csv(folder, "Dataset_type", None)


def other_labels(folder: Path) -> None:
    change_csv(folder, "Label", lambda _: "Tuberculosis")
    change_csv(folder, "Label_2_Virus_category", lambda _: "")


def half_the_files(folder: Path) -> None:
    for sample in samples_of(folder)[::2]:
        sample.path.unlink()


def truncated_jpeg(folder: Path) -> None:
    path = first_image(folder)
    path.write_bytes(path.read_bytes()[:2000])


def text_file(folder: Path) -> None:
    first_image(folder).write_text("not an image")


def one_pixel(folder: Path) -> None:
    Image.new("L", (1, 1)).save(first_image(folder))


def only_test(folder: Path) -> None:
    rows = (folder / CSV_NAME).read_text().splitlines()
    (folder / CSV_NAME).write_text("\n".join(row for row in rows if ",TRAIN," not in row))


UNDECODABLE = ("1 has an image that cannot be decoded (first: SYNTHETIC-IM-0001-0001.jpeg", "--drop-bad")
DAMAGES: dict[Callable[[Path], None], tuple[str, ...]] = {
    gone: ("set is not a folder", "xray-hf download --out DIR"),
    another_folder: (f"set holds no {CSV_NAME}", "xray-hf download --out DIR"),
    without_column: ("has no column Dataset_type; found: , X_ray_image_name, Label",),
    half_the_files: ("31 have no image file (first: SYNTHETIC-IM-0001-0001.jpeg", "--drop-bad"),
    truncated_jpeg: UNDECODABLE,
    text_file: UNDECODABLE,
    one_pixel: UNDECODABLE,
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_wrong_with_the_data_is_said(said: Said, data: Path, damage: Callable[[Path], None]) -> None:
    damage(data)
    for line in (
        said("prepare", "--data-dir", data, "--side", 32),
        said("train", "--data-dir", data, "--out", data.parent / "run", *TRAINING),
    ):
        for part in DAMAGES[damage]:
            assert part in line
    assert not (data.parent / "run").exists()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(truncated_jpeg, "damaged"), (text_file, "is not a readable image"), (one_pixel, "is 1×1 pixels")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_why_an_image_cannot_be_decoded_is_said(
    said: Said, data: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(data)
    assert reason in said("prepare", "--data-dir", data, "--side", 32)


def test_a_set_without_train_is_refused(said: Said, data: Path) -> None:
    only_test(data)
    line = said("splits", "--data-dir", data, "--side", 32)
    assert "too small or lacks one of TRAIN and TEST" in line


def test_the_papers_protocol_wants_all_three_classes(said: Said, data: Path) -> None:
    only_test(data)  # it has no COVID-19
    line = said("splits", "--data-dir", data, "--side", 32, "--protocol", "paper", code=2)
    assert "protocol paper is CoronaHack's, with its classes Normal, Pneumonia, COVID-19" in line


def test_a_set_whose_findings_are_no_class_is_refused(said: Said, data: Path) -> None:
    other_labels(data)
    line = said("splits", "--data-dir", data, "--side", 32, code=2)
    assert "there is one class only (none); expected two or more" in line


SOURCES: dict[str, tuple[list[str], str, int]] = {
    "a source twice": (
        ["--source", "folder:one={one}", "--source", "folder:one={two}"],
        "2 sources are called 'one'; give each its own name",
        2,
    ),
    "an unknown source": (["--source", "mimic={one}"], "is of an unknown kind 'mimic'; expected KIND", 2),
    "no labels": (["--source", "folder={bare}"], "one subfolder per class", 1),
    "a class that no image has": (
        ["--source", "folder={one}", "--classes", "Normal,Asthma"],
        "no image has the class Asthma; the sources have Normal",
        2,
    ),
    "one class": (["--source", "folder={one}", "--classes", "Normal"], "there is one class only (Normal)", 2),
    "a held-out source that is none": (
        ["--source", "folder={one}", "--hold-out", "elsewhere"],
        "--hold-out elsewhere",
        2,
    ),
    "two sources with the same file": (
        ["--source", "folder:one={one}", "--source", "folder:two={one}"],
        "0.png is in the sources one and two; leave one of them out",
        1,
    ),
    "a table of another collection": (
        ["--source", "nih={one}"],
        "It has the layout of folder: pass --source folder=",
        1,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SOURCES)
def test_what_is_wrong_with_the_sources_is_said_before_anything_is_written(
    said: Said, tmp_path: Path, case: str
) -> None:
    for name, seed in (("one", 1), ("two", 2), ("bare", 3)):
        (tmp_path / name).mkdir()
        rows = ["file_name,label"]
        for number, (label, image) in enumerate(sample_images(2, seed=seed)):
            image.save(tmp_path / name / f"{number}.png")
            rows.append(f"{number}.png,{label}")
        if name != "bare":
            (tmp_path / name / "labels.csv").write_text("\n".join(rows))
    options, words, code = SOURCES[case]
    named = [each.format(**{name: tmp_path / name for name in ("one", "two", "bare")}) for each in options]
    for command in (["splits", "--side", "32"], ["train", "--out", tmp_path / "run", *TRAINING]):
        assert words in said(*command, *named, code=code)
    assert not (tmp_path / "run").exists()


def test_with_drop_bad_the_rest_is_used(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half_the_files(data)
    text_file(data)
    cli.main(["splits", "--data-dir", str(data), "--side", "32", "--drop-bad", "--protocol", "paper"])
    report = capsys.readouterr().out
    assert "rows without file         31   first: SYNTHETIC-" in report
    assert "undecodable files         1   first: SYNTHETIC-" in report


def as_16_bit(path: Path) -> None:
    grey = np.asarray(Image.open(path)).astype(np.uint16)
    Image.fromarray(grey * 257).save(path, "PNG")


def as_cmyk(path: Path) -> None:
    Image.open(path).convert("RGB").convert("CMYK").save(path, "JPEG", quality=95)


@pytest.mark.parametrize("convert", [as_16_bit, as_cmyk], ids=["16-bit PNG", "CMYK JPEG"])
def test_odd_images_are_used_as_what_they_show(data: Path, convert: Callable[[Path], None]) -> None:
    before = open_coronahack(data, 64)
    convert(first_image(data))
    after = open_coronahack(data, 64)
    assert after.reports[0].undecodable_files == []
    rows = np.arange(len(before.samples))
    assert np.abs(after.pixels.gather(rows).astype(int) - before.pixels.gather(rows)).max() < 12


# --- options and models


@pytest.mark.parametrize(
    ("command", "arguments", "part"),
    [
        ("train", ["--epochs", "0"], "'--epochs': 0 is not in the range x>=1."),
        ("train", ["--epochs", "three"], "three"),
        ("train", ["--epoch", "3"], "--epoch"),
        ("train", ["--seed", "4294967296"], "'--seed': 4294967296 is not in the range"),
        ("splits", ["--protocol", "random"], "random"),
        ("splits", ["--seed", "-1"], "-1"),
        ("splits", ["--out", "/"], "/ is a folder; expected the name of the file to write"),
        ("splits", ["--side", "0"], "0"),
        ("splits", ["--side", "large"], "large"),
        ("prepare", ["--side", "100000"], "100000 is not in the range 1<=x<=2048"),
        ("check", ["BUNDLE", "--tolerance", "-1"], "-1.0 is not in the range x>=0"),
        ("check", ["BUNDLE", "--tolerance", "nan"], "nan is not a finite number"),
        ("atlas", ["--patients", "3", "--out", "somewhere"], "at least 30"),
        ("atlas", [], "--out"),
        ("split", [], "No such command 'split'. Did you mean 'splits'?"),
        ("splits", ["--hold-out", "nih"], "--hold-out nih is not one of the sources; expected coronahack"),
        ("splits", ["--source", "mnist=D"], "unknown kind 'mnist'"),
        ("splits", ["--classes", "Normal"], "there is one class only (Normal)"),
        ("prepare", [], "no source is given; pass --source KIND[:NAME]=PLACE"),
        ("evaluate", [], "Missing argument 'BUNDLE...'"),
        ("evaluate", ["BUNDLE", "--external"], "--external is now --source folder:NAME=DIR"),
        ("evaluate", ["BUNDLE", "--drop-bad"], "go with --source; without it no data are read"),
        ("evaluate", ["BUNDLE", "--name", ""], "--name belongs to the old --external"),
        (
            "push",
            ["BUNDLE", "--repo-id", "a/b", "--drop-bad"],
            "--drop-bad is for --kind dataset, not model",
        ),
    ],
)
def test_bad_options_have_exit_code_2(
    said: Said, synthetic: Path, command: str, arguments: list[str], part: str
) -> None:
    where = ["--data-dir", synthetic] if command in ("train", "splits") else []
    assert part in said(command, *where, *arguments, code=2)


def test_a_missing_data_dir_has_exit_code_2(said: Said) -> None:
    assert "xray-hf atlas --out data/synthetic" in said("train", code=2)


@pytest.mark.parametrize(
    ("model", "part"),
    [
        ("resnet18", "expected one of xray-resnet18, xray-cnn, timm:NAME"),
        ("timm:resnet19", "timm has no model 'resnet19'"),
    ],
)
def test_an_unknown_model_is_refused(
    said: Said, synthetic: Path, tmp_path: Path, model: str, part: str
) -> None:
    assert part in said("train", "--data-dir", synthetic, "--out", tmp_path / "run", "--model", model)


def test_weights_that_cannot_be_fetched_are_never_replaced_by_random_ones(
    said: Said, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    line = said("train", "--data-dir", synthetic, "--out", tmp_path / "run")
    assert "cannot fetch the ImageNet weights timm/resnet18.tv_in1k" in line
    assert "--no-pretrained" in line


# --- the run's folder


@pytest.mark.slow
def test_a_folder_that_holds_a_run_is_not_written_over(
    said: Said, synthetic: Path, finished_run: Path
) -> None:
    line = said("train", "--data-dir", synthetic, "--out", finished_run, *TRAINING)
    assert "already holds a run; pass --resume to go on, or choose another --out" in line


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--seed", "1"], "seed was 0 and is now 1"),
        (["--epochs", "2", "--ema", "0.9"], "ema was 0.995 and is now 0.9; epochs was 1 and is now 2"),
        (["--model", "timm:test_resnet"], "model was 'xray-cnn' and is now 'timm:test_resnet'"),
        (["--split-seed", "5"], "split_seed was 0 and is now 5"),
    ],
)
def test_a_run_is_not_resumed_with_another_configuration(
    said: Said, synthetic: Path, finished_run: Path, arguments: list[str], part: str
) -> None:
    line = said("train", "--data-dir", synthetic, "--out", finished_run, *TRAINING, "--resume", *arguments)
    assert part in line
    assert "Resume with the same options, or choose another --out" in line


def test_a_refused_resume_leaves_the_runs_configuration_as_it_was(
    said: Said, synthetic: Path, finished_run: Path
) -> None:
    said("train", "--data-dir", synthetic, "--out", finished_run, *TRAINING, "--resume", "--seed", "1")
    assert json.loads((finished_run / "config.json").read_text())["run"]["seed"] == 0


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None], ids=["empty", "text", "half"])
def test_a_damaged_checkpoint_is_refused(
    said: Said, synthetic: Path, finished_run: Path, tmp_path: Path, content: bytes | None
) -> None:
    whole = (finished_run / checkpoints.CHECKPOINT_NAME).read_bytes()
    damaged = whole[: len(whole) // 2] if content is None else content
    (tmp_path / checkpoints.CHECKPOINT_NAME).write_bytes(damaged)
    line = said("train", "--data-dir", synthetic, "--out", tmp_path, *TRAINING, "--resume")
    assert f"{checkpoints.CHECKPOINT_NAME} cannot be read" in line
    assert "remove it to start over" in line


# --- where results cannot be written

WRITERS: dict[str, Callable[[Path, Path], list[object]]] = {
    "prepare --cache-dir": lambda data, out: ["prepare", "--data-dir", data, "--cache-dir", out],
    "prepare --out": lambda data, out: ["prepare", "--data-dir", data, "--side", 32, "--out", out],
    "splits --out": lambda data, out: ["splits", "--data-dir", data, "--side", 32, "--out", out],
    "examine --out": lambda data, out: ["examine", "--data-dir", data, "--side", 32, "--out", out],
    "atlas --out": lambda data, out: ["atlas", "--patients", 30, "--out", out],
    "examples --out": lambda data, out: ["examples", "--out", out],
    "train --out": lambda data, out: ["train", "--data-dir", data, *TRAINING, "--out", out],
}


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small file system in memory; skips the test where that is not permitted."""
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("no `mount` on this machine")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting a file system is not permitted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_under_a_file_cannot_be_written(
    said: Said, synthetic: Path, tmp_path: Path, writer: str
) -> None:
    (tmp_path / "file").write_text("mine")
    line = said(*WRITERS[writer](synthetic, tmp_path / "file" / "out"))
    assert "cannot write" in line
    assert "Not a directory" in line or "File exists" in line
    assert files_in(tmp_path) == ["file"]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_read_only_disk_cannot_be_written(said: Said, synthetic: Path, tmp_path: Path, writer: str) -> None:
    with mounted(tmp_path / "disk", "ro,size=1m") as disk:
        line = said(*WRITERS[writer](synthetic, disk / "out"))
    assert "cannot write" in line
    assert "Read-only file system" in line


@pytest.mark.parametrize(
    "writer", [writer for writer in WRITERS if not writer.startswith(("train", "splits"))]
)
def test_a_full_disk_keeps_nothing_that_is_half_written(
    said: Said, synthetic: Path, tmp_path: Path, writer: str
) -> None:
    with mounted(tmp_path / "disk", "size=128k") as disk:
        line = said(*WRITERS[writer](synthetic, disk / "out"))
        left = [
            name for name in files_in(disk) if not name.endswith(("distribution.json", "distribution.md"))
        ]
    assert "No space left on device" in line
    assert "check the space" in line
    if writer == "prepare --cache-dir":  # rows that no index names are nobody's
        assert not [name for name in left if name.endswith(INDEX_NAME)]
        return
    # Of many files, those that were finished stay; they are whole.
    assert [name for name in left if Path(name).name.startswith(".") or not name.endswith(".png")] == []


@pytest.mark.slow
def test_a_training_on_a_full_disk_keeps_nothing_that_is_half_written(
    said: Said, synthetic: Path, tmp_path: Path
) -> None:
    with mounted(tmp_path / "disk", "size=1m") as disk:
        (disk / "filler").write_bytes(bytes(2**20 - 4096))  # leaves one page, which config.json takes
        line = said(*WRITERS["train --out"](synthetic, disk / "run"))
        assert files_in(disk / "run") == ["config.json"]
        assert json.loads((disk / "run" / "config.json").read_text())["model"]["model"] == "xray-cnn"
    assert "No space left on device" in line


def test_a_run_whose_bundle_does_not_fit_on_the_disk_can_go_on_elsewhere(
    said: Said, synthetic: Path, finished_run: Path, tmp_path: Path
) -> None:
    with mounted(tmp_path / "disk", "size=7m") as disk:
        for name in ("config.json", "log.jsonl", checkpoints.CHECKPOINT_NAME):
            shutil.copy(finished_run / name, disk)
        line = said("train", "--data-dir", synthetic, "--out", disk, *TRAINING, "--resume")
        assert files_in(disk) == [checkpoints.CHECKPOINT_NAME, "config.json", "log.jsonl"]
    assert "No space left on device" in line


@pytest.mark.parametrize("model", ["xray-cnn", "timm:test_resnet"])
def test_a_bundle_on_a_full_disk_is_not_there_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    network = create_model(model, pretrained=False)

    def write() -> None:
        with atomic_folder(disk / "bundle") as folder:
            bundle.save_network(network, folder)

    with mounted(tmp_path / "disk", "size=64k") as disk:
        line = the_error(exit_on_error(write), capsys.readouterr().err)
        assert not list(disk.iterdir())
    assert "No space left on device" in line


def test_a_checkpoint_on_a_full_disk_leaves_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted(tmp_path / "disk", "size=64k") as disk:
        checkpoints.save(disk, {"weights": torch.zeros(10)})
        before = (disk / checkpoints.CHECKPOINT_NAME).read_bytes()
        found = exit_on_error(lambda: checkpoints.save(disk, {"weights": torch.zeros(100_000)}))
        assert files_in(disk) == [checkpoints.CHECKPOINT_NAME]
        assert (disk / checkpoints.CHECKPOINT_NAME).read_bytes() == before
    assert "No space left on device" in the_error(found, capsys.readouterr().err)


def test_what_is_written_can_be_read_by_every_user(finished_run: Path) -> None:
    # A demo in a container runs under another user than the training did.
    closed = [name for name in files_in(finished_run) if not (finished_run / name).stat().st_mode & 0o004]
    assert closed == []


# --- refused before the work


def test_examining_into_a_folder_that_holds_something_is_refused(said: Said, data: Path) -> None:
    (data.parent / "out").mkdir()
    (data.parent / "out" / "mine.txt").write_text("mine")
    line = said("examine", "--data-dir", data, "--side", 32, "--out", data.parent / "out")
    assert "out exists and is not an empty folder; choose another --out" in line
    assert files_in(data.parent / "out") == ["mine.txt"]


def test_what_is_no_folder_of_ood_images_is_found_before_the_data_are_decoded(
    said: Said, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_open", lambda *_: pytest.fail("the data were opened"))
    (tmp_path / "bundle").mkdir()
    line = said("calibrate", tmp_path / "bundle", "--data-dir", data, "--ood-dir", tmp_path / "nope")
    assert "nope is not a folder; expected one with a folder of images for each kind" in line


def test_a_bundle_that_is_not_there_is_found_before_torch_is_imported(tmp_path: Path) -> None:
    words = ["export", str(tmp_path / "nope")]
    code = (
        "import sys; from xray_hf import cli, errors; "
        f"print(errors.exit_on_error(lambda: cli.main({words!r})), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]
    assert "nope is not a folder" in the_error(1, done.stderr)


# --- as programs


def test_xray_hf_ends_with_one_line_and_its_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "xray_hf.cli", "splits", "--data-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"holds no {CSV_NAME}" in the_error(done.returncode, done.stderr)
    assert done.stdout == ""


def test_train_ends_with_one_line_and_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--data-dir", str(tmp_path), *TRAINING])
    with pytest.raises(SystemExit) as caught:
        run_path(str(ROOT / "train.py"), run_name="__main__")
    assert isinstance(caught.value.code, int)
    assert f"holds no {CSV_NAME}" in the_error(caught.value.code, capsys.readouterr().err)


def test_a_reader_that_has_seen_enough_ends_a_command_without_a_word() -> None:
    command = [sys.executable, "-c", "from xray_hf.cli import console; console()", "sources"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout
        assert run.stderr
        run.stdout.close()
        assert run.stderr.read() == ""
    assert run.returncode == 128 + signal.SIGPIPE
