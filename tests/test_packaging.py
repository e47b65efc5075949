"""What is installed and shipped: pins that agree, a demo without torch, an image that holds nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

from xray_hf import extras

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
BUNDLE = ROOT / "pretrained" / "xray-cnn"
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
    asked = map(Requirement, [*project["dependencies"], *extras])
    admitted = {each.name: each.specifier for each in asked if each.name != project["name"]}
    pinned = pins("requirements-cluster.txt")
    assert pins("requirements.txt").keys() <= admitted.keys() <= pinned.keys()
    assert [name for name, versions in admitted.items() if not versions.contains(pinned[name])] == []


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what installing the wheel would put into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site-packages")
    return folder / "site-packages"


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_package(installed: Path) -> None:
    def files(root: Path) -> set[str]:
        found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        return {name for name in found if not name.endswith(".pyc") and not name.startswith("_project/")}

    assert files(installed / "xray_hf") == files(ROOT / "xray_hf")


def run_installed(installed: Path, code: str, folder: Path) -> str:
    """What a program prints that has the wheel and the environment, but not the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


# Hides every distribution that a plain `pip install xray_hf` does not bring.
WITHOUT_EXTRAS = """
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from packaging.requirements import Requirement

from xray_hf import extras

wanted, open_ = set(), ["xray_hf"]
while open_:
    name = open_.pop().lower().replace("_", "-")
    if name in wanted:
        continue
    wanted.add(name)
    try:
        needs = [Requirement(text) for text in requires(name) or ()]
    except PackageNotFoundError:
        continue  # of another platform
    open_ += [each.name for each in needs if not each.marker or each.marker.evaluate({"extra": ""})]
for module, owners in packages_distributions().items():
    if not {owner.lower().replace("_", "-") for owner in owners} & wanted:
        sys.modules[module] = None
assert sys.modules["torch"] is None
"""


@pytest.mark.slow
def test_the_wheel_predicts_without_any_extra(installed: Path, tmp_path: Path) -> None:
    code = f"""{WITHOUT_EXTRAS}
from xray_hf import __file__ as place, cli
from xray_hf.inference import Engine
bundle = {str(BUNDLE)!r}
print(place)
print(Engine.from_pretrained(bundle).predict({str(BUNDLE / "reference" / "SYNTHETIC-Normal.png")!r}).label)
cli.main(["predict", bundle, bundle + "/reference", "--out", "found.csv"])
cli.main(["atlas", "--out", "atlas", "--patients", "30"])
"""
    place, label, *_ = run_installed(installed, code, tmp_path).splitlines()
    assert Path(place).is_relative_to(installed)
    assert label == "Normal"
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 1 + 3


@pytest.mark.slow
def test_the_readme_shows_what_its_three_lines_print(installed: Path, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", readme, re.DOTALL)
    assert found
    code, shown = found.groups()
    (tmp_path / "pretrained").symlink_to(ROOT / "pretrained")
    run_installed(installed, "from xray_hf import cli; cli.main(['examples', '--out', 'examples'])", tmp_path)
    program = WITHOUT_EXTRAS + code
    assert run_installed(installed, program, tmp_path) == shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "--data-dir", "x"], "train"),
        (["evaluate", str(BUNDLE)], "train"),
        (["card", str(BUNDLE)], "hub"),
        (["demo", "--bundle", str(BUNDLE)], "demo"),
        (["predict", str(BUNDLE), "a.png", "--out", "a.parquet"], "hub"),
        (["predict", str(BUNDLE), str(BUNDLE), "--out", "a.csv", "--backend", "openvino"], "openvino"),
        (["demo", "--mcp"], "mcp"),
    ],
)
def test_a_command_names_the_extra_that_it_lacks(
    installed: Path, tmp_path: Path, arguments: list[str], extra: str
) -> None:
    code = f"""{WITHOUT_EXTRAS}
from xray_hf import cli
from xray_hf.errors import exit_on_error
sys.stderr = sys.stdout
print(exit_on_error(lambda: cli.main({arguments!r})))
"""
    error, status = run_installed(installed, code, tmp_path).splitlines()
    assert error.startswith("error: ")
    assert f"`pip install 'xray_hf[{extra}]'`" in error
    assert int(status) > 0
    assert list(tmp_path.iterdir()) == []


def test_run_from_its_source_it_names_the_package_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a Space and in the image, where xray_hf is a folder beside app.py."""

    def not_installed(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "requires", not_installed)
    assert extras.extra_of("torch") is None
    assert extras.installation("mcp") == "pip install mcp"
    assert extras.installation("sklearn") == "pip install scikit-learn"


@pytest.mark.slow
def test_the_wheel_writes_cards_and_plans_spaces(installed: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(BUNDLE, tmp_path / BUNDLE.name)
    (bundle / "README.md").unlink()
    run_installed(installed, f"from xray_hf import cli; cli.main(['card', {str(bundle)!r}])", tmp_path)
    assert (bundle / "README.md").read_text().splitlines()[-1] == (
        BUNDLE / "README.md"
    ).read_text().splitlines()[-1]

    plan = "from xray_hf.hub import space; print(space.plan(['owner/model'], 'owner/demo').as_table())"
    assert run_installed(installed, plan, tmp_path) == run_installed(ROOT, plan, tmp_path)


@pytest.mark.slow
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
        ("pretrained/a/engine.onnx", False),
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
