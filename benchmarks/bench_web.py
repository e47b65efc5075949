"""The page in the browser beside transformers.js with the same weights and beside our demo on a server.

    python benchmarks/bench_web.py --images DIR --bundle pretrained/xray-resnet18 --out docs/bench_web.json

One Chromium visits each page in turn, `--rounds` times, everything on this machine; needs npm and `make web`.

ours              the page of web/, which also reads DICOM, rejects what is not an X-ray, abstains
transformers.js   its pipeline, given the classifier alone: softmax, nothing else
demo              app.py on this machine, which the page asks over loopback

load        seconds from opening the page to a model that is ready; the demo's is ready when the page is
first       seconds from the first file to its answer
images/s    of FILES files given at once, ours and the demo's as a table of answers
megabytes   fetched until the first answer, uncompressed; 0 for the demo, whose server is not counted
memory      MB of all of Chromium's processes after FILES files, and after four times as many
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import bench_demo
import psutil
from playwright.sync_api import Browser, expect, sync_playwright
from reporting import machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))
import build_web  # noqa: E402
from serve_web import Handler, serving  # noqa: E402

from xray_hf import manifest  # noqa: E402
from xray_hf.errors import ConfigError, exit_on_error  # noqa: E402
from xray_hf.files import write_json  # noqa: E402

FILES = 50
PACKAGE = "@huggingface/transformers@4.3.2"
SECONDS = 300_000  # milliseconds
BUNDLED = [
    "--bundle",
    "--format=esm",
    "--minify",
    "--platform=browser",
    "--external:node:*",
    "--log-level=error",
]


@dataclass(frozen=True)
class Way:
    """A page. field, answers, table: selectors of the field for files, of an answer, of a row of many."""

    url: str
    field: str
    answers: str
    table: str


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of PNG or JPEG files")
    parser.add_argument("--bundle", type=Path, required=True, help="a model of timm, without lungs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/bench_web.json"))
    arguments = parser.parse_args()
    files = sorted(path for path in arguments.images.rglob("*") if path.suffix in (".png", ".jpg", ".jpeg"))
    if len(files) < FILES:
        raise ConfigError(f"{arguments.images} holds {len(files)} PNG or JPEG files; expected {FILES}.")
    with TemporaryDirectory() as temporary:
        found = bench(arguments.bundle, files[:FILES], arguments.rounds, Path(temporary))
    about = {**machine(("playwright",)), "peer": PACKAGE, "files": FILES}
    write_json(arguments.out, {**about, "bundle": arguments.bundle.name, "ways": found})
    for name, numbers in found.items():
        print(f"{name:<16}", "  ".join(f"{key} {value:,.2f}" for key, value in numbers.items()))


def bench(bundle: Path, files: Sequence[Path], rounds: int, folder: Path) -> dict[str, dict[str, float]]:
    """{way: {number: its median over the rounds}}."""
    count_bytes()
    build_web.build([bundle], folder / "ours")
    build_peer(bundle, folder / "peer")
    with (
        serving(folder / "ours") as ours,
        serving(folder / "peer") as peer,
        bench_demo.running(bench_demo.ours(bundle.name, [bundle])) as (demo, _),
    ):
        ways = {
            "ours": Way(ours, ".upload input", "#answers .decision", "#table .rows tbody tr"),
            "transformers.js": Way(peer, "input", "li", "li"),
            "demo": Way(
                f"{demo}/",
                '.tab-panel:visible .upload input[type="file"]',
                "#answers .decision",
                "#table .rows tbody tr",
            ),
        }
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        with sync_playwright() as playwright:
            for _ in range(rounds):
                for name, way in ways.items():
                    executable = shutil.which("chromium-headless-shell") or shutil.which("chromium")
                    browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
                    measured[name].append(visit(browser, way, files, is_demo=name == "demo"))
                    browser.close()
    return {
        name: {key: statistics.median(each[key] for each in own) for key in own[0]}
        for name, own in measured.items()
    }


def visit(browser: Browser, way: Way, files: Sequence[Path], *, is_demo: bool) -> dict[str, float]:
    """The numbers of one visit."""
    page = browser.new_context().new_page()
    page.set_default_timeout(SECONDS)
    expect.set_options(timeout=SECONDS)
    before = sent.total()
    started = time.perf_counter()
    page.goto(way.url)
    if (welcome := page.get_by_role("button", name="I understand")).count():
        welcome.click()
    if is_demo:
        expect(page.locator(way.field)).to_be_attached()
    else:
        expect(page.locator("#progress")).to_have_text("")
    loaded = time.perf_counter()
    page.locator(way.field).set_input_files(files[0])
    page.locator(way.answers).first.wait_for()
    answered = time.perf_counter()
    found = {"load": loaded - started, "first": answered - loaded, "megabytes": (sent.total() - before) / 1e6}
    if is_demo:
        page.goto(f"{way.url}#many")
        page.locator(way.field).wait_for(state="attached")
    for times in (1,) if is_demo else (1, 4):
        begun = time.perf_counter()
        page.locator(way.field).set_input_files([*files] * times)
        expect(page.locator(way.table)).to_have_count(times * len(files))
        found.setdefault("images/s", len(files) / (time.perf_counter() - begun))
        found[f"memory_{times * len(files)}"] = memory()
    page.context.close()
    return found


sent: Counter[str] = Counter()  # bytes of each path of the two static pages


def count_bytes() -> None:
    """Let the server of static pages count what it sends."""
    copy = Handler.copyfile

    def counted(handler: Handler, source: BinaryIO, target: BinaryIO) -> None:
        sent[handler.path] += os.fstat(source.fileno()).st_size
        copy(handler, source, target)

    Handler.copyfile = counted  # type: ignore[method-assign]


def memory() -> float:
    """MB of Chromium's processes."""
    own = [each for each in psutil.Process().children(recursive=True) if "chrom" in each.name()]
    return sum(each.memory_info().rss for each in own) / 1e6


