"""Do the numbers of a bundle hold without this package? Plain transformers and scikit-learn say.

python benchmarks/recompute.py pretrained/xray-cnn --data-dir data/coronahack

Classes and the official test images are those of CoronaHack's own CSV. It names no test images with COVID-19;
the bundle's splits.json says which were added.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, roc_auc_score
from transformers import AutoImageProcessor, AutoModelForImageClassification

parser = argparse.ArgumentParser()
parser.add_argument("bundle", type=Path)
parser.add_argument("--data-dir", type=Path, required=True)
options = parser.parse_args()

CLASSES = {"Normal": 0, "Pnemonia": 1, "COVID-19": 2}  # misspelt in the CSV
label_of, official = {}, []
for row in csv.DictReader((options.data_dir / "Chest_xray_Corona_Metadata.csv").open()):
    is_covid = row["Label_2_Virus_category"] == "COVID-19"
    label_of[row["X_ray_image_name"]] = CLASSES["COVID-19" if is_covid else row["Label"]]
    official += [row["X_ray_image_name"]] if row["Dataset_type"] == "TEST" else []
split = json.loads((options.bundle / "splits.json").read_text())["files"]
added = sorted(split["test"].keys() - official)
assert all(label_of[name] == CLASSES["COVID-19"] for name in added), (
    "test has other TRAIN images than COVID-19"
)
seen = (split["train"] | split["validation"]).keys() & {*official, *added}
assert not seen, f"{len(seen)} test images are in train or validation"

processor = AutoImageProcessor.from_pretrained(options.bundle)
trusted = {"trust_remote_code": True}  # xray-cnn brings its own code
model = AutoModelForImageClassification.from_pretrained(options.bundle, **trusted).eval()
files = {path.name: path for path in options.data_dir.rglob("*") if path.is_file()}
probability_of = {}
for name in official + added:
    image = Image.open(files[name]).convert("L").convert("RGB")
    with torch.inference_mode():
        logits = model(**processor(image, return_tensors="pt")).logits[0]
    probability_of[name] = logits.softmax(0).numpy()

for part, names in {"test_official": official, "test": official + added}.items():
    labels = np.array([label_of[name] for name in names])
    probabilities = np.array([probability_of[name] for name in names])
    predicted = probabilities.argmax(1)
    areas = [roc_auc_score(labels == each, probabilities[:, each]) for each in np.unique(labels)]
    found = {
        "n": len(names),
        "accuracy": accuracy_score(labels, predicted),
        "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        "macro_auroc": np.mean(areas),
        "confusion_matrix": confusion_matrix(labels, predicted, labels=range(len(CLASSES))).tolist(),
    }
    claimed = json.loads((options.bundle / "metrics.json").read_text())[part]
    for name, value in found.items():
        print(f"{part} {name}: recomputed {value}, claimed {claimed[name]}")
        assert np.allclose(value, claimed[name], atol=1e-4), f"{name} of {part} differs"
