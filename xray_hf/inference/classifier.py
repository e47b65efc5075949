"""One bundle, ready to answer: an X-ray in, the probability of each class out."""

from __future__ import annotations

from pathlib import Path

import torch

from xray_hf import bundle
from xray_hf.errors import BundleError
from xray_hf.images import read_grey, resize
from xray_hf.models.create import Network, logits_of


class Classifier:
    """A loaded bundle; nothing in it changes after loading, so threads may share it.

    name: the network's, as "xray-resnet18". labels: the class names in the order of the logits.
    is_synthetic: whether it was trained on synthetic patients, so that its answers mean nothing.
    """

    def __init__(self, network: Network, labels: tuple[str, ...], *, is_synthetic: bool) -> None:
        self.network = network
        self.labels = labels
        self.is_synthetic = is_synthetic
        self.network.module.eval()

    @property
    def name(self) -> str:
        """The network's name, as "xray-resnet18"."""
        return self.network.name

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Classifier:
        """Load a bundle folder; no code of the bundle is run.

        Raises BundleError if files are missing, damaged or do not fit together.
        """
        folder = Path(folder)
        network, labels = bundle.load(folder), bundle.class_names(folder)
        is_synthetic = bundle.read_json(folder / bundle.TRAINING).get("is_synthetic")
        if not isinstance(is_synthetic, bool):
            raise BundleError(
                f"{folder / bundle.TRAINING} has is_synthetic {is_synthetic!r}; expected true or false. "
                "Train or fetch the bundle again."
            )
        classifier = cls(network, labels, is_synthetic=is_synthetic)
        classifier._require_answer(folder)
        return classifier

    def predict(self, source: Path | str | bytes) -> dict[str, float]:
        """The probability of each class, in the order of `labels`; they add up to 1.

        source: a path, or the bytes of a PNG, JPEG, TIFF, WebP or BMP file.
        Raises ImageError if it cannot be read as an X-ray.
        """
        pixels = resize(read_grey(source), self.network.preprocessing.side)
        probabilities = self._logits(torch.tensor(pixels)).softmax(0)
        return dict(zip(self.labels, probabilities.tolist(), strict=True))

    @torch.inference_mode()
    def _logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """(side, side) uint8 -> (C,) float32."""
        inputs = self.network.preprocessing.normalise(pixels[None])
        return logits_of(self.network.module(inputs))[0].float()

    def _require_answer(self, folder: Path) -> None:
        """Try the network on a black image: what cannot answer is found here, not at the first X-ray."""
        side = self.network.preprocessing.side
        logits = self._logits(torch.zeros(side, side, dtype=torch.uint8))
        named = all(isinstance(label, str) for label in self.labels)
        if not named or len(logits) != len(self.labels):
            raise BundleError(
                f"{folder / bundle.CONFIG} names the classes {self.labels}; expected {len(logits)} names, "
                "one for each output of the network. Train or fetch the bundle again."
            )
        if not bool(logits.isfinite().all()):
            raise BundleError(f"the weights in {folder} give {logits.tolist()}; train or fetch them again.")
