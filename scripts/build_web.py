"""Bundles -> a folder with the static page, whose models run in the visitor's browser.

    python scripts/build_web.py BUNDLE... --out build/web

`make web` calls it. The bundles need engine.onnx; web/vendor/ must hold the libraries.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from xray_hf import __version__, manifest
from xray_hf.calibration import ood
from xray_hf.demo import examples, models, rendering, single_report
from xray_hf.demo.header import TITLE, header
from xray_hf.demo.models import Model, Models
from xray_hf.demo.shell import STATIC
from xray_hf.errors import BundleError, ConfigError, exit_on_error
from xray_hf.files import as_json, atomic_folder, require_new_folder
from xray_hf.inference import engine, overlay
from xray_hf.reading import for_browser
from xray_hf.report import html, sentences

WEB = Path(__file__).resolve().parents[1] / "web"
TABS = {"read": "Read X-rays", "evidence": "How good is it?"}
_SHIPPED = {"xray-resnet18-multisource", "xray-cnn-multisource"}
_CAPTION = "SYNTHETIC: the X-ray of no person."
NOT_FINITE = "the weights of this model give logits that are not finite for it."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE", help="a bundle, or owner/name on the Hub")
    parser.add_argument("--out", type=Path, required=True, help="new or empty folder")
    arguments = parser.parse_args()
    build(arguments.bundles, arguments.out)
    size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    print(f"{arguments.out}/index.html: {size / 1e6:.1f} MB in all; scripts/serve_web.py serves it")


def build(bundles: Sequence[str | Path], out: Path) -> None:
    """Write the page.

    Raises BundleError for a bundle that is incomplete, without engine.onnx or with an outdated one,
    ConfigError if the libraries are missing, OutputError.
    """
    if not (WEB / "vendor" / "templates.js").is_file():
        raise ConfigError(f"{WEB / 'vendor'} does not hold the libraries; run `make web`, which needs npm.")
    require_new_folder(out)
    served = models.load(bundles, backend="onnxruntime")
    for model in served.values():
        folder = model.engine.manifest.folder
        if not (folder / manifest.ENGINE).is_file():
            raise BundleError(
                f"{folder} has no {manifest.ENGINE}; run `xray-hf export {folder} --whole` first."
            )
        manifest.require_current_engine(folder)
    with atomic_folder(out) as folder:
        _copy_scripts(folder)
        for number, model in enumerate(served.values()):
            _copy_model(model, folder, number)
        shown = _copy_examples(folder / "examples", has_shipped={*served} >= _SHIPPED)
        evidence = html.page([model.report for model in served.values()])
        _write(folder / "parts" / "evidence", evidence)
        _write(folder / "site.json", json.dumps(describe(served, [name for name, _ in shown])))
        _write(folder / "index.html", page(served, shown, folder))
        _write(folder / "page.webmanifest", as_json(_web_manifest()))
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        _write(folder / "files.json", as_json(["./", *files]))
        worker = (WEB / "sw.js").read_text(encoding="utf-8")
        _write(folder / "sw.js", worker.replace("VERSION_OF_THE_PAGE", _hash(folder)))


def page(served: Models, shown: Sequence[tuple[str, str]], folder: Path) -> str:
    """index.html. shown: (file, caption) of each example. folder: of the page's files."""
    labels = models.labels(served)
    head = header(served, TABS, minutes=None)
    (script,) = re.findall(r"<script>(.*?)</script>", head, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    weights = sum(path.stat().st_size for path in (folder / "models").rglob("*") if path.is_file())
    template = rendering.TEMPLATES.from_string((WEB / "index.html").read_text(encoding="utf-8"))
    return template.render(
        title=TITLE,
        description=rendering.render("description", models=served, labels=labels),
        policy=policy(f"'sha256-{digest}'"),
        sheets=sorted(path.name for path in (folder / "page").glob("*.css")),
        header=head,
        megabytes=round(weights / 1e6),
        examples=[{"address": f"examples/preview-{name}", "caption": caption} for name, caption in shown],
    )


def policy(script: str) -> str:
    """The Content-Security-Policy: nothing from, and nothing to, any other host. script: its inline one."""
    rules = {
        "default-src": "'none'",
        "script-src": f"'self' 'wasm-unsafe-eval' {script}",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "worker-src": "'self' blob:",
        "manifest-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def describe(served: Models, shown: Sequence[str]) -> dict[str, Any]:
    """site.json: all that the page's scripts know of the models. shown: files of the examples."""
    graphs = [_metadata(model) for model in served.values()]
    return {
        "version": __version__,
        "labels": list(models.labels(served)),
        "models": [
            _describe(name, model, graph, number)
            for number, ((name, model), graph) in enumerate(zip(served.items(), graphs, strict=True))
        ],
        "words": {
            "rules": ood.RULES,
            "outside": engine.OUTSIDE,
            "advice": engine.ADVICE,
            "corrections": engine.CORRECTIONS,
            "cautions": engine.CAUTIONS,
            "noLungs": engine.NO_LUNGS,
            "agreement": sentences.AGREEMENT,
            "notFinite": NOT_FINITE,
        },
        "caveats": single_report.CAVEATS,
        "palette": base64.b64encode(overlay.palette()).decode(),
        "bar": rendering.bar(),
        "examples": list(shown),
        "reading": for_browser.tables(),
    }


def _describe(name: str, model: Model, graph: dict[str, Any], number: int) -> dict[str, Any]:
    own = model.engine.manifest
    return {
        "name": name,
        "folder": f"models/{number}",
        "graph": manifest.ENGINE,
        "weights": manifest.weight_files(own.sees_lungs),
        **graph,
        "unsure": engine.unsure_below(model.engine.calibration.abstain_below),
        "context": {each: sentences.answer_context(model.report, each) for each in graph["decisions"]},
        "sources": [source.name for source in model.report.sources],
        "shortcut": single_report.shortcut(model),
        **single_report.about(model),
    }


def _metadata(model: Model) -> dict[str, Any]:
    graph = onnx.load(model.engine.manifest.folder / manifest.ENGINE, load_external_data=False)
    found = {entry.key: entry.value for entry in graph.metadata_props}
    return {name: json.loads(found[name]) for name in ("decisions", "reasons", "findings")}


def _copy_scripts(folder: Path) -> None:
    shutil.copytree(STATIC, folder / "page")
    (folder / "page" / "main.js").rename(folder / "page" / "demo.js")
    for name in ("page", "reading", "vendor"):  # page/api.js in place of the demo's, which asks its server
        shutil.copytree(WEB / name, folder / name, dirs_exist_ok=True)
    for name in ("answering.js", "engine.js", "reader.js"):
        shutil.copy(WEB / name, folder)


def _copy_model(model: Model, folder: Path, number: int) -> None:
    own = model.engine.manifest
    target = folder / "models" / str(number)
    target.mkdir(parents=True)
    for name in (manifest.ENGINE, *manifest.weight_files(own.sees_lungs)):
        shutil.copy(own.folder / name, target)
    if (own.folder / manifest.FIGURES).is_dir():
        shutil.copytree(own.folder / manifest.FIGURES, folder / "figures" / str(number))


def _copy_examples(folder: Path, has_shipped: bool) -> list[tuple[str, str]]:
    """(file, caption) of each synthetic patient, but of the one about models trained on CoronaHack alone.

    has_shipped: whether the models that the captions speak of are on the page.
    """
    folder.mkdir()
    with TemporaryDirectory() as temporary:
        found = examples.find(None, Path(temporary))
        outcomes = zip(found, examples.OUTCOMES.values(), strict=True)
        kept = [each for each, outcome in outcomes if not outcome.of_coronahack]
        for each in kept:
            shutil.copy(each.file, folder)
            shutil.copy(each.preview, folder / f"preview-{each.file.name}")
    return [(each.file.name, each.caption if has_shipped else _CAPTION) for each in kept]


def _web_manifest() -> dict[str, Any]:
    return {
        "name": TITLE,
        "short_name": "X-rays",
        "start_url": ".",
        "display": "standalone",
        "background_color": "#ffffff",
        "theme_color": "#0f766e",
        "icons": [{"src": "page/icon.svg", "sizes": "any", "type": "image/svg+xml"}],
    }


def _hash(folder: Path) -> str:
    """12 hex digits that change with any file."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
