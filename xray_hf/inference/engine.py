"""From X-ray files to decisions: one code path for Python, the command line and the demo.

    engine = Engine.from_pretrained("pretrained/xray-resnet18")
    engine.predict("chest.png").decision

Neither torch nor transformers is imported, unless the backend is torch.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np
from PIL import Image

from xray_hf import cores, manifest
from xray_hf.calibration import calibration
from xray_hf.calibration.calibration import Calibration
from xray_hf.calibration.ood import REJECT_ABOVE, rule_against, thumbnail_of
from xray_hf.errors import BundleError, ConfigError, ImageError
from xray_hf.inference import backends
from xray_hf.inference.backends import Backend
from xray_hf.inference.quality import QualityCheck, small_copy
from xray_hf.manifest import Manifest
from xray_hf.reading import Reading, from_array, from_image, read, resize
from xray_hf.task import REJECTED, UNSURE
from xray_hf.threads import pool_of_generator
from xray_hf.views import evidence_for, share_within

NO_LUNGS = "No lungs were found, so the whole image was classified."
OUTSIDE = "outside the training distribution: the answer would be a guess"  # the detector's reason
ADVICE = "check that the image is a frontal chest X-ray, upright and uncropped"
# Findings of the quality check: with one of these an X-ray is rejected, since it would be misjudged ...
CORRECTIONS = {
    "negative": "looks like a negative, with dark bones; invert it and try again",
    "upside down": "seems to be upside down; rotate it by 180° and try again",
    "turned left": "seems to lie on its side, head to the left; rotate it clockwise and try again",
    "turned right": "seems to lie on its side, head to the right; rotate it anticlockwise and try again",
    "side by side": "seems to hold two images; crop it to one X-ray and try again",
}
# ... and these only cause a warning.
CAUTIONS = {
    "mirrored": "The image may be mirrored, or the heart lies on the right; check the side marker.",
    "cut off": "The lungs may be cut off at the edge of the image.",
    "photograph": "This may be a photograph of a screen or film; export the X-ray itself, if you can.",
    "writing": "Writing or drawing covers much of the image; export the X-ray without it, if you can.",
}
BATCH_SIZE = 8  # images; larger ones are no faster on a CPU and answer later

Source = Path | str | bytes | Image.Image | np.ndarray | Reading | ImageError


@dataclass(frozen=True)
class Prediction:
    """The engine's answer about one image.

    probabilities: {class: 0..1}, adding up to 1, calibrated if the bundle has a temperature. label: the most
    probable class. decision: `label`, "unsure" or "rejected". reason: why the decision is not the label, in
    words; empty if it is. logits: (C,) float32, as the network gives them. heatmaps: (C, h, w) float32, the
    class activation maps (CAM): how much each position speaks for each class, in logits; None for a graph
    without them. embedding: (D,) float32. lungs: (g, g) float32, the share of each part of the image that is
    lung, all 0 if none were found; None for a network that does not look for them. ood_score: 0 to 1, above
    0.5 is rejected as out of distribution; None if the bundle has no detector. warnings: what a person should
    know about the file. read_ms, network_ms: where the time went; in a batch, each image's share.
    """

    probabilities: dict[str, float]
    label: str
    decision: str
    reason: str
    logits: np.ndarray = field(repr=False)
    heatmaps: np.ndarray | None = field(repr=False)
    embedding: np.ndarray = field(repr=False)
    lungs: np.ndarray | None = field(repr=False)
    ood_score: float | None
    warnings: tuple[str, ...]
    read_ms: float
    network_ms: float

    def __str__(self) -> str:
        """One line: "COVID-19 (Normal 0%, Pneumonia 0%, COVID-19 99%)", or the reason for no class."""
        if self.reason:
            return f"{self.decision} ({self.reason})"
        shares = (f"{label} {value:.0%}" for label, value in self.probabilities.items())
        return f"{self.decision} ({', '.join(shares)})"

    @property
    def heatmap(self) -> np.ndarray | None:
        """(h, w) float32: the class activation map of `label`."""
        if self.heatmaps is None:
            return None
        return self.heatmaps[list(self.probabilities).index(self.label)]

    @property
    def heat_in_lungs(self) -> float | None:
        """How much of what speaks for `label`, more than for the other classes, lies in the lungs: 0 to 1.

        None without heatmaps, lungs or anything that speaks for it.
        """
        if self.heatmaps is None or self.lungs is None:
            return None
        label = np.asarray([list(self.probabilities).index(self.label)])
        share = float(share_within(evidence_for(self.heatmaps[None], label), self.lungs[None])[0])
        return share if np.isfinite(share) else None


class Engine:
    """A loaded bundle, which many threads may share."""

    def __init__(self, description: Manifest, settings: Calibration, backend: str, threads: int) -> None:
        self.manifest = description
        self.calibration = settings
        self._cores = threads
        self._backend = backend
        # A single image is resized and computed on all cores; many get one core each.
        self._alone = backends.load(backend, description, threads=self._cores)
        self._of_many: Backend | None = self._alone if backend == "torch" else None
        self._quality = QualityCheck()
        self._lock = threading.Lock()
        self._helper = ThreadPoolExecutor(self._cores, thread_name_prefix="xray-resize")
        self._require_answer()

    @classmethod
    def from_pretrained(
        cls, source: Path | str, *, backend: str = backends.DEFAULT, threads: int | None = None
    ) -> Engine:
        """Load a bundle; no code of the bundle is run.

        source: a bundle's folder, or the id of a Hub repository to fetch, "owner/name" or
        "owner/name@revision". backend: "onnxruntime", "openvino" (bfloat16 where the CPU has it) or "torch".
        threads: cores to use, default all.
        Without calibration.json, probabilities are plain softmax; `engine.calibration.lacks` says so.
        Raises BundleError if files are missing, damaged or do not fit together, ConfigError for a backend
        that is unknown or not installed.
        """
        if threads is not None and threads < 1:
            raise ConfigError(f"threads is {threads}; expected 1 or more, or None for all cores.")
        folder = manifest.locate(source)
        return cls(manifest.read(folder), calibration.read(folder), backend, threads or cores.usable())

    @property
    def name(self) -> str:
        """The network's name, as "xray-resnet18"."""
        return self.manifest.name

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names in the order of the logits."""
        return self.manifest.labels

    @overload  # only to mypy, a text is a sequence of texts
    def predict(self, sources: Source, batch_size: int = ...) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, sources: Sequence[Source], batch_size: int = ...) -> list[Prediction]: ...

    def predict(
        self, sources: Source | Sequence[Source], batch_size: int = BATCH_SIZE
    ) -> Prediction | list[Prediction]:
        """Read and classify one image, or several in order.

        sources: a path, a file's bytes, a PIL image, an array (H, W) or (H, W, 3) or what `reading.read`
        returned or raised, or a sequence of them.
        Raises ImageError for the first that cannot be read or is none of these; `stream` continues instead.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected 1 or more.")
        if isinstance(sources, Source) or not isinstance(sources, Iterable):
            return _require(self._answer([sources], self._alone, self._helper)[0])
        return [_require(found) for found in self.stream(sources, batch_size)]

    def stream(
        self, sources: Iterable[Source], batch_size: int = BATCH_SIZE
    ) -> Iterator[Prediction | ImageError]:
        """Classify any number of images, in order, holding only a few at a time.

        An image that cannot be read yields its error. Each core reads and computes its own batches, so that
        none waits for another.
        """
        remaining, network = iter(sources), self._together()
        waiting: deque[Future[list[Prediction | ImageError]]] = deque()
        with pool_of_generator(self._cores, "xray-predict") as pool:
            while batch := list(islice(remaining, batch_size)):
                waiting.append(pool.submit(self._answer, batch, network))
                if len(waiting) > 2 * self._cores:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

    def predict_batch(self, sources: Sequence[Source]) -> list[Prediction | ImageError]:
        """Classify in one forward pass, in the caller's thread: for servers, which have their own threads.

        A single image gets all cores; several get one, so that the others can serve other calls.
        """
        if len(sources) == 1:
            return self._answer(sources, self._alone, self._helper)
        return self._answer(sources, self._together())

    def _together(self) -> Backend:
        """The network loaded a second time, one core a call; only callers with many images pay for it."""
        with self._lock:
            if self._of_many is None:
                self._of_many = backends.load(self._backend, self.manifest, threads=1, calls=self._cores)
            return self._of_many

    def _answer(
        self, sources: Sequence[Source], backend: Backend, helper: ThreadPoolExecutor | None = None
    ) -> list[Prediction | ImageError]:
        found = [self._read(source, helper) for source in sources]
        inputs = [each for each in found if isinstance(each, _Input)]
        predictions = iter(self._classify(inputs, backend) if inputs else [])
        return [next(predictions) if isinstance(each, _Input) else each for each in found]

    def _read(self, source: Source, helper: ThreadPoolExecutor | None) -> _Input | ImageError:
        started = time.perf_counter()
        try:
            reading = _open(source)
        except ImageError as error:
            return error
        pixels = resize(reading.grey, self.manifest.side, helper)
        milliseconds = 1000 * (time.perf_counter() - started)
        return _Input(reading, pixels, thumbnail_of(pixels), small_copy(pixels), milliseconds)

    def _classify(self, inputs: Sequence[_Input], backend: Backend) -> list[Prediction | ImageError]:
        started = time.perf_counter()
        thumbnails = np.stack([each.thumbnail for each in inputs])
        outputs = backend.run(np.stack([each.pixels for each in inputs])[:, None])
        qualities = self._quality.findings(np.stack([each.small for each in inputs]))
        network_ms = 1000 * (time.perf_counter() - started) / len(inputs)
        probabilities = self.calibration.probabilities(outputs.logits)
        detector = self.calibration.detector
        scores = detector.scores(outputs.embedding, thumbnails) if detector else None
        found: list[Prediction | ImageError] = []
        for row, given in enumerate(inputs):
            if not np.isfinite(outputs.logits[row]).all():
                found.append(
                    ImageError(
                        f"the weights in {self.manifest.folder} give logits that are not finite for it."
                    )
                )
                continue
            ood_score = None if scores is None else float(scores[row])
            label = self.labels[int(probabilities[row].argmax())]
            quality = qualities[row]
            decision, reason = self._decide(given, label, probabilities[row].max(), ood_score, quality)
            lungs = None if outputs.lungs is None else outputs.lungs[row]
            warnings = given.reading.warnings
            if decision != REJECTED:  # these would be wrong about a knee or a brain
                warnings += _cautions(quality, lungs)
            found.append(
                Prediction(
                    probabilities=dict(zip(self.labels, probabilities[row].tolist(), strict=True)),
                    label=label,
                    decision=decision,
                    reason=reason,
                    logits=outputs.logits[row],
                    heatmaps=None if outputs.heatmaps is None else outputs.heatmaps[row],
                    embedding=outputs.embedding[row],
                    lungs=lungs,
                    ood_score=ood_score,
                    warnings=warnings,
                    read_ms=given.read_ms,
                    network_ms=network_ms,
                )
            )
        return found

    def _decide(
        self,
        given: _Input,
        label: str,
        probability: np.float32,
        ood_score: float | None,
        quality: Sequence[str],
    ) -> tuple[str, str]:
        """Decision and reason; float32, since the threshold was chosen among such probabilities."""
        lowest = self.calibration.abstain_below
        if rule := rule_against(given.reading, given.thumbnail):
            return REJECTED, rule
        correction = next((CORRECTIONS[finding] for finding in quality if finding in CORRECTIONS), "")
        if ood_score is not None and ood_score > REJECT_ABOVE:
            advice = f"if the image is a chest X-ray, it {correction}" if correction else ADVICE
            return REJECTED, f"{OUTSIDE}; {advice}"
        if correction:
            return REJECTED, f"it {correction}"
        if probability < lowest:
            return UNSURE, unsure_below(lowest)
        return label, ""

    def _require_answer(self) -> None:
        """Try the network on two black images, so that a bad one fails now and not at the first X-ray."""
        side, folder = self.manifest.side, self.manifest.folder
        try:
            outputs = self._alone.run(np.zeros((2, 1, side, side), np.uint8))
        except Exception as error:  # of three libraries, without a common base
            raise BundleError(
                f"the network in {folder} does not take two images of {side}×{side} pixels, or gives no "
                f"logits and embedding ({type(error).__name__}); run `xray-hf export {folder}` again."
            ) from error
        logits, detector = outputs.logits, self.calibration.detector
        self.has_heatmaps = outputs.heatmaps is not None
        if logits.shape != (2, len(self.labels)) or len(outputs.embedding) != 2:
            raise BundleError(
                f"{folder / manifest.CONFIG} names the classes {self.labels}; expected one name for each of "
                f"the network's outputs {logits.shape[1:]}. Train or fetch the bundle again."
            )
        if not np.isfinite(logits).all():
            raise BundleError(f"the weights in {folder} give {logits.tolist()}; train or fetch them again.")
        if detector is not None and len(detector.embedding) != outputs.embedding.shape[1]:
            raise BundleError(
                f"{folder / manifest.CALIBRATION} is of another network: its detector takes embeddings of "
                f"{len(detector.embedding)} numbers, this network gives {outputs.embedding.shape[1]}; run "
                "`xray-hf calibrate` again."
            )


