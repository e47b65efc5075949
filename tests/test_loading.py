"""What was pushed is loaded by others in every documented way, each in a process of its own."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from hub_client import downloader, publisher, stranger
from hub_server import Fault, Hub, running_hub
from packaging.requirements import Requirement
from running import in_turn, running_app
from test_packaging import requirements
from warm_python import WarmPython

from xray_hf import manifest
from xray_hf.inference import Engine
from xray_hf.task import PAPER_CLASSES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("xray-resnet18", "xray-cnn")
of_each = pytest.mark.parametrize("model", MODELS)
BLOCKED = "import sys; sys.modules['xray_hf'] = None\n"  # the package must not be needed

Run = Callable[..., str]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A Hub with both models and the Space, pushed and public."""
    environment = {"HF_HOME": str(tmp_path_factory.mktemp("home")), "HF_TOKEN": "hf_owner"}
    models = [f"owner/{model}" for model in MODELS]
    with running_hub() as running:
        with publisher(running) as python:
            for sources, kind, name in [
                *(([str(ROOT / "pretrained" / model)], "model", f"owner/{model}") for model in MODELS),
                (models, "space", "owner/demo"),
            ]:
                options = ["--kind", kind, "--repo-id", name, "--public"]
                code = "from xray_hf import cli; cli.main()"
                done = python.run(code, "push", *sources, *options, environment=environment, cwd=ROOT)
                assert done.returncode == 0, done.stderr
        yield running


@pytest.fixture(scope="module")
def python() -> Iterator[WarmPython]:
    """With what takes longest to import, and does not know a Hub."""
    with downloader("torch", "torchvision", "scipy.stats", "onnxruntime", "httpx2", "yaml") as python:
        yield python


@pytest.fixture
def run(python: WarmPython, hub: Hub, tmp_path: Path, xray: Path) -> Run:
    return stranger(python, hub, tmp_path, xray)


def code_of(card: str) -> dict[str, str]:
    """{what it uses: code}, of a card as it lies on the Hub."""
    return dict(re.findall(r"^With ([^.]+)\..*?```python\n(.*?)```", card, re.MULTILINE | re.DOTALL))


def plain(model: str, xray: Path) -> dict[str, float]:
    """Probabilities before calibration, from the folder itself."""
    logits = Engine.from_pretrained(ROOT / "pretrained" / model).predict(xray).logits
    shares = np.exp(logits - logits.max())
    return dict(zip(PAPER_CLASSES, (shares / shares.sum()).tolist(), strict=True))


@of_each
def test_the_cards_code_gives_what_the_folder_gives(hub: Hub, run: Run, model: str, xray: Path) -> None:
    card = hub.repo("model", f"owner/{model}").head.files[manifest.CARD].content.decode()
    codes = code_of(card)
    assert list(codes) == [
        name
        for name in ("transformers", "timm", "ONNX Runtime alone", "xray_hf")
        if not (name == "timm" and model == "xray-cnn")
    ]
    expected = Engine.from_pretrained(ROOT / "pretrained" / model).predict(xray)
    said = run(codes.pop("xray_hf"), PYTHONPATH=str(ROOT))
    assert said.startswith(f"{expected.decision} ")
    assert ast.literal_eval(said[said.index("{") :]) == pytest.approx(expected.probabilities, abs=1e-5)
    of_graph = list(codes).index("ONNX Runtime alone")
    printed_by = json.loads(run(BLOCKED + in_turn(*codes.values())))
    by_graph = printed_by.pop(of_graph)
    assert by_graph.startswith(f"{expected.decision} ")
    assert ast.literal_eval(by_graph[by_graph.index("{") :]) == pytest.approx(
        expected.probabilities, abs=2e-3
    )
    for printed in printed_by:
        found = ast.literal_eval(printed)
        found = {row["label"]: row["score"] for row in found} if isinstance(found, list) else found
        assert found == pytest.approx(plain(model, xray), abs=2e-3)


LOGITS = """
import json, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
where = "owner/{model}"
processor = AutoImageProcessor.from_pretrained(where, revision="{revision}")
model = AutoModelForImageClassification.from_pretrained(
    where, revision="{revision}", trust_remote_code={is_cnn}
)
image = Image.open("chest.png").convert("RGB")
with torch.no_grad():
    print(json.dumps(model(**processor(image, return_tensors="pt")).logits[0].tolist()))
"""


PIPELINE = """
import json
from transformers import pipeline
classify = pipeline("image-classification", model="owner/xray-resnet18", revision="{revision}")
print(json.dumps({{row["label"]: row["score"] for row in classify("chest.png")}}))
"""
TIMM = """
import json, timm, torch
from PIL import Image
model = timm.create_model("hf-hub:owner/xray-resnet18@{revision}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
image = Image.open("chest.png").convert("L").convert("RGB")
with torch.inference_mode():
    shares = model(transform(image)[None]).softmax(dim=1)[0]
print(json.dumps(dict(zip(model.pretrained_cfg["label_names"], shares.tolist()))))
"""


