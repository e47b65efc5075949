"""Limits on requests: how long one may be, and how many a visitor may send."""

from __future__ import annotations

import time
from collections import OrderedDict

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from xray_hf.demo.refusals import refusal, upload_refusal
from xray_hf.demo.settings import MB_PER_REQUEST, MCP_PATH, UPLOAD_PATH

MAX_BODY = 512 * 2**20  # bytes of one request with files
MAX_CALL = 2**20  # bytes of any other request: it names files, it does not contain them
MAX_VISITORS = 10_000  # remembered by a limit


class Limits:
    """ASGI middleware: refuses POST requests that are too long, or too many of one visitor.

    rate: requests a minute. Uploads have an allowance of their own, MB_PER_REQUEST times as many megabytes,
    because gradio_client uploads each file in its own request. 0: no limit.
    """

    def __init__(self, app: ASGIApp, rate: int) -> None:
        self._app = app
        self._requests, self._megabytes = Allowance(rate), Allowance(rate * MB_PER_REQUEST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        await ((self._refusal(scope) if is_post else None) or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        is_upload = scope["path"] == UPLOAD_PATH
        refuse = upload_refusal if is_upload else refusal
        length = dict(scope["headers"]).get(b"content-length")
        limit = MAX_BODY if is_upload or scope["path"] == MCP_PATH else MAX_CALL
        if length is None:
            return refuse(411, "the request does not say how long it is.")
        if not length.isdigit() or int(length) > limit:
            return refuse(413, f"the request has more than {limit // 2**20} MB; send fewer or smaller files.")
        address = scope["client"][0] if scope["client"] else ""
        if is_upload:
            wait = self._megabytes.wait(address, max(1, int(length) / 2**20))
        else:
            wait = self._requests.wait(address)
        if wait:
            what = "uploads" if is_upload else "requests"
            return refuse(429, f"too many {what}; wait {wait:.0f} seconds.", {"retry-after": f"{wait:.0f}"})
        return None


class Allowance:
    """A token bucket for each address: `per_minute`, saved up to a minute's worth; 0 is no limit."""

    def __init__(self, per_minute: float) -> None:
        self._per_minute = per_minute
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address: amount left, when

    def wait(self, address: str, amount: float = 1) -> float:
        """Use an amount; returns 0, or the seconds to wait if less than that is left.

        An amount above a minute's worth needs a whole minute's.
        """
        if not self._per_minute:
            return 0
        now, amount = time.monotonic(), min(amount, self._per_minute)
        left, then = self._left.pop(address, (float(self._per_minute), now))
        left = min(self._per_minute, left + (now - then) * self._per_minute / 60)
        is_enough = left >= amount
        self._left[address] = (left - amount if is_enough else left, now)
        if len(self._left) > MAX_VISITORS:
            self._left.popitem(last=False)
        return 0 if is_enough else max(1, (amount - left) * 60 / self._per_minute)