def unsure_below(lowest: float) -> str:
    """The reason for no class, by the lowest probability that a class must have."""
    return f"no class has a probability of {lowest:.1%} or more"


def _cautions(quality: Sequence[str], lungs: np.ndarray | None) -> tuple[str, ...]:
    """Warnings about what the image shows. lungs: (g, g), or None for a network that looks for none."""
    without_lungs = lungs is not None and not lungs.any()
    found = [CAUTIONS[name] for name in quality if name in CAUTIONS]
    return (NO_LUNGS, *found) if without_lungs else tuple(found)


@dataclass(frozen=True)
class _Input:
    """One image: as read, (side, side) uint8 for the network, small ones for the detector and the check."""

    reading: Reading
    pixels: np.ndarray
    thumbnail: np.ndarray
    small: np.ndarray
    read_ms: float


def _open(source: object) -> Reading:
    if isinstance(source, Reading):
        return source
    if isinstance(source, ImageError):
        raise source
    if isinstance(source, Image.Image):
        return from_image(source)
    if isinstance(source, np.ndarray):
        return from_array(source)
    if isinstance(source, Path | str | bytes):
        return read(source)
    kind = type(source).__name__
    raise ImageError(f"{kind} is not an image; expected a path, a file's bytes, a PIL image or an array.")


def _require(found: Prediction | ImageError) -> Prediction:
    if isinstance(found, ImageError):
        raise found
    return found
