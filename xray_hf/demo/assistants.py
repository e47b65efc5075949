"""The same answers for assistants that call tools: a server of the Model Context Protocol (MCP) at /mcp.

Not Gradio's own server, which calls the page on the visitor's behalf, at an address that the visitor chooses,
and keeps the X-rays that it receives until it stops.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import anyio
from mcp.server.mcpserver import MCPServer
from starlette.applications import Starlette

from xray_hf import __version__
from xray_hf.demo import answers
from xray_hf.demo.answers import Answer
from xray_hf.demo.models import Models, choose, describe
from xray_hf.demo.rendering import as_json
from xray_hf.demo.settings import MCP_PATH, Settings
from xray_hf.demo.uploads import Upload
from xray_hf.errors import ImageError

_MAX_WORDS = 2**16  # bytes of a call without its X-ray


def create_app(served: Models, settings: Settings) -> Starlette:
    """A server with two tools, classify_chest_xray and describe_models, at MCP_PATH."""
    preferred = choose(served)
    tools = MCPServer("xray_hf", version=__version__, log_level="WARNING")
    turns = anyio.CapacityLimiter(settings.concurrency)
    described = describe(preferred)
    inside = 0  # calls being answered or waiting

    @tools.tool()
    async def classify_chest_xray(image: str) -> dict[str, Any]:
        """Classify one frontal chest X-ray. Not a medical device.

        image: a PNG, JPEG, TIFF, WebP, BMP or DICOM file in base64, bare or as a data: URI.
        Returns {"error": words or null, "warnings": [...], "models": {name: what it says}}.
        """
        nonlocal inside
        if inside >= settings.concurrency + settings.queue:
            return as_json(Answer("image", ImageError(answers.BUSY), {}))
        inside += 1
        try:
            return await anyio.to_thread.run_sync(_classify, preferred, image, limiter=turns)
        finally:
            inside -= 1

    @tools.tool()
    async def describe_models() -> dict[str, Any]:
        """The models that answer here: {model: {"version", "labels", "is_synthetic"}}."""
        return described

    return tools.streamable_http_app(
        streamable_http_path=MCP_PATH,
        json_response=True,
        stateless_http=True,
        max_request_body_size=settings.max_file_mb * 2**20 * 4 // 3 + _MAX_WORDS,
        host=settings.host,
    )


def _classify(served: Models, image: str) -> dict[str, Any]:
    try:
        content = base64.b64decode("".join(image.rpartition(",")[2].split()), validate=True)
    except binascii.Error:
        upload = Upload.refused("image", "the image is not base64; send the file's bytes in base64.")
    else:
        upload = Upload("image", lambda: content)
    return as_json(answers.answer(served, [upload])[0])
