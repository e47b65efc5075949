"""Checks of requests to Gradio's part of the server, before Gradio sees them.

Only the addresses that the page and programs need are open. Gradio opens files by the names in a
call. In a mounted app, such as ours, it checks neither that a visitor uploaded them nor that they are on this
computer. And since calls of several visitors are answered together, one that makes Gradio fail would leave
all of them without an answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xray_hf.demo.refusals import refusal

API = "/gradio_api/"
# The addresses that page and programs need. The others run functions without the queue, fetch from other
# hosts, or record what visitors do.
OPEN = (
    *("upload", "queue/", "call/", "cancel", "reset", "heartbeat/", "file=", "info", "openapi.json"),
    *("startup-events", "theme.css", "user", "login_check", "token", "app_id"),
)
# The page's own calls name a function by number, programs by name; /v2 takes {parameter: value}, not a list.
JOIN, CALL, CALL_V2 = "queue/join", "call/", "call/v2/"


class CallChecks:
    """ASGI middleware: refuses closed addresses, and calls with values that the function does not take."""

    def __init__(self, app: ASGIApp, calls: Calls) -> None:
        self._app, self._calls = app, calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] != "http" or not scope["path"].startswith(API):
            await self._app(scope, receive, send)
            return
        place = scope["path"].removeprefix(API)
        found = _closed(place)
        if not found and scope["method"] == "POST" and place.startswith((JOIN, CALL)):
            try:
                body = await Request(scope, receive).body()
            except ClientDisconnect:
                return
            receive = _replay(body, receive)
            if words := self._calls.problem(place, body):
                found = refusal(400, words)
        await (found or self._app)(scope, receive, send)


class Calls:
    """The functions of a page, and the folder of its visitors' uploads."""

    def __init__(self, page: gr.Blocks, uploads: Path) -> None:
        self._functions, self._uploads = page.fns, uploads.resolve()

    def problem(self, place: str, body: bytes) -> str:
        """Why a call is refused; empty if it is not. place: its path below /gradio_api/."""
        try:
            call = json.loads(body)
        except (ValueError, RecursionError):
            return "the request is not JSON."
        if not isinstance(call, dict):
            return "the request is not a JSON object."
        if (function := self._function(place, call)) is None:
            return "there is no such function; /gradio_api/info lists them."
        values = list(call.values()) if place.startswith(CALL_V2) else call.get("data")
        if not isinstance(values, list) or len(values) != len(function.inputs):
            return f"the function takes {len(function.inputs)} values."
        if not all(_fits(block, value) for block, value in zip(function.inputs, values, strict=True)):
            return "a value is not what the function takes; /gradio_api/info describes it."
        if not all(self._is_upload(path) for path in _paths(call)):
            return "a file was not uploaded here; upload it first."
        return ""

    def _function(self, place: str, call: dict[str, Any]) -> Any:
        if place == JOIN:
            number = call.get("fn_index")
            return self._functions.get(number) if type(number) is int else None
        name = place.removeprefix(CALL_V2).removeprefix(CALL).rstrip("/")
        public = (each for each in self._functions.values() if each.api_visibility != "private")
        return next((each for each in public if each.api_name == name), None)

    def _is_upload(self, path: object) -> bool:
        try:
            return isinstance(path, str) and Path(path).resolve().is_relative_to(self._uploads)
        except (ValueError, OSError, RuntimeError):  # a NUL, a name too long, links in a circle
            return False


def _closed(place: str) -> Response | None:
    if not place.startswith(OPEN):
        return refusal(404, "there is nothing here.")
    if place.startswith("file=") and "://" in place:
        return refusal(403, "files of other hosts are not fetched.")
    return None


def _replay(body: bytes, receive: Receive) -> Receive:
    """`receive`, which first gives the body that was already read."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def first_the_body() -> Message:
        return messages.pop() if messages else await receive()

    return first_the_body


def _fits(block: Any, value: object) -> bool:
    """Whether a component takes the value, by Gradio's own check."""
    if (model := getattr(block, "data_model", None)) is None or value is None:
        return True
    try:
        model.model_validate(value, context={"validate_meta": True})
    except (ValueError, TypeError, AttributeError, LookupError):  # Gradio's own validators raise these, too
        return False
    return True


def _paths(call: dict[str, Any]) -> Iterator[object]:
    """Every "path" in it, however deep."""
    rest: list[Any] = [call]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            if "path" in value:
                yield value["path"]
            rest += value.values()
        elif isinstance(value, list):
            rest += value
