"""A bundle's description: names of its files, classes, input. Reading it needs no torch.

config.json, model.safetensors   weights, labels, preprocessing
lungs.safetensors                weights of the lung segmentation, for networks that see only the lungs
preprocessor_config.json, *.py   xray-cnn only: what AutoModel needs to load it without this package
model.onnx                       the same network as a graph, grey pixels -> logits, class activation maps; it
                                 reads its weights from the safetensors files
engine.onnx                      by request: the whole engine as a graph, from an image to the decision
reference.json, reference/       synthetic X-rays and the network's outputs for them, to check a port
calibration.json                 temperature, abstention, operating points, OOD detector
training.json                    configuration, seed, fingerprints, versions, device, duration, history
splits.json                      which file went where
predictions.parquet              logits of every row; metrics and figures are computed from it
external/NAME.parquet            predictions and decisions on an external test set
controls/*.parquet               shortcut controls by `xray-hf report`; see evaluation/controls.py
metrics.json, figures/           numbers with 95 % intervals, and their figures
README.md                        the model card
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray_hf.errors import BundleError, ConfigError, as_sentence, hub_errors
from xray_hf.task import PARTLY_MARK, SYNTHETIC_MARK

CONFIG, WEIGHTS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
GRAPH, ENGINE, CALIBRATION, LUNGS = "model.onnx", "engine.onnx", "calibration.json", "lungs.safetensors"
REFERENCE, REFERENCE_IMAGES = "reference.json", "reference"
GRAPH_INPUT = "pixels"  # of the graph: (B, 1, side, side) uint8
TRAINING, SPLITS, PREDICTIONS, METRICS = "training.json", "splits.json", "predictions.parquet", "metrics.json"
FIGURES, EXTERNAL, CONTROLS, CARD = "figures", "external", "controls", "README.md"
WHOLE = "none"  # the control view of a network that was trained on whole images
CROPPED = {"xray_hf_crop": "lungs"}  # an entry of config.json if the network sees only the lungs
MAX_SIDE = 2048  # pixels of an input
ZOOM = 1.5  # side of the whole input image over that of its crop, so that the crop is sharp
XRAY_CNN = "xray-cnn"  # the model_type in its config
TIMEOUT = 60  # seconds that a download by Xet may receive nothing
_DESCRIPTION = (CONFIG, PREPROCESSOR, TRAINING, CALIBRATION)
_VIEWS = (METRICS, f"{FIGURES}/*.png", CARD, ENGINE)  # the page shows code for engine.onnx, if there is one
_OLD_NAMES = {"foreign": "ood", "foreign_report": "ood_report", "unsure_below": "abstain_below"}
_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


@dataclass(frozen=True)
class Manifest:
    """A bundle's own description.

    name: the network's, as "xray-resnet18". labels: the class names in the order of the logits.
    side: height and width of the input in pixels. is_synthetic: whether it was trained on synthetic
    patients, so that its answers mean nothing. sources: the kind of each source that it was trained on.
    sees_lungs: whether it crops its input to the lungs. mark: see `mark_of`.
    """

    folder: Path
    name: str
    labels: tuple[str, ...]
    side: int
    is_synthetic: bool
    sources: tuple[str, ...]
    sees_lungs: bool = False
    mark: str = ""

    def require_side(self, side: int) -> None:
        """Raise ConfigError unless data opened at `side` pixels fit the network."""
        if side != self.side:
            raise ConfigError(
                f"the data were opened at {side} pixels, {self.folder} takes {self.side}; "
                f"pass --side {self.side}."
            )


def read(folder: Path | str) -> Manifest:
    """Read config.json, preprocessor_config.json and training.json of a bundle.

    Raises BundleError if one is missing, damaged or impossible, and for a network trained on a control view:
    it is evidence about the data, and its answer to a whole X-ray would mean nothing.
    """
    folder = Path(folder)
    config, training = read_json(folder / CONFIG), read_json(folder / TRAINING)
    try:
        labels, side = labels_of(config), _side(folder, config)
    except (LookupError, TypeError, AttributeError) as error:
        raise _damaged(f"{folder / CONFIG} lacks an entry ({type(error).__name__}: {error})") from error
    if not all(isinstance(label, str) for label in labels) or not 1 < len(labels) == len(set(labels)):
        raise _damaged(f"{folder / CONFIG} names the classes {labels}; expected two or more different names")
    if not isinstance(side, int) or not 32 <= side <= MAX_SIDE:
        raise _damaged(f"{folder} has an input of {side!r} pixels; expected 32 to {MAX_SIDE}")
    is_synthetic = training.get("is_synthetic")
    if not isinstance(is_synthetic, bool):
        raise _damaged(f"{folder / TRAINING} has is_synthetic {is_synthetic!r}; expected true or false")
    if (view := view_of(training)) != WHOLE:
        raise BundleError(
            f"{folder} was trained on the control view {view}: it has metrics, but cannot classify X-rays. "
            "Use a bundle trained without --view."
        )
    try:
        sources = sources_of(training)
    except (LookupError, TypeError, AttributeError) as error:
        raise _damaged(
            f"{folder / TRAINING} has malformed sources ({type(error).__name__}: {error}); expected a "
            "list of objects with kind and name"
        ) from error
    name, sees_lungs, mark = name_of(config), crops_to_lungs(config), mark_of(training)
    return Manifest(folder, name, labels, side, is_synthetic, sources, sees_lungs, mark)


def _damaged(problem: str) -> BundleError:
    return BundleError(f"{problem}. Train or fetch the bundle again.")


def sources_of(training: Mapping[str, Any]) -> tuple[str, ...]:
    """The kind of each source that a network was trained on; older files name none: CoronaHack."""
    named, held_out = training.get("sources", [{"kind": "coronahack"}]), held_out_of(training)
    return tuple(str(source["kind"]) for source in named if source.get("name") not in held_out)


def held_out_of(training: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the sources that training.json says were held out."""
    names = _data_option(training, "hold_out", [])
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def view_of(training: Mapping[str, Any]) -> str:
    """The control view that training.json says the network was trained on, or WHOLE."""
    return str(_data_option(training, "view", WHOLE))


