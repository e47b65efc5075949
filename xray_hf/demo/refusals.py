"""Refusals: an HTTP status, and the reason in words."""

from __future__ import annotations

from starlette.responses import JSONResponse, PlainTextResponse


def refusal(status: int, words: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """For programs, which read `error`, and for Gradio's page, which reads `detail`."""
    return JSONResponse({"error": words, "detail": words}, status, headers)


def upload_refusal(status: int, words: str, headers: dict[str, str] | None = None) -> PlainTextResponse:
    """For uploads: when one fails, Gradio's page shows the whole body, be it a sentence or JSON."""
    return PlainTextResponse(words, status, headers)
