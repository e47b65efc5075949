"""The page's answers for programs, through Gradio's clients or plain HTTP."""

from __future__ import annotations

from typing import Any

import gradio as gr

from xray_hf.demo import answers, single_report, table
from xray_hf.demo.answers import Answer
from xray_hf.demo.models import Models, choose, describe
from xray_hf.demo.rendering import FULL_SIDE, as_html, as_json, picture, reduced
from xray_hf.demo.settings import Settings
from xray_hf.demo.uploads import Upload, find, unpack
from xray_hf.errors import ImageError
from xray_hf.inference.engine import BATCH_SIZE

# Options of an event that answers about many files, one visitor after the other.
IN_BULK: dict[str, Any] = {"preprocess": False, "concurrency_id": "many", "concurrency_limit": 1}
PROGRESS = gr.Progress()


def add(served: Models, settings: Settings) -> None:
    """Offer /read, /read_many, /report and /models, and to the page /picture and /view.

    Call it while the page is built.
    """
    preferred = choose(served)

    def read(file: list[dict[str, Any] | None]) -> tuple[list[dict[str, Any]]]:
        """Classify one chest X-ray. Not a medical device.

        Args:
            file: a PNG, JPEG, TIFF, WebP, BMP or DICOM file.

        Returns:
            {"error": words or null, "warnings": [words], "models": {name: {"decision": a class, "unsure" or
            "rejected", "reason": why it is not a class, "label": the most probable class, "probabilities":
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
            files: PNG, JPEG, TIFF, WebP, BMP or DICOM files, or ZIP archives of them.

        Returns:
            For each file, in order, {"file": its name, "error": words or "", "MODEL: decision": ...,
            "MODEL: reason": why it is not a class, "MODEL: CLASS": probability, null if it was rejected}.
            Members of a ZIP that are hidden, or no images by their names (labels.csv), have no row.
        """
        found = table.collect(preferred, [each["path"] for each in files or []], progress)
        return [table.as_cells(row) for row in found]

    def answer_again(file: dict[str, Any] | None, member: Any, names: Any) -> Answer:
        [found] = answers.answer(choose(served, names), [_found(file, member)])
        return found

    def report(file: dict[str, Any] | None, member: str | None, models: list[str] | None) -> dict[str, Any]:
        """Report on one chest X-ray as a page to keep and as data. Not a medical device.

        Args:
            file: a PNG, JPEG, TIFF, WebP, BMP or DICOM file, or a ZIP archive.
            member: the X-ray's name in the archive; empty without an archive.
            models: names of models, as /health lists them; empty for those that answer by default.

        Returns:
            {"error": words or null, "html": a page without links to anything else, "json": {"file", "date",
            "xray_hf": its version, "image": {"width", "height"}, "warnings", "agreement", "models": {name:
            {"version_hash", "thresholds", "decision", "reason", "probabilities", "context", ...}},
            "caveats"}}.
        """
        named = models if isinstance(models, list) else []
        if unknown := [name for name in named if not isinstance(name, str) or name not in served]:
            words = f"no model here has the name {unknown[0]!r}; /health lists them."
            return {"error": words, "html": None, "json": None}
        found = answer_again(file, member, models)
        if isinstance(found.reading, ImageError):
            return {"error": str(found.reading), "html": None, "json": None}
        content = single_report.as_json(served, found)
        return {"error": None, "html": single_report.as_html(content, found), "json": content}

    def view(file: dict[str, Any] | None, member: str | None, models: list[str] | None) -> dict[str, str]:
        """The answer about one X-ray as the page shows it: {"html"}."""
        return {"html": as_html(served, [answer_again(file, member, models)])}

    def full_picture(file: dict[str, Any] | None, member: str | None) -> dict[str, str | None]:
        """An X-ray at its own size, up to FULL_SIDE pixels a side: {"error": words, "picture": data URI}."""
        reading = _found(file, member).read()
        if isinstance(reading, ImageError):
            return {"error": str(reading), "picture": None}
        return {"error": None, "picture": picture(reduced(reading.grey, FULL_SIDE), "JPEG", quality=92)}

    described = describe(preferred)

    def models() -> dict[str, Any]:
        """The models that answer here: {model: {"version", "labels", "is_synthetic"}}."""
        return described

    one, several = gr.File(visible=False), gr.File(file_count="multiple", visible=False)
    inside = gr.Textbox("", label="Member", visible=False)
    by = gr.CheckboxGroup(list(served), value=list(preferred), label="Models", visible=False)
    result, call = gr.JSON(visible=False), gr.Button(visible=False).click
    call(read, one, result, api_name="read", **together(settings))
    call(read_many, several, result, api_name="read_many", **IN_BULK)
    call(report, [one, inside, by], result, api_name="report", **_alone(settings))
    call(models, None, result, api_name="models")
    own = {"api_visibility": "undocumented", **_alone(settings)}  # of the page's own scripts
    call(view, [one, inside, by], result, api_name="view", **own)
    call(full_picture, [one, inside], result, api_name="picture", **own)


def together(settings: Settings) -> dict[str, Any]:
    """Options of an event that answers a batch of visitors."""
    return {
        "preprocess": False,  # it would leave an empty file in the cache for each that is read
        "batch": True,
        "max_batch_size": BATCH_SIZE,
        "concurrency_id": "read",
        "concurrency_limit": settings.concurrency,
    }


def _alone(settings: Settings) -> dict[str, Any]:
    """Options of an event that answers one visitor at a time, in the same queue."""
    return {
        name: value for name, value in together(settings).items() if name not in ("batch", "max_batch_size")
    }


def _found(file: dict[str, Any] | None, member: object) -> Upload:
    if file is None:
        return Upload.refused("", "no file was given; upload one.")
    return find(file["path"], str(member or ""))


def _single(given: dict[str, Any] | None) -> Upload:
    found = unpack([given["path"]] if given else [])
    if len(found) == 1:
        return found[0]
    return Upload.refused("", f"{len(found)} files were given, expected one; /read_many takes more.")
