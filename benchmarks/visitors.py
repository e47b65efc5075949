"""Visitors of a Gradio demo: each sends its images at once, as gradio_client does, and checks every answer.

An image is uploaded (POST upload), its call put in the queue (POST queue/join), and all answers of a visitor
come in one stream of events (GET queue/data). A browser's page does the same.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

API = "gradio_api"
SECONDS = 600  # for one visitor; a slower answer counts as lost
LINE = 2**20  # bytes that one event may have

Answer = dict[str, dict[str, float]]  # {model: {class: probability}}


@dataclass(frozen=True)
class Endpoint:
    """Where a demo answers. api_name: the function's. parse: its output -> Answer; raises if it has none."""

    url: str
    api_name: str
    parse: Callable[[Any], Answer]


@dataclass(frozen=True)
class Outcome:
    """What became of an image. problem: "", "error: …", "wrong" or "lost". seconds: sending to answer."""

    seconds: float
    problem: str


@dataclass
class Visitor:
    """One session. `done` has {event: (when, output)}; an answer may come before its event's name does."""

    http: aiohttp.ClientSession
    endpoint: Endpoint
    fn_index: int
    session: str = field(default_factory=lambda: uuid.uuid4().hex[:11])
    done: dict[str, tuple[float, dict[str, Any]]] = field(default_factory=dict)

    async def send(self, path: Path, joined: asyncio.Event) -> str:
        """Upload an image and ask for its answer; the event's name."""
        with path.open("rb") as file:
            form = aiohttp.FormData()
            form.add_field("files", file, filename=path.name)
            async with self.http.post(self._at("upload"), data=form) as response:
                response.raise_for_status()
                (uploaded,) = await response.json()
        data = {"path": uploaded, "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}
        call = {"data": [data], "fn_index": self.fn_index, "session_hash": self.session}
        async with self.http.post(self._at("queue/join"), json=call) as response:
            response.raise_for_status()
            event = (await response.json())["event_id"]
        joined.set()
        return str(event)

    async def listen(self) -> None:
        """Collect answers until the server says that none is left for now."""
        async for message in self._messages():
            if message["msg"] == "process_completed":
                self.done[message["event_id"]] = (time.perf_counter(), message)
            elif message["msg"] in ("close_stream", "unexpected_error"):
                return

    async def _messages(self) -> AsyncIterator[dict[str, Any]]:
        where = {"session_hash": self.session}
        async with self.http.get(self._at("queue/data"), params=where) as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])

    def _at(self, place: str) -> str:
        return f"{self.endpoint.url}/{API}/{place}"


async def crowd(
    endpoint: Endpoint, batches: Sequence[Sequence[Path]], expected: dict[Path, Answer]
) -> list[Outcome]:
    """One visitor for each batch of images, all at once; an outcome for every image, in no order."""
    async with _http() as http:
        fn_index = await _function(http, endpoint)
        visits = (visit(Visitor(http, endpoint, fn_index), paths, expected) for paths in batches)
        return [outcome for outcomes in await asyncio.gather(*visits) for outcome in outcomes]


async def visit(visitor: Visitor, paths: Sequence[Path], expected: dict[Path, Answer]) -> list[Outcome]:
    """Send all images at once and wait for all answers."""
    begun, joined = time.perf_counter(), asyncio.Event()
    sending = [asyncio.create_task(visitor.send(path, joined)) for path in paths]
    all_sent = asyncio.gather(*sending, return_exceptions=True)
    try:
        async with asyncio.timeout(SECONDS):
            # As gradio_client: the stream opens with the first call in the queue, and again if it was closed
            # between two calls.
            first = asyncio.create_task(joined.wait())
            await asyncio.wait([first, all_sent], return_when=asyncio.FIRST_COMPLETED)
            first.cancel()
            while not all_sent.done() or any(name not in visitor.done for name in _names(sending)):
                await visitor.listen()
            await all_sent
    except (TimeoutError, aiohttp.ClientError):
        all_sent.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
    return [_judge(visitor, task, begun, expected[path]) for path, task in zip(paths, sending, strict=True)]


def differ(found: Answer, expected: Answer, tolerance: float = 1e-3) -> bool:
    """Whether a model's most probable class or a probability is another."""
    if found.keys() != expected.keys():
        return True
    for model, said in found.items():
        due = expected[model]
        if said.keys() != due.keys() or any(abs(said[name] - due[name]) > tolerance for name in due):
            return True
        first, second = sorted(due.values())[-1:-3:-1]
        if first - second > tolerance and max(said, key=said.__getitem__) != max(due, key=due.__getitem__):
            return True
    return False


def _names(sending: Sequence[asyncio.Task[str]]) -> list[str]:
    return [
        task.result() for task in sending if task.done() and not task.cancelled() and not task.exception()
    ]


def _judge(visitor: Visitor, task: asyncio.Task[str], begun: float, expected: Answer) -> Outcome:
    if task.cancelled():
        return Outcome(SECONDS, "lost")
    if error := task.exception():
        return Outcome(SECONDS, f"error: {error}")
    if task.result() not in visitor.done:
        return Outcome(SECONDS, "lost")
    when, message = visitor.done[task.result()]
    if not message["success"]:
        return Outcome(when - begun, f"error: {message['output'].get('error')}")
    try:
        found = visitor.endpoint.parse(message["output"]["data"][0])
    except (KeyError, TypeError) as error:
        return Outcome(when - begun, f"error: no answer in the output ({error!r})")
    return Outcome(when - begun, "wrong" if differ(found, expected) else "")


async def _function(http: aiohttp.ClientSession, endpoint: Endpoint) -> int:
    async with http.get(f"{endpoint.url}/config") as response:
        response.raise_for_status()
        functions = (await response.json())["dependencies"]
    return int(next(each["id"] for each in functions if each["api_name"] == endpoint.api_name))


@asynccontextmanager
async def _http() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)  # a thousand images are on their way at once
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=LINE) as http:
        yield http
