"""A small Hugging Face Hub for tests: the HTTP API that the unmodified clients speak, and faults on demand.

    with running_hub("owner", "stranger") as hub:
        subprocess.run(command, env={**os.environ, **hub.environment(tmp_path, "hf_owner")})
        hub.repo("model", "owner/name").head.files["README.md"].content

A token is "hf_" and the user's name. Everything is in memory and may be looked at and changed by the test:
hub_store.py has it, hub_endpoints.py what is answered, hub_xet.py the same for the storage behind it.
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
from urllib.parse import urlsplit

import uvicorn
from hub_endpoints import application
from hub_store import Store
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

SILENT = 100  # seconds; against a patience of 5 at most: no stall of a busy machine is so long


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose method and path match the patterns.

    The method's is for all of it. skip: so many of them pass first.
    before: called first; a token that expires, a commit of somebody else.
    delay: seconds until the request is looked at.
    status: this error is the answer, and nothing is done.
    cut_request: the connection breaks when more bytes of the body than this have come.
    cut_response: it breaks after so many bytes of the answer's body; at 0 its head is lost too, though all
    was done that was asked. Below 1 both are shares of all bytes; a request without a body breaks at once.
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

    def __post_init__(self) -> None:
        """Open all endpoints."""
        self._endpoints = application(self)

    def asked(self, method: str, path: str) -> list[Asked]:
        """The recorded requests of a method whose path contains the pattern."""
        return [one for one in self.requests if one.method == method and re.search(path, one.path)]

    def unknown(self) -> list[Asked]:
        """The requests for what is not here, those for other hosts among them; complete once it is closed."""
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
        raw = scope["raw_path"].decode()
        url = urlsplit(raw)
        # As a proxy it is given whole addresses; datasets asks its viewer so, at datasets-server.localhost.
        path = url.path if (url.hostname or "").endswith("localhost") else raw
        asked = Asked(scope["method"], path, dict(Headers(scope=scope)))
        self.requests.append(asked)
        wire = Wire(asked, self._fault(asked), scope["state"]["transport"], receive, send)
        # Routes are matched before quotes are undone: a branch may have a slash in its name.
        scope = {**scope, "path": path}
        if not await wire.fail(scope):
            await self._endpoints(scope, wire.receive, wire.send)
            asked.is_known = "endpoint" in scope and asked.status != 405

    def _fault(self, asked: Asked) -> Fault | None:
        for fault in self.faults:
            if not re.fullmatch(fault.method, asked.method) or not re.search(fault.path, asked.path):
                continue
            if fault.skip > 0:
                fault.skip -= 1
            elif fault.times > 0:
                fault.times -= 1
                return fault
        return None


class Wire:
    """The connection under one request, which a fault may break."""

    def __init__(
        self, asked: Asked, fault: Fault | None, transport: asyncio.Transport, receive: Receive, send: Send
    ) -> None:
        self.asked, self.fault, self.transport = asked, fault or Fault("", ""), transport
        self._receive, self._send = receive, send
        self._received = self._sent = self._size = 0

    async def fail(self, scope: Scope) -> bool:
        """What a fault does in place of the route; whether it has answered."""
        await asyncio.sleep(self.fault.delay)
        if self.fault.before:
            self.fault.before()
        if self.fault.cut_request is not None and not self._bytes_of_request():
            self._cut()
            return True
        if self.fault.status is None:
            return False
        await Request(scope, self.receive).body()
        # parse_ratelimit_headers (utils/_http.py): no request left, new ones in 0 seconds.
        headers = {"RateLimit": '"api";r=0;t=0'} if self.fault.status == 429 else {}
        error = JSONResponse({"error": f"fault {self.fault.status}"}, self.fault.status, headers)
        await error(scope, self.receive, self.send)
        return True

    async def receive(self) -> Message:
        """Receive on, until too much has come."""
        message = await self._receive()
        self._received += len(message.get("body", b""))
        room = _room(self.fault.cut_request, self._bytes_of_request())
        if room is not None and self._received > room:
            self._cut()
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """Send on, until too much would be sent."""
        if message["type"] == "http.response.start":
            self._size = int(Headers(raw=message["headers"]).get("content-length", 0))
        body, room = message.get("body", b""), _room(self.fault.cut_response, self._size)
        self._sent += len(body)
        if room is not None and (room == 0 or self._sent > room) and not self.asked.is_cut:
            if rest := body[: room - self._sent]:
                await self._send({"type": "http.response.body", "body": rest, "more_body": True})
            self._cut()
        if self.asked.is_cut:
            return
        if message["type"] == "http.response.start":
            self.asked.status = message["status"]
        await self._send(message)

    def _bytes_of_request(self) -> int:
        return int(self.asked.headers.get("content-length", 0))

    def _cut(self) -> None:
        self.asked.is_cut = True
        if self.fault.reset:
            # Linger for 0 seconds: what is unsent is forgotten and the peer told by an RST.
            connection: socket.socket = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()


def _room(limit: float | None, size: int) -> int | None:
    """Bytes that pass of so many."""
    return None if limit is None else int(limit * size if limit < 1 else limit)


class _Protocol(H11Protocol):
    """uvicorn's, with the connection in the scope's state, where Wire can break it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {"transport": transport}
        super().connection_made(transport)


@contextmanager
def running_hub(*users: str, page_size: int = 1000, part_size: int = 16_000_000) -> Iterator[Hub]:
    """Serve a Hub with these users on a free port of the loopback, in a thread."""
    hub = Hub({f"hf_{user}": user for user in users}, page_size, part_size)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        # The same machine under two names is two hosts for a client: _is_same_or_hub_host (utils/_http.py).
        hub.url, hub.cdn_url = f"http://localhost:{port}", f"http://127.0.0.1:{port}"
        config = uvicorn.Config(
            hub, http=_Protocol, lifespan="off", log_level="error", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield hub
        finally:
            server.should_exit = True
            thread.join()
