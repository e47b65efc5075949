"""The HTML around the page, which Gradio gives no say in: our scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STATIC = Path(__file__).parent / "static"
PLACE = "page"  # where the files of STATIC are served


class Shell:
    """Completes Gradio's HTML."""

    def __init__(self, app: ASGIApp, tabs: Mapping[str, str]) -> None:
        data = json.dumps(tabs).replace("<", "\\u003c")
        self._app = app
        self._head = (
            f'<script type="application/json" id="tabs">{data}</script>'
            f'<script type="module" src="{PLACE}/main.js"></script>'
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] != "http" or scope["path"] != "/":
            await self._app(scope, receive, send)
            return
        start: Message = {}
        body = b""

        async def complete(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            headers = MutableHeaders(raw=start["headers"])
            whole = body
            if headers.get("content-type", "").startswith("text/html"):
                whole = body.replace(b"</head>", f"{self._head}</head>".encode(), 1)
                headers["content-length"] = str(len(whole))
            await send(start)
            await send({"type": "http.response.body", "body": whole})

        await self._app(scope, receive, complete)