def test_other_libraries_take_a_revision_and_then_need_no_network(hub: Hub, run: Run, xray: Path) -> None:
    tags = {model: list(hub.repo("model", f"owner/{model}").tags) for model in MODELS}
    codes = [code.format(revision=tags["xray-resnet18"][0]) for code in (TIMM, PIPELINE)]
    codes += [
        LOGITS.format(model=model, is_cnn=model == "xray-cnn", revision=tag) for model, [tag] in tags.items()
    ]
    code = BLOCKED + in_turn(*codes)
    online = [json.loads(printed) for printed in json.loads(run(code))]
    for shares in online[:2]:
        assert shares == pytest.approx(plain("xray-resnet18", xray), abs=2e-3)
    for logits, model in zip(online[2:], MODELS, strict=True):
        expected = Engine.from_pretrained(ROOT / "pretrained" / model).predict(xray).logits
        # torch's resizing is not Pillow's to the bit
        assert logits == pytest.approx(expected.tolist(), abs=2e-2)
    asked = len(hub.requests)
    assert [json.loads(printed) for printed in json.loads(run(code, HF_HUB_OFFLINE="1"))] == online
    assert len(hub.requests) == asked


ENGINE = """
from xray_hf.inference import Engine
engine = Engine.from_pretrained("{source}", backend="{backend}")
print(engine.predict("chest.png").logits.tolist())
"""


@pytest.mark.parametrize(("backend", "tolerance"), [("onnxruntime", 1e-5), ("openvino", 5e-2)])
def test_the_engine_takes_a_revision_and_then_needs_no_network(
    hub: Hub, run: Run, xray: Path, backend: str, tolerance: float
) -> None:
    [tag] = hub.repo("model", "owner/xray-cnn").tags
    expected = Engine.from_pretrained(ROOT / "pretrained" / "xray-cnn").predict(xray).logits.tolist()
    code = ENGINE.format(source=f"owner/xray-cnn@{tag}", backend=backend)
    before = len(hub.requests)
    online = json.loads(run(code, PYTHONPATH=str(ROOT)))
    assert online == pytest.approx(expected, abs=tolerance)  # OpenVINO may compute in bfloat16
    fetched = {asked.path.rpartition("/")[2] for asked in hub.requests[before:]}
    assert {"model.onnx", "model.safetensors"} <= fetched
    assert manifest.ENGINE not in fetched
    assert json.loads(run(code, PYTHONPATH=str(ROOT), HF_HUB_OFFLINE="1")) == online


def trying(source: str, before: str = "") -> str:
    """ENGINE, which prints the error that a bundle gives in place of an answer."""
    body = ENGINE.format(source=source, backend="onnxruntime").replace("\n", "\n    ")
    return f"""{before}
from xray_hf.errors import BundleError
try:{body}
except BundleError as error:
    print("error:", error)
"""


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("owner/nothing", "there is no folder owner/nothing, and that repository cannot be fetched"),
        ("owner/xray-cnn@nothing", "that repository cannot be fetched from the Hub"),
    ],
)
def test_what_is_not_there_is_one_clear_error(run: Run, source: str, words: str) -> None:
    assert words in run(trying(source), PYTHONPATH=str(ROOT))


def test_a_download_that_is_cut_ends_well_or_in_words_and_leaves_nothing_half(hub: Hub, run: Run) -> None:
    code = trying("owner/xray-cnn")
    hub.faults.append(Fault("GET", "/cdn/lfs/", cut_response=300_000, reset=True, times=50))
    assert run(code, PYTHONPATH=str(ROOT)).startswith("error: ")
    hub.faults.clear()
    assert run(code, PYTHONPATH=str(ROOT)).startswith("[")


def test_a_full_disk_while_fetching_is_one_clear_error(hub: Hub, run: Run, tmp_path: Path) -> None:
    full = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    full += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"  # as a disk that fills up
    said = run(trying("owner/xray-cnn", before=full), PYTHONPATH=str(ROOT))
    assert said.startswith("error: ")
    assert "File too large" in said


def link_requirements(site: Path) -> None:
    """Fill a folder with what requirements-demo.txt needs, down to the last, as it is installed here."""
    needed = list(requirements("requirements-demo.txt"))
    for each in needed:  # which grows
        found = distribution(each.name)
        assert each.specifier.contains(found.version), f"{found.version} is installed, expected {each}"
        for more in map(Requirement, found.requires or []):
            is_needed = not more.marker or any(more.marker.evaluate({"extra": e}) for e in ("", *each.extras))
            if is_needed and more not in needed:
                needed.append(more)
        for name in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(found.locate_file(name))


def test_the_space_runs_alone_on_the_models_that_its_readme_names(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "space"
    for path, blob in hub.repo("space", "owner/demo").head.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(blob.content)
    assert (folder / "requirements.txt").read_text() == (ROOT / "requirements-demo.txt").read_text()
    # As in a Space, nothing else is there.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    [site] = (tmp_path / "venv").glob("lib/python*/site-packages")
    link_requirements(site)
    environment = {**hub.environment(tmp_path / "home", None), "SPACE_ID": "owner/demo"}
    with running_app([], tmp_path, cwd=folder, app=folder / "app.py", python=python, **environment) as app:
        health = json.loads(urlopen(f"{app.url}/health").read())
    assert set(health["models"]) == set(MODELS)


def test_fine_tuning_as_documented_learns_other_classes(
    hub: Hub, run: Run, tmp_path: Path, xray: Path
) -> None:
    for label in ("clear", "opaque"):
        folder = tmp_path / "scans" / "train" / label
        folder.mkdir(parents=True)
        for number in range(4):
            shutil.copy(xray, folder / f"{number}.png")
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "hub.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 28
    short = code.replace("num_train_epochs=3", "num_train_epochs=1")
    assert short != code
    then = 'print(AutoModelForImageClassification.from_pretrained("fine-tuned").config.id2label)'
    assert ast.literal_eval(run(f"{BLOCKED}{short}\n{then}")) == {0: "clear", 1: "opaque"}
