"""The HTML around Gradio's part of the page: link preview, header, navigation.

Gradio draws its part seconds after the HTML has come. The header is plain HTML and painted at once; therefore
Gradio's configuration and style sheet, which would hold up painting, are moved behind it.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xray_hf.demo.rendering import render

STATIC = Path(__file__).parent / "static"
# Where the files of STATIC are served: an address that changes with them, so that browsers may keep them.
_HASH = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(STATIC.iterdir()))).hexdigest()[:12]
PLACE = f"page/{_HASH}"
PREVIEW = "preview.png"  # of STATIC, for link previews
PREVIEW_SIZE = (1200, 630)  # pixels

# In Gradio's head: its own link preview and a manifest to install the page as an app, which both name Gradio.
_DROPPED = re.compile(r'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>\s*|<link rel="manifest"[^>]*>\s*')
# Its scripts run in this order, and a script waits for a style sheet before it.
_SCRIPT = re.compile(r'<script(?! type="module")[^>]*>.*?</script>\s*', re.DOTALL)
_STYLES = re.compile(r'<link rel="stylesheet"[^>]*>\s*')


class Shell:
    """ASGI middleware: completes Gradio's HTML.

    header: HTML to stand above Gradio's part. title, description: of the link preview. root_path: the path
    under which a proxy serves the page.
    """

    def __init__(self, app: ASGIApp, title: str, description: str, header: str, root_path: str) -> None:
        self._app, self._header, self._root_path = app, header, root_path
        self._about = {"title": title, "description": description}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
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
                whole = self._completed(body.decode(), Request(scope)).encode()
                headers["content-length"] = str(len(whole))
            await send(start)
            await send({"type": "http.response.body", "body": whole})

        await self._app(scope, receive, complete)

    def _completed(self, html: str, request: Request) -> str:
        head, end, body = html.partition("</head>")
        head = _DROPPED.sub("", head)
        moved = "".join(_SCRIPT.findall(head) + _STYLES.findall(head))
        head = _STYLES.sub("", _SCRIPT.sub("", head))
        address = self._address(request)
        own = render("head", address=address, place=PLACE, preview=PREVIEW, size=PREVIEW_SIZE, **self._about)
        opening, tag, rest = body.partition("<gradio-app")
        return f"{head}{own}{end}{opening}{self._header}{moved}{tag}{rest}"

    def _address(self, request: Request) -> str:
        """The address at which the visitor sees the page, without a slash at its end.

        uvicorn takes the scheme from a proxy that it trusts, but no host; Gradio's page takes it from any.
        """
        named = request.headers.get("x-forwarded-host", request.url.netloc)
        return f"{request.url.scheme}://{named.partition(',')[0].strip()}{self._root_path.rstrip('/')}"
