"""Headers of every answer: no other hosts, and how long a browser may keep a file."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xray_hf.demo.shell import PLACE

# The browser itself refuses other hosts, whatever the page's libraries try to fetch.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'"
)
SECURITY = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
# Folders whose files have a hash of their content in their address; Gradio's has it in their names.
HASHED = (f"/{PLACE}/", "/assets/")
FOREVER = "public, max-age=31536000, immutable"


class Headers:
    """ASGI middleware: adds these headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY)
                if message["status"] == 200 and scope["path"].startswith(HASHED):
                    headers["cache-control"] = FOREVER
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
