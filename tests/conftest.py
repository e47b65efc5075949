"""What all tests share: no network, a pixel cache of their own, a small synthetic data set."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from xray_hf.task import PAPER_CLASSES

if TYPE_CHECKING:
    from hub_server import Hub
    from playwright.sync_api import Browser, Page

    from xray_hf.inference import Engine

# Read when huggingface_hub is imported, hence before any test is.
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # read when torch is imported; the workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
PATIENTS = 40  # the synthetic folder's


# Files that take half a minute and more come first: then no process is left alone at the end.
LONGEST = (
    "shipped", "bench", "viewer", "browser", "web", "web_reading", "engine_graph", "processes", "snippets",
    "export", "loading", "demo", "no_leak", "external", "xet", "publish", "lungs", "tasks", "hostile", "bulk",
    "own_data", "release", "bundle",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, then those with the most slow tests."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    rank = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (rank.get(item.path.stem, len(LONGEST)), -slow[item.path]))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Imports make millions of objects that stay: searching them for garbage takes a quarter of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without slow tests, files that have no others are not even imported."""
    if "not slow" not in config.option.markexpr or collection_path.suffix != ".py":
        return None
    text = collection_path.read_text(encoding="utf-8")
    return bool(re.search(r"^pytestmark = .*\bmark\.slow\b", text, re.MULTILINE)) or None


@pytest.fixture(scope="session", autouse=True)
def pixel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of all pixel caches of this session; nobody's own cache is touched."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRAY_HF_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def own_number_format() -> Iterator[None]:
    """accelerate has one number format for a process, which a test must not leave to the next."""
    yield
    if state := sys.modules.get("accelerate.state"):
        state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic data set in Kaggle's layout; tests that change one make a copy."""
    from xray_hf.data.synthetic import write_synthetic

    folder = tmp_path_factory.mktemp("data") / "synthetic"
    write_synthetic(folder, PATIENTS, seed=0)
    return folder


@pytest.fixture(scope="session")
def cnn_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An xray-cnn of random weights with its graph, without the files that only training writes."""
    return random_bundle("xray-cnn", 3, tmp_path_factory.mktemp("bundle"))


def random_bundle(name: str, seed: int, folder: Path, classes: Sequence[str] = PAPER_CLASSES) -> Path:
    """Write a model of random weights with its graph, without the files that only training writes."""
    import torch

    from xray_hf import bundle, manifest
    from xray_hf.export import export
    from xray_hf.files import write_json
    from xray_hf.models import create_model

    torch.manual_seed(seed)
    bundle.save_network(create_model(name, pretrained=False, classes=classes), folder)
    write_json(folder / manifest.TRAINING, {"is_synthetic": True})
    export(folder)
    return folder


@pytest.fixture(scope="session")
def engine(cnn_bundle: Path) -> Engine:
    """The engine of that bundle."""
    from xray_hf.inference import Engine

    return Engine.from_pretrained(cnn_bundle)


@pytest.fixture(scope="session")
def xray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a synthetic X-ray."""
    from xray_hf.demo import examples

    return examples.find(None, tmp_path_factory.mktemp("examples"))[0].file


@pytest.fixture(scope="session")
def hubs() -> Iterator[Callable[[], Hub]]:
    """Makes an empty Hub in place of the one before, at the same address."""
    from hub_server import serving_hubs

    with serving_hubs() as new_hub:
        yield new_hub


@pytest.fixture
def hub(hubs: Callable[[], Hub]) -> Iterator[Hub]:
    """An empty Hub; nobody may ask it, or any other host, for what it does not know."""
    made = hubs()
    yield made
    assert made.unknown() == []


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data set; the tests that use it have the marker `real`."""
    folder = Path(os.environ.get("XRAY_HF_DATA") or ROOT.parent / "shared" / "data" / "coronahack")
    if not folder.is_dir():
        pytest.skip(f"no real data set at {folder}; point XRAY_HF_DATA to CoronaHack in Kaggle's layout")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium a module: Playwright's event loop would block async tests of other modules."""
    from browsing import running_chromium

    with running_chromium() as chromium:
        yield chromium


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """A visitor's page at the module's `url`."""
    from browsing import visit

    with visit(browser, url) as visitor:
        yield visitor


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The demo's synthetic examples."""
    from xray_hf.demo import examples

    return [each.file for each in examples.find(None, tmp_path_factory.mktemp("patients"))]
