"""What is installed and shipped: pins that agree, a demo without torch, an image that holds nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
HEAVY = {"datasets", "matplotlib", "scipy", "sklearn", "timm", "torch", "transformers"}


def requirements(name: str) -> Iterator[Requirement]:
    """What a file asks for, with the files that it includes."""
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("--requirement "):
            yield from requirements(line.split()[1])
        elif line and not line.startswith("#"):
            yield Requirement(line)


def pins(name: str) -> dict[str, str]:
    return {each.name: str(each.specifier).removeprefix("==") for each in requirements(name)}


def instruction(word: str) -> str:
    """What follows a word of the Dockerfile that occurs once."""
    (found,) = re.findall(rf"^{word} ((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
    return found.replace("\\\n", "")


def test_every_package_is_pinned_once() -> None:
    asked = list(requirements("requirements-cluster.txt"))
    assert len({each.name.lower() for each in asked}) == len(asked)
    assert [str(each) for each in asked if not re.fullmatch(r"==[\w.]+", str(each.specifier))] == []


def test_the_demo_has_the_pins_of_everything_else() -> None:
    assert pins("requirements-demo.txt").items() < pins("requirements.txt").items()
    assert pins("requirements.txt").items() < pins("requirements-dev.txt").items()
    assert pins("requirements-dev.txt").items() < pins("requirements-cluster.txt").items()


def test_the_package_admits_what_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    admitted = {each.name: each.specifier for each in map(Requirement, [*project["dependencies"], *extras])}
    pinned = pins("requirements-cluster.txt")
    assert pins("requirements.txt").keys() <= admitted.keys() <= pinned.keys()
    assert [name for name, versions in admitted.items() if not versions.contains(pinned[name])] == []


def test_the_wheel_has_every_file_of_the_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    package = ROOT / "xray_hf"
    named = {path for pattern in settings["package-data"]["xray_hf"] for path in package.glob(pattern)}
    files = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files == named


@pytest.mark.parametrize(
    "module", ["demo.server", "demo.examples", "inference", "reading.dicom", "reading.tiff"]
)
def test_the_demo_needs_nothing_heavy(module: str) -> None:
    # pandas, which Gradio imports, takes pyarrow where it finds it.
    code = f"import sys; sys.modules['pyarrow'] = None; import xray_hf.{module}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not HEAVY & set(run.stdout.split())


def test_onnxruntime_reports_nothing_to_its_maker(tmp_path: Path) -> None:
    # Where it does, it keeps this computer's number below the home. On CI it is silent anyway.
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment["HOME"] = str(tmp_path)
    code = "import xray_hf, onnxruntime; onnxruntime.get_available_providers()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    assert list(tmp_path.iterdir()) == []


def test_the_image_runs_as_nobody_in_particular() -> None:
    assert instruction("USER") == "1000"


def test_the_image_stops_when_it_is_told() -> None:
    lines = re.findall(r"^(?:CMD|ENTRYPOINT) .*$", DOCKERFILE, re.MULTILINE)
    assert len(lines) == 1
    assert json.loads(instruction("CMD")) == ["python", "app.py"]  # a list: no shell in between


def test_the_image_says_whether_it_is_healthy() -> None:
    check = instruction("HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "HEALTHCHECK", "exec")
    assert f":{instruction('EXPOSE')}/health" in command[2]


def test_the_image_copies_only_what_the_build_is_given() -> None:
    copied = re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    assert sorted(each[1:] for each in patterns if each.startswith("!")) == sorted(names)


@pytest.mark.parametrize(
    ("path", "is_out"),
    [
        (".git/HEAD", True),
        (".venv/bin/python", True),
        ("data/coronahack/a.jpeg", True),
        ("runs/a/bundle/model.onnx", True),
        ("pretrained/a/model.safetensors", False),
        ("pretrained/a/predictions.parquet", True),
        ("pretrained/a/model.onnx", False),
        ("pretrained/a/figures/roc.png", False),
        ("xray_hf/data/atlas.npz", False),
    ],
)
def test_history_data_and_runs_stay_out_of_the_image(path: str, is_out: bool) -> None:
    assert is_ignored(path) == is_out


def is_ignored(path: str) -> bool:
    """As .dockerignore says: of the patterns that match a path or a folder of it, the last decides."""
    ignored = False
    places = [path, *map(str, Path(path).parents)]
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!")
        if pattern and not line.startswith("#") and any(fnmatch(place, pattern) for place in places):
            ignored = not line.startswith("!")
    return ignored