def _data_option(training: Mapping[str, Any], name: str, default: Any) -> Any:
    try:
        return training["config"]["data"][name]
    except (LookupError, TypeError):  # written by an older version, or by another program
        return default


def mark_of(training: Mapping[str, Any]) -> str:
    """The prefix of titles and tables; "" if the numbers are of whole X-rays of real people."""
    view = view_of(training)
    of_view = "" if view == WHOLE else f"control view {view}: "
    return (_synthetic_mark(training) if training.get("is_synthetic") else "") + of_view


def _synthetic_mark(training: Mapping[str, Any]) -> str:
    named, held_out = training.get("sources"), held_out_of(training)
    sources = [each for each in named if isinstance(each, dict)] if isinstance(named, list) else []
    is_partly = any(each.get("is_synthetic") is False for each in sources if each.get("name") not in held_out)
    return PARTLY_MARK if is_partly else SYNTHETIC_MARK


def locate(source: Path | str, *, views: bool = False) -> Path:
    """The folder of a bundle: `source` itself, `bundle` in it, or a copy fetched from the Hub, without code.

    source: a folder, or the id of a Hub repository, "owner/name" or "owner/name@revision", where a revision
    is a branch, tag or commit. views: fetch what the demo shows, too: metrics, figures, card, engine.onnx.
    Raises BundleError if there is neither.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder / "bundle" if (folder / "bundle").is_dir() else folder
    # A typo in a path below an existing folder must not become a request to the Hub.
    found = _HUB_ID.fullmatch(str(source))
    if not found or Path(folder.parts[0]).is_dir():
        raise BundleError(
            f"{source} is neither a folder nor the id of a Hub repository, owner/name; "
            "pass a bundle that `xray-hf train` wrote, or such an id."
        )
    # Imported here, because a local bundle needs no client.
    from huggingface_hub import snapshot_download

    repo_id, revision = found.groups()
    names = [*_DESCRIPTION, GRAPH, WEIGHTS, LUNGS, *(_VIEWS if views else ())]
    # hf_xet reads it at its first download; by default it waits half an hour for a silent server.
    os.environ.setdefault("HF_XET_CLIENT_READ_TIMEOUT", f"{TIMEOUT}s")
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=names))
    except hub_errors() as error:
        raise BundleError(
            f"there is no folder {repo_id}, and that repository cannot be fetched from the Hub: "
            f"{as_sentence(error)} Check the name and the network."
        ) from error


def read_calibration(folder: Path) -> dict[str, Any]:
    """calibration.json of a bundle with the current names, {} if there is none.

    Version 0.1 wrote "foreign", "unsure_below" and "refused" for "ood", "abstain_below" and "rejected", and
    operating points without "label", all for Pneumonia.
    Raises BundleError if the file is damaged.
    """
    path = folder / CALIBRATION
    if not path.exists():
        return {}
    saved = {_OLD_NAMES.get(name, name): value for name, value in read_json(path).items()}
    if "ood_report" in saved:
        saved["ood_report"] = _rejected(saved["ood_report"])
    if isinstance(points := saved.get("operating_points"), list):
        saved["operating_points"] = [
            {"label": "Pneumonia", **point} if isinstance(point, dict) else point for point in points
        ]
    return saved


def _rejected(report: Any) -> Any:
    """The report with "rejected" for "refused", only in its rows: a kind of images may have any name."""
    if not isinstance(report, dict):
        return report
    is_row = "refused_by_detector" in report
    return {
        name.replace("refused", "rejected") if is_row else name: _rejected(value)
        for name, value in report.items()
    }


def calibration_mark(folder: Path) -> str:
    """A short hash of the entries of a bundle's calibration.json that decide; "" without such a file.

    Decisions recorded under another mark are not those that the engine would make now.
    """
    if not (folder / CALIBRATION).exists():
        return ""
    saved = read_calibration(folder)
    deciding = [saved.get(name) for name in ("temperature", "abstain_below", "ood")]
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def version(folder: Path) -> str:
    """A short hash of a bundle's calibration and graph; the graph itself holds the hashes of the weights.

    Without a graph, the weights take its place.
    """
    network = next((folder / name for name in (GRAPH, WEIGHTS) if (folder / name).exists()), folder / CONFIG)
    return hashlib.sha256(f"{digest(network)} {calibration_mark(folder)}".encode()).hexdigest()[:12]


def require_current_engine(folder: Path) -> None:
    """Raise BundleError if a bundle's engine.onnx is of another network, calibration or list of classes."""
    file = folder / ENGINE
    if not file.exists():
        return
    labels = json.dumps(read(folder).labels, ensure_ascii=False)
    graph = file.read_bytes()
    if any(text.encode() not in graph for text in (version(folder), labels)):  # as engine_graph writes them
        raise BundleError(
            f"{file} is of another network, calibration or list of classes; run `xray-hf export {folder} "
            "--whole` again."
        )


