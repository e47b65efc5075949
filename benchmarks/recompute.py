"""Do the numbers of a bundle hold without this package? Plain transformers and scikit-learn say.

python benchmarks/recompute.py pretrained/xray-cnn --data-dir data/coronahack
python benchmarks/recompute.py pretrained/xray-cnn-multisource --data-dir data/coronahack \\
    --source radiography=data/radiography --source thorax_scan=data/thorax_scan …

Classes and the official test images are those of CoronaHack's own CSV; the classes of other sources are in
their labels.csv. The bundle's splits.json names the other test images. transformers cannot crop to the lungs,
so a bundle that does answers through its own graph, in plain ONNX Runtime.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, roc_auc_score
from transformers import AutoImageProcessor, AutoModelForImageClassification

BATCH = 8  # larger ones leave the CPU's caches and take longer
CLASSES = ["Normal", "Pneumonia", "COVID-19"]
CORONAHACK = "coronahack"

parser = argparse.ArgumentParser()
parser.add_argument("bundle", type=Path)
parser.add_argument("--data-dir", type=Path, required=True)
parser.add_argument("--source", action="append", default=[], metavar="NAME=DIR")
options = parser.parse_args()
folders = {CORONAHACK: options.data_dir}
folders |= {name: Path(folder) for name, _, folder in (each.partition("=") for each in options.source)}

rows = pd.read_csv(options.data_dir / "Chest_xray_Corona_Metadata.csv", index_col="X_ray_image_name")
label = rows.Label.map({"Normal": 0, "Pnemonia": 1})  # misspelt in the CSV
label[rows.Label_2_Virus_category == "COVID-19"] = 2
labels = {(CORONAHACK, name): each for name, each in label.items()}
for source in folders.keys() - {CORONAHACK}:
    table = pd.read_csv(folders[source] / "labels.csv")
    labels |= {
        (source, name): CLASSES.index(each) for name, each in zip(table.file_name, table.label, strict=True)
    }

split = json.loads((options.bundle / "splits.json").read_text())["files"]
sources = json.loads((options.bundle / "training.json").read_text()).get("sources", [CORONAHACK])
is_single = len(sources) == 1
if is_single:  # it names files alone
    split = {part: {CORONAHACK: files} for part, files in split.items()}
assert split["test"].keys() <= folders.keys(), f"pass --source for each of {[*split['test']]}"
in_part = {part: {(source, name) for source in own for name in own[source]} for part, own in split.items()}
official = [(CORONAHACK, name) for name in rows.index[rows.Dataset_type == "TEST"]]
test = [*official, *sorted(in_part["test"] - {*official})]
if is_single:
    assert all(labels[name] == 2 for name in {*test} - {*official}), "test has TRAIN images besides COVID-19"
assert not (in_part["train"] | in_part["validation"]) & {*test}, "test images were trained on"

paths = {
    (source, path.name): path
    for source, folder in folders.items()
    for path in folder.rglob("*")
    if path.is_file()
}
if json.loads((options.bundle / "config.json").read_text()).get("xray_hf_crop"):
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()  # also where OMP_NUM_THREADS limits them
    session = onnxruntime.InferenceSession(options.bundle / "model.onnx", settings)
    side = session.get_inputs()[0].shape[-1]

    def logits_of(images: list[Image.Image]) -> np.ndarray:
        """Of grey images: (N, 3)."""
        small = [image.resize((side, side), Image.Resampling.BILINEAR) for image in images]
        return session.run(["logits"], {session.get_inputs()[0].name: np.stack(small)[:, None]})[0]

else:
    processor = AutoImageProcessor.from_pretrained(options.bundle)
    trusted = {"trust_remote_code": True}  # xray-cnn brings its own code
    model = AutoModelForImageClassification.from_pretrained(options.bundle, **trusted).eval()

    def logits_of(images: list[Image.Image]) -> np.ndarray:
        """Of grey images: (N, 3)."""
        with torch.inference_mode():
            return model(
                **processor([image.convert("RGB") for image in images], return_tensors="pt")
            ).logits.numpy()


probabilities = {}
for start in range(0, len(test), BATCH):
    batch = test[start : start + BATCH]
    logits = logits_of([Image.open(paths[name]).convert("L") for name in batch])
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities.update(zip(batch, shares / shares.sum(axis=1, keepdims=True), strict=True))

for part, names in {"test_official": official, "test": test}.items():
    true, scores = (
        np.array([labels[name] for name in names]),
        np.array([probabilities[name] for name in names]),
    )
    areas = [roc_auc_score(true == each, scores[:, each]) for each in np.unique(true)]
    found = {
        "n": len(names),
        "accuracy": accuracy_score(true, scores.argmax(1)),
        "balanced_accuracy": balanced_accuracy_score(true, scores.argmax(1)),
        "macro_auroc": np.mean(areas),
        "confusion_matrix": confusion_matrix(true, scores.argmax(1), labels=range(3)).tolist(),
    }
    claimed = json.loads((options.bundle / "metrics.json").read_text())[part]
    for name, value in found.items():
        print(f"{part} {name}: recomputed {value}, claimed {claimed[name]}")
        assert np.allclose(value, claimed[name], atol=1e-4), f"{name} of {part} differs"
