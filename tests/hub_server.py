"""A small Hugging Face Hub for tests: the HTTP API that the unmodified clients speak, and faults on demand.

    with running_hub() as hub:
        subprocess.run(command, env={**os.environ, **hub.environment(tmp_path, "hf_owner")})
        hub.repo("model", "owner/name").head.files["README.md"].content

Its users are owner and stranger; a token is "hf_" and the user's name. Everything is in memory and may be
looked at and changed by the test: hub_store.py has it. hub_endpoints.py has what is answered, hub_xet.py the
same for the storage behind it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import hub_endpoints
import uvicorn
from hub_endpoints import Call
from hub_store import Store, UnknownError
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

SILENT = 100  # seconds; against a patience of 5 at most: no stall of a busy machine is so long


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose method and path match the patterns.

    The method's is for all of it. skip: so many of them pass first.
    before: called first; a token that expires, a commit of somebody else.
    delay: seconds until the request is looked at.
    status: this error is the answer, and nothing is done.
    cut_request: the connection breaks when so many bytes of the body have come.
    cut_response: it breaks after so many bytes of the answer's body; at 0 its head is lost too, though all
    was done that was asked. Below 1 both are shares of all bytes.
    reset: a break is an RST, not an orderly close, as of a server that is restarted.
    """

    method: str
    path: str
    before: Callable[[], object] | None = None
    delay: float = 0
    status: int | None = None
    cut_request: float | None = None
    cut_response: float | None = None
    reset: bool = False
    skip: int = 0
    times: int = 1


@dataclass
class Asked:
    """A request in the Hub's record; status: of the answer, None where none was sent. is_cut: by a fault."""

    method: str
    path: str  # as it came, still quoted; with scheme and host where another host was meant
    headers: Mapping[str, str] = field(repr=False)
    status: int | None = None
    is_known: bool = True
    is_cut: bool = False


@dataclass
class Hub(Store):
    """The Hub as an ASGI application, which records what it is asked and lets faults happen."""

    faults: list[Fault] = field(default_factory=list)
    requests: list[Asked] = field(default_factory=list)

    def asked(self, method: str, path: str) -> list[Asked]:
        """The recorded requests of a method whose path contains the pattern."""
        return [one for one in self.requests if one.method == method and re.search(path, one.path)]

    def unknown(self) -> list[Asked]:
        """The requests for what is not here, those for other hosts among them."""
        return [one for one in self.requests if not one.is_known]

    def environment(self, home: Path, token: str | None, *, xet: bool = False) -> dict[str, str]:
        """What a client's process needs in its environment.

        The Hub is its proxy for all other hosts, and answers for none: whoever else is asked is recorded.
        xet: whether large files move by Xet, as they do unless it is switched off, or by LFS.
        """
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": token or "",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "0" if xet else "1",
            "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",  # else up to minutes between two tries
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # else datasets asks S3
            "http_proxy": self.url,
            "https_proxy": self.url,
            "no_proxy": "localhost,127.0.0.1",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it fail."""
        asked = Asked(scope["method"], scope["raw_path"].decode(), Headers(scope=scope))
        self.requests.append(asked)
        fault = self._fault(asked)
        await asyncio.sleep(fault.delay)
        if fault.before:
            fault.before()
        room = _room(fault.cut_request, int(asked.headers.get("content-length", 0)))
        body = await _body(receive, room)
        if body is None:
            asked.is_cut = room is not None
            await _break(send, fault)
            return
        answer = self._answer(asked, QueryParams(scope["query_string"]), body, fault.status)
        room = _room(fault.cut_response, len(answer.body))
        asked.is_cut = room is not None and (room == 0 or room < len(answer.body))
        if room != 0:
            asked.status = answer.status_code
            head = {"status": answer.status_code, "headers": answer.raw_headers}
            await send({"type": "http.response.start", **head})
            await send({"type": "http.response.body", "body": answer.body[:room], "more_body": asked.is_cut})
        if asked.is_cut:
            await _break(send, fault)

    def _answer(self, asked: Asked, query: QueryParams, body: bytes, error: int | None) -> Response:
        """What it says, or the error, as hf_raise_for_status and _format (utils/_http.py) read it."""
        # Split before quotes are undone: a name may have a slash. HEAD is answered as GET, less the body.
        host, *path = [unquote(segment) for segment in asked.path.split("/")]
        call = Call(self, asked.method.replace("HEAD", "GET"), path, query, asked.headers, body)
        try:
            if error:
                raise HTTPException(error, f"fault {error}")
            if host:
                raise UnknownError(404)
            found = hub_endpoints.answer(call)
        except HTTPException as refusal:
            asked.is_known = not isinstance(refusal, UnknownError)
            headers = {"X-Error-Message": refusal.detail, **(refusal.headers or {})}
            return JSONResponse({"error": refusal.detail}, refusal.status_code, headers)
        return found if isinstance(found, Response) else JSONResponse(found)

    def _fault(self, asked: Asked) -> Fault:
        for fault in self.faults:
            if not re.fullmatch(fault.method, asked.method) or not re.search(fault.path, asked.path):
                continue
            if fault.skip > 0:
                fault.skip -= 1
            elif fault.times > 0:
                fault.times -= 1
                return fault
        return Fault("", "")


async def _body(receive: Receive, room: int | None) -> bytes | None:
    """The body of a request; None if the client is gone, or as soon as there is no room for more."""
    body, is_more = bytearray(), True
    while is_more:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or (room is not None and len(body) >= room):
            return None
        is_more = message["more_body"]
    return bytes(body)


def _room(limit: float | None, size: int) -> int | None:
    """Bytes that pass of so many."""
    return None if limit is None else int(limit * size if limit < 1 else limit)


async def _break(send: Send, fault: Fault) -> None:
    """Break the connection, which uvicorn's cycle has, whose method `send` is."""
    transport: asyncio.Transport = send.__self__.transport  # type: ignore[attr-defined]
    if fault.reset:
        # Linger for 0 seconds: what is unsent is forgotten and the peer told by an RST.
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
    await asyncio.sleep(0)  # so that uvicorn notices before it wants an answer


@contextmanager
def serving_hubs() -> Iterator[Callable[[], Hub]]:
    """Serve, in a thread, at a free port of the loopback, the empty Hub that the last call of this made."""
    hub: Hub

    def new() -> Hub:
        nonlocal hub
        # The same machine under two names is two hosts for a client: _is_same_or_hub_host (utils/_http.py).
        hub = Hub(f"http://localhost:{port}", f"http://127.0.0.1:{port}")
        return hub

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await hub(scope, receive, send)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            application, http="h11", lifespan="off", log_level="error", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield new
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve one Hub; nobody asks it, nor any other host, for what it does not know."""
    with serving_hubs() as new:
        hub = new()
        yield hub
    assert hub.unknown() == []
