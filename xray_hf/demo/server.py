"""The page as a server: Gradio's part, files, health, and the middleware around all of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio.route_utils import FnIndexInferError
from gradio.routes import App
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from xray_hf import manifest
from xray_hf.demo import access_log, answers, cleanup
from xray_hf.demo.access_log import AccessLog
from xray_hf.demo.call_checks import CallChecks, Calls
from xray_hf.demo.examples import Example
from xray_hf.demo.headers import Headers
from xray_hf.demo.limits import Limits
from xray_hf.demo.models import Models, describe
from xray_hf.demo.page import TITLE, build, looks
from xray_hf.demo.refusals import refusal
from xray_hf.demo.settings import Settings
from xray_hf.demo.shell import PLACE, STATIC, Shell

DRAIN_SECONDS = 8  # for running answers after SIGTERM; open pages use them up, and Docker kills after 10
GZIP_LEVEL = 6
# What Gradio raises for a request that it does not expect.
_MISUNDERSTANDINGS = (LookupError, TypeError, ValueError, AttributeError, AssertionError, FnIndexInferError)


def create_app(served: Models, examples: Sequence[Example], settings: Settings) -> FastAPI:
    """The whole application, ready for uvicorn.

    GRADIO_TEMP_DIR must name a folder for this purpose only: everything put there is deleted.
    """
    tools = Starlette()
    if settings.has_mcp:
        from xray_hf.demo import assistants  # needs the package mcp

        tools = assistants.create_app(served, settings)
    page, uploads = build(served, examples, settings), Path(os.environ["GRADIO_TEMP_DIR"])
    # Gradio would keep the last answer of 10,000 visitors, X-rays included; here of one, until the sweep.
    page.blocks.state_session_capacity = 1

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with tools.router.lifespan_context(app), cleanup.swept(page.blocks, uploads):
            yield

    async def part(name: str) -> Response:
        found = page.parts.get(name)
        return HTMLResponse(found) if found else refusal(404, "there is nothing here.")

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.router.routes.extend(tools.routes)
    health = {"status": "ok", "models": describe(served)}
    app.add_api_route("/health", lambda: health)
    app.add_api_route("/parts/{name}", part)
    app.mount(f"/{PLACE}", StaticFiles(directory=STATIC))
    for number, model in enumerate(served.values()):
        folder = model.engine.manifest.folder / manifest.FIGURES
        if folder.is_dir():
            app.mount(f"/figures/{number}", StaticFiles(directory=folder))
    _mount(app, page.blocks, settings, sorted({str(each.preview.parent) for each in examples}))
    # Each wraps those before it.
    app.add_middleware(
        Shell,
        title=TITLE,
        description=page.description,
        header=page.header,
        root_path=settings.root_path,
    )
    app.add_middleware(CallChecks, calls=Calls(page.blocks, uploads))
    app.add_middleware(GZipMiddleware, compresslevel=GZIP_LEVEL)  # leaves pictures and event streams alone
    app.add_middleware(Limits, rate=settings.rate)
    app.add_middleware(Headers)
    app.add_middleware(AccessLog)
    return app


def _mount(app: FastAPI, blocks: gr.Blocks, settings: Settings, shown: list[str]) -> None:
    """Add Gradio's part, with errors in words. shown: folders of pictures on the page."""
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        root_path=settings.root_path or None,
        max_file_size=f"{settings.max_file_mb}mb",
        auth=settings.auth,
        allowed_paths=shown,
        mcp_server=False,  # see assistants.py
        show_error=False,  # tracebacks are not for visitors
        footer_links=[],  # the tab API documents the API; Gradio's own page shows code that fails
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


def serve(app: FastAPI, settings: Settings) -> None:
    """Answer until SIGTERM or Ctrl-C, then finish what runs."""
    access_log.write_to_stderr()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,  # its lines hold paths, and paths hold names of files
        log_level="warning",
        timeout_graceful_shutdown=DRAIN_SECONDS,
        # Otherwise all visitors of a Space, who come through its proxies, would count as one.
        forwarded_allow_ips="*" if "SPACE_ID" in os.environ else None,
    )
    uvicorn.Server(config).run()


def _not_understood(request: Request, error: Exception) -> Response:
    return refusal(400, "the request is not understood; /gradio_api/info describes valid ones.")


def _busy(request: Request, error: Exception) -> Response:
    return refusal(503, answers.BUSY, {"retry-after": "60"})
