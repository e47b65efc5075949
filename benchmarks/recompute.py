"""Do the numbers of a bundle hold without this package? Plain transformers and scikit-learn say.

python benchmarks/recompute.py pretrained/xray-cnn --images data/coronahack

Reads the names and classes of the test images from predictions.parquet, and everything else from the images.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, roc_auc_score
from transformers import AutoImageProcessor, AutoModelForImageClassification

parser = argparse.ArgumentParser()
parser.add_argument("bundle", type=Path)
parser.add_argument("--images", type=Path, required=True)
options = parser.parse_args()

trusted = {"trust_remote_code": True}  # xray-cnn brings its own code
processor = AutoImageProcessor.from_pretrained(options.bundle)
model = AutoModelForImageClassification.from_pretrained(options.bundle, **trusted).eval()
test = pq.read_table(options.bundle / "predictions.parquet", filters=[("split", "=", "test")]).to_pylist()
files = {path.name: path for path in options.images.rglob("*") if path.is_file()}
labels, logits = [], []
for row in test:
    image = Image.open(files[row["file_name"]]).convert("L").convert("RGB")
    with torch.inference_mode():
        logits.append(model(**processor(image, return_tensors="pt")).logits[0])
    labels.append(model.config.label2id[row["label"]])
probabilities = torch.stack(logits).softmax(1).numpy()
classes = np.arange(probabilities.shape[1])
predicted = probabilities.argmax(1)
found = {
    "n": len(labels),
    "accuracy": accuracy_score(labels, predicted),
    "balanced_accuracy": balanced_accuracy_score(labels, predicted),
    "macro_auroc": roc_auc_score(labels, probabilities, multi_class="ovr", labels=classes),
    "confusion_matrix": confusion_matrix(labels, predicted, labels=classes).tolist(),
}
claimed = json.loads((options.bundle / "metrics.json").read_text())["test"]
for name, value in found.items():
    print(f"{name}: recomputed {value}, claimed {claimed[name]}")
    assert np.allclose(value, claimed[name], atol=1e-4), f"{name} differs"
