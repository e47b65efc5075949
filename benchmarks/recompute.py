"""Do the numbers of a bundle hold without this package? Plain transformers and scikit-learn say.

python benchmarks/recompute.py pretrained/xray-cnn --data-dir data/coronahack

Classes and the official test images are those of CoronaHack's own CSV. It names no test images with COVID-19;
the bundle's splits.json says which were added.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, roc_auc_score
from transformers import AutoImageProcessor, AutoModelForImageClassification

BATCH = 32

parser = argparse.ArgumentParser()
parser.add_argument("bundle", type=Path)
parser.add_argument("--data-dir", type=Path, required=True)
options = parser.parse_args()

rows = pd.read_csv(options.data_dir / "Chest_xray_Corona_Metadata.csv", index_col="X_ray_image_name")
label = rows.Label.map({"Normal": 0, "Pnemonia": 1})  # misspelt in the CSV
label[rows.Label_2_Virus_category == "COVID-19"] = 2
official = rows.index[rows.Dataset_type == "TEST"]
split = json.loads((options.bundle / "splits.json").read_text())["files"]
added = sorted(split["test"].keys() - official)
assert (label[added] == 2).all(), "test has other TRAIN images than COVID-19"
assert not (split["train"] | split["validation"]).keys() & {*official, *added}, "test images were trained on"

processor = AutoImageProcessor.from_pretrained(options.bundle)
trusted = {"trust_remote_code": True}  # xray-cnn brings its own code
model = AutoModelForImageClassification.from_pretrained(options.bundle, **trusted).eval()
files = {path.name: path for path in options.data_dir.rglob("*") if path.is_file()}
probabilities = {}
names = [*official, *added]
for start in range(0, len(names), BATCH):
    batch = names[start : start + BATCH]
    images = [Image.open(files[name]).convert("L").convert("RGB") for name in batch]
    with torch.inference_mode():
        logits = model(**processor(images, return_tensors="pt")).logits
    probabilities.update(zip(batch, logits.softmax(1).numpy(), strict=True))

for part, names in {"test_official": [*official], "test": [*official, *added]}.items():
    true, scores = label[names].to_numpy(), np.array([probabilities[name] for name in names])
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
