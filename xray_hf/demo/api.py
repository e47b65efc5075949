"""The page's answers for programs, through Gradio's clients or plain HTTP."""

from __future__ import annotations

from typing import Any

import gradio as gr

from xray_hf.demo import answers, table
from xray_hf.demo.models import Models, choose, describe
from xray_hf.demo.rendering import as_json
from xray_hf.demo.settings import Settings
from xray_hf.demo.uploads import Upload, unpack
from xray_hf.inference.engine import BATCH_SIZE

# Options of an event that answers about many files, one visitor after the other.
IN_BULK: dict[str, Any] = {"preprocess": False, "concurrency_id": "many", "concurrency_limit": 1}
PROGRESS = gr.Progress()


def add(served: Models, settings: Settings) -> None:
    """Offer /read, /read_many and /models; call it while the page is built."""
    preferred = choose(served)

    def read(file: list[dict[str, Any] | None]) -> tuple[list[dict[str, Any]]]:
        """Classify one chest X-ray. Not a medical device.

        Args:
            file: a PNG, JPEG, TIFF, WebP, BMP or DICOM file.

        Returns:
            {"error": words or null, "warnings": [words], "models": {name: {"decision": a class, "unsure" or
            "rejected", "reason": why it is no class, "label": the most probable class, "probabilities":
            {class: 0..1}, "ood_score": 0..1, above 0.5 is rejected, "heat_in_lungs": 0..1, share of the
            heatmap}}}.
        """
        # Gradio hands over the calls of several visitors at once, though each program sees only its own.
        return ([as_json(found) for found in answers.answer(preferred, [_single(each) for each in file])],)

    def read_many(
        files: list[dict[str, Any]] | None, progress: gr.Progress = PROGRESS
    ) -> list[dict[str, Any]]:
        """Classify up to 200 chest X-rays, or those in a ZIP archive. Not a medical device.

        Args:
            files: PNG, JPEG, TIFF, WebP, BMP or DICOM files, or ZIP archives of such.

        Returns:
            For each file, in order, {"file": its name, "error": words or "", "MODEL: decision": ...,
            "MODEL: reason": why it is no class, "MODEL: CLASS": probability, null if it was rejected}.
            Members of a ZIP that are hidden, or no images by their names (labels.csv), have no row.
        """
        found = table.collect(preferred, [each["path"] for each in files or []], progress)
        return [table.as_cells(row) for row in found]

    described = describe(preferred)

    def models() -> dict[str, Any]:
        """What answers here: {model: {"version", "labels", "is_synthetic"}}."""
        return described

    one, several = gr.File(visible=False), gr.File(file_count="multiple", visible=False)
    result, call = gr.JSON(visible=False), gr.Button(visible=False).click
    call(read, one, result, api_name="read", **together(settings))
    call(read_many, several, result, api_name="read_many", **IN_BULK)
    call(models, None, result, api_name="models")


def together(settings: Settings) -> dict[str, Any]:
    """Options of an event that answers a batch of visitors."""
    return {
        "preprocess": False,  # it would leave an empty file in the cache for each that is read
        "batch": True,
        "max_batch_size": BATCH_SIZE,
        "concurrency_id": "read",
        "concurrency_limit": settings.concurrency,
    }


def _single(given: dict[str, Any] | None) -> Upload:
    found = unpack([given["path"]] if given else [])
    if len(found) == 1:
        return found[0]
    return Upload.refused("", f"{len(found)} files were given, expected one; /read_many takes more.")