def build_peer(bundle: Path, folder: Path) -> None:
    """The folder of a page with transformers.js and the bundle's classifier in the layout that it expects."""
    import timm
    import torch

    shutil.copytree(Path(__file__).parent / "transformers_js", folder)
    npm = folder.parent / "npm"
    npm.mkdir()
    run = {"cwd": npm, "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["npm", "install", "--silent", "--ignore-scripts", PACKAGE], **run)
    (npm / "entry.js").write_text('export { env, pipeline, RawImage } from "@huggingface/transformers";')
    esbuild = ROOT / "web" / "node_modules" / ".bin" / "esbuild"
    subprocess.run([esbuild, "entry.js", *BUNDLED, f"--outfile={folder / 'transformers.js'}"], **run)
    for path in npm.rglob("onnxruntime-web/dist/ort-wasm-simd-threaded*"):
        shutil.copy(path, folder)
    model = timm.create_model(f"local-dir:{bundle}", pretrained=True).eval()
    there = folder / "models" / "xray"
    (there / "onnx").mkdir(parents=True)
    example = torch.zeros(1, 3, *model.pretrained_cfg["input_size"][1:])
    names = {"input_names": ["pixel_values"], "output_names": ["logits"]}
    torch.onnx.export(model, (example,), there / "onnx" / "model.onnx", external_data=False, **names)
    labels = dict(enumerate(manifest.read(bundle).labels))
    config: dict[str, Any] = {"model_type": "resnet", "id2label": labels}
    write_json(there / "config.json", {**config, "architectures": ["ResNetForImageClassification"]})
    cfg = model.pretrained_cfg
    side = cfg["input_size"][1]
    preprocessing = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 2,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": cfg["mean"],
        "image_std": cfg["std"],
    }
    write_json(there / "preprocessor_config.json", preprocessing)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