def weight_files(sees_lungs: bool) -> tuple[str, ...]:
    """The names of the files that a bundle's graph reads its weights from."""
    return (WEIGHTS, LUNGS) if sees_lungs else (WEIGHTS,)


def digest(file: Path) -> str:
    """The SHA-256 of a file in hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_weights(description: Manifest) -> None:
    """Raise BundleError unless a bundle's weights are those that its graph was made from."""
    folder = description.folder
    graph = (folder / GRAPH).read_bytes()
    for name in weight_files(description.sees_lungs):
        if not (folder / name).is_file():
            raise BundleError(f"{folder} holds no {name}, which {GRAPH} reads. Fetch the bundle again.")
        if digest(folder / name).encode() not in graph:  # as export writes it
            raise BundleError(
                f"{folder / GRAPH} was not made from the {name} beside it; one of them is damaged, or of "
                f"another version. Fetch the bundle again, or run `xray-hf export {folder}`."
            )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a bundle; raises BundleError with what is wrong."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(
            f"{path} is missing; expected a bundle folder that `xray-hf train` wrote."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise BundleError(f"{path} holds {type(value).__name__}; expected a JSON object.")
    return value


def labels_of(config: dict[str, Any]) -> tuple[str, ...]:
    """The class names of a config.json, in the order of the logits; raises LookupError or TypeError."""
    if "label_names" in config:
        return tuple(config["label_names"])
    names = config["id2label"]
    return tuple(names[str(k)] for k in range(len(names)))


def _side(folder: Path, config: dict[str, Any]) -> int:
    if "architecture" in config:
        side = config["pretrained_cfg"]["input_size"][-1]
    else:
        side = read_json(folder / PREPROCESSOR)["size"]["height"]
    return round(ZOOM * side) if crops_to_lungs(config) and isinstance(side, int) else side


def name_of(config: dict[str, Any]) -> str:
    """The network's name, from a config.json."""
    if "architecture" in config:
        return str(config.get("xray_hf_name", f"timm:{config['architecture']}"))
    return XRAY_CNN


def title(source: Path | str, name: str, sources: Sized) -> str:
    """A model's display name.

    The name of the bundle's folder or Hub repository if it begins with the network's name, as
    xray-cnn-multisource does; else the network's name, with "-multisource" appended if it was trained on
    several sources.
    source: the folder, or owner/name or owner/name@revision. name: the network's. sources: of its training.
    """
    is_folder = Path(source).is_dir()
    own = Path(source).absolute().name if is_folder else str(source).partition("@")[0].rpartition("/")[2]
    if own.startswith(name):
        return own
    return f"{name}-multisource" if len(sources) > 1 else name


def crops_to_lungs(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of a network that sees only the lungs; raises LookupError for another crop."""
    name, value = next(iter(CROPPED.items()))
    if config.get(name, value) != value:
        raise LookupError(f"{name} {config[name]!r}, expected {value!r}")
    return name in config
