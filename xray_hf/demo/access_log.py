"""The log: one line of JSON for each call, which names no visitor and no file."""

from __future__ import annotations

import json
import logging
import sys
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xray_hf.demo.settings import MCP_PATH, UPLOAD_PATH

# Beginnings of paths that the log may name; the rest of a path can contain names of files.
_PLACES = (UPLOAD_PATH, "/gradio_api/queue/join", "/gradio_api/call", "/health", MCP_PATH)

_log = logging.getLogger("xray_hf.demo")


def write_to_stderr() -> None:
    """Write the log to stderr only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False


class AccessLog:
    """ASGI middleware: logs time, place, method, status and duration of a call."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        started, status = time.perf_counter(), 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        is_http = scope["type"] == "http"
        await self._app(scope, receive, send_on if is_http else send)
        place = next((each for each in _PLACES if is_http and scope["path"].startswith(each)), "")
        if place and status:  # 0: the visitor left before there was an answer
            line = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "place": place,
                "method": scope["method"],
                "status": status,
                "milliseconds": round(1000 * (time.perf_counter() - started)),
            }
            _log.info(json.dumps(line))
