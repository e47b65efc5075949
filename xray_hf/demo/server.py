"""The page as a server: health, headers that forbid other hosts, limits, logs that name nobody."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio.route_utils import FnIndexInferError
from gradio.routes import App
from gradio.utils import get_upload_folder
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xray_hf import manifest
from xray_hf.demo import answers, leftovers
from xray_hf.demo.calls import CALL, JOIN, Calls
from xray_hf.demo.examples import Example
from xray_hf.demo.models import Models, describe
from xray_hf.demo.page import TABS, build, looks
from xray_hf.demo.settings import MCP_PATH, Settings
from xray_hf.demo.shell import PLACE, STATIC, Shell

MAX_BODY = 512 * 2**20  # bytes of one request with files
MAX_CALL = 2**20  # bytes of any other request: it names files, it does not hold them
DRAIN_SECONDS = 8  # for running answers after SIGTERM; open pages use them up, and Docker kills after 10
MAX_VISITORS = 10_000  # that the limit of requests remembers
# The browser itself refuses other hosts, whatever the page's libraries try to fetch.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
# Parts of paths that the log may name; the rest of a path can contain names of files.
_PLACES = ("/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/call", "/health", MCP_PATH)

_API = "/gradio_api/"
# All that page and programs need of it. The rest runs functions without the queue, fetches from other hosts,
# or records what visitors do.
_OPEN = (
    *("upload", "queue/", "call/", "cancel", "reset", "heartbeat/", "file=", "info", "openapi.json"),
    *("startup-events", "theme.css", "user", "login_check", "token", "app_id"),
)
# What Gradio raises for a request that it does not expect.
_MISUNDERSTANDINGS = (LookupError, TypeError, ValueError, AttributeError, AssertionError, FnIndexInferError)

_log = logging.getLogger("xray_hf.demo")


def create_app(served: Models, examples: Sequence[Example], settings: Settings) -> FastAPI:
    """The whole application, ready for uvicorn.

    GRADIO_TEMP_DIR must name a folder of its own: everything that comes there is deleted.
    """
    tools = Starlette()
    if settings.has_mcp:
        from xray_hf.demo import assistants  # needs a package that few want

        tools = assistants.create_app(served, settings)
    page, uploads = build(served, examples, settings), Path(get_upload_folder())
    # Gradio would keep the last answer of 10,000 visitors, X-rays included; here of one, until the sweep.
    page.state_session_capacity = 1

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with tools.router.lifespan_context(app), leftovers.swept(page, uploads):
            yield

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.router.routes.extend(tools.routes)
    health = {"status": "ok", "models": describe(served)}
    app.add_api_route("/health", lambda: health)
    app.mount(f"/{PLACE}", StaticFiles(directory=STATIC))
    for number, model in enumerate(served.values()):
        folder = model.engine.manifest.folder / manifest.FIGURES
        if folder.is_dir():
            app.mount(f"/figures/{number}", StaticFiles(directory=folder))
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        root_path=settings.root_path or None,
        max_file_size=f"{settings.max_file_mb}mb",
        auth=settings.auth,
        mcp_server=False,  # see assistants.py
        show_error=False,  # tracebacks are not for visitors
        footer_links=["api"],
        run_history=False,  # it would keep the X-rays in the browser
        enable_monitoring=False,
        ssr_mode=False,
        **looks(),
    )
    for route in app.routes:
        if isinstance(route, Mount) and isinstance(route.app, App):
            for error in _MISUNDERSTANDINGS:
                route.app.add_exception_handler(error, _not_understood)
            route.app.add_exception_handler(503, _busy)
    app.add_middleware(Shell, tabs=TABS)
    app.add_middleware(Guard, rate=settings.rate, calls=Calls(page, uploads))
    return app


def serve(app: FastAPI, settings: Settings) -> None:
    """Answer until SIGTERM or Ctrl-C, then finish what runs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,  # its lines hold paths, and those names of files
        log_level="warning",
        timeout_graceful_shutdown=DRAIN_SECONDS,
        # Otherwise all visitors of a Space, who come through its proxies, would count as one.
        forwarded_allow_ips="*" if "SPACE_ID" in os.environ else None,
    )
    uvicorn.Server(config).run()


class Guard:
    """Around everything: limits, headers, and one line of JSON in the log for each call."""

    def __init__(self, app: ASGIApp, rate: int, calls: Calls) -> None:
        self._app, self._visitors, self._calls = app, Visitors(rate), calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        refusal = self._refusal(scope)
        place = _below_api(scope["path"])
        if not refusal and scope["method"] == "POST" and place.startswith((JOIN, CALL)):
            try:
                body = await Request(scope, receive).body()
            except ClientDisconnect:
                return
            receive = _again(body, receive)
            if words := self._calls.problem(place, body):
                refusal = _words(400, words)
        await (refusal or self._app)(scope, receive, send_on)
        if place := next((each for each in _PLACES if scope["path"].startswith(each)), ""):
            line = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "place": place,
                "method": scope["method"],
                "status": status,
                "milliseconds": round(1000 * (time.perf_counter() - started)),
            }
            _log.info(json.dumps(line))

    def _refusal(self, scope: Scope) -> Response | None:
        place = _below_api(scope["path"])
        if scope["path"].startswith(_API) and not place.startswith(_OPEN):
            return _words(404, "there is nothing here.")
        if place.startswith("file=") and "://" in place:
            return _words(403, "files of other hosts are not fetched.")
        if scope["method"] != "POST":
            return None
        refuse = _plain_words if place == "upload" else _words
        length = dict(scope["headers"]).get(b"content-length")
        limit = MAX_BODY if scope["path"].endswith(("/upload", MCP_PATH)) else MAX_CALL
        if length is None:
            return refuse(411, "the request does not say how long it is.")
        if not length.isdigit() or int(length) > limit:
            return refuse(413, f"the request has more than {limit // 2**20} MB; send fewer or smaller files.")
        if wait := self._visitors.wait(scope["client"][0] if scope["client"] else ""):
            return refuse(429, f"too many requests; wait {wait:.0f} seconds.", {"retry-after": f"{wait:.0f}"})
        return None


class Visitors:
    """How often each address may ask: `rate` times a minute, saved up to a minute's worth; 0 is any."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address: requests left, when

    def wait(self, address: str) -> float:
        """Count a request; the seconds to wait if it is one too many, else 0."""
        if not self._rate:
            return 0
        now = time.monotonic()
        left, then = self._left.pop(address, (float(self._rate), now))
        left = min(self._rate, left + (now - then) * self._rate / 60)
        self._left[address] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > MAX_VISITORS:
            self._left.popitem(last=False)
        return 0 if left >= 1 else max(1, (1 - left) * 60 / self._rate)


def _below_api(path: str) -> str:
    return path.removeprefix(_API) if path.startswith(_API) else ""


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` with the body once more."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def first_the_body() -> Message:
        return messages.pop() if messages else await receive()

    return first_the_body


def _not_understood(request: Request, error: Exception) -> JSONResponse:
    return _words(400, "the request is not understood; /gradio_api/info says what is.")


def _busy(request: Request, error: Exception) -> JSONResponse:
    return _words(503, answers.BUSY, {"retry-after": "60"})


def _words(status: int, words: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": words, "detail": words}, status, headers)


def _plain_words(status: int, words: str, headers: dict[str, str] | None = None) -> PlainTextResponse:
    # After a failed upload the page shows the whole body, be it a sentence or JSON.
    return PlainTextResponse(words, status, headers)
