"""The demo as assistants see it, which call tools over MCP."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import dicoms
import pytest
from mcp import Client
from running import App, running_app
from starlette.testclient import TestClient

from xray_hf.demo import answers, assistants, settings
from xray_hf.inference import Engine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def app(cnn_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    options = ("--mcp", "--max-file-mb", "1")
    with running_app([cnn_bundle], tmp_path_factory.mktemp("demo"), *options) as running:
        yield running


def call(app: App, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a tool answers; its text and its data have to be the same."""

    async def ask() -> Any:
        async with Client(f"{app.url}/mcp") as client:
            return await client.call_tool(tool, arguments)

    found = asyncio.run(ask())
    assert not found.is_error
    assert json.loads(found.content[0].text) == found.structured_content
    return dict(found.structured_content)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_the_tools_are_described(app: App) -> None:
    async def ask() -> Any:
        async with Client(f"{app.url}/mcp") as client:
            return await client.list_tools()

    tools = {tool.name: tool for tool in asyncio.run(ask()).tools}
    assert list(tools) == ["classify_chest_xray", "describe_models"]
    assert "Not a medical device" in (tools["classify_chest_xray"].description or "")
    assert tools["classify_chest_xray"].input_schema["required"] == ["image"]


@pytest.mark.parametrize("start", ["", "data:image/png;base64,", "\n"])
def test_an_assistant_gets_the_engines_answer(app: App, engine: Engine, xray: Path, start: str) -> None:
    found = call(app, "classify_chest_xray", image=start + encoded(xray.read_bytes()))
    assert found["error"] is None
    expected = engine.predict(xray)
    assert found["models"]["xray-cnn"]["decision"] == expected.decision
    assert found["models"]["xray-cnn"]["probabilities"] == pytest.approx(expected.probabilities)


def test_an_assistant_may_send_dicom(app: App) -> None:
    assert call(app, "classify_chest_xray", image=encoded(dicoms.native()))["error"] is None


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("http://127.0.0.1:1/a.png", "the image is not base64; send the file's bytes in base64."),
        ("/etc/passwd", "the image is not base64"),
        ("", "is empty"),
        (encoded(b"no image"), "not a readable image"),
    ],
)
def test_what_is_no_xray_is_answered_in_words(app: App, image: str, words: str) -> None:
    found = call(app, "classify_chest_xray", image=image)
    assert words in found["error"]
    assert found["models"] == {}


def test_the_models_are_described(app: App) -> None:
    with urlopen(f"{app.url}/health") as answer:
        assert call(app, "describe_models") == json.load(answer)["models"]


@pytest.mark.parametrize(("size", "status"), [(2**20, 400), (2 * 2**20, 413)])
def test_a_call_may_be_as_long_as_the_largest_file_in_base64(size: int, status: int) -> None:
    chosen = settings.parse(["--bundle", "a/b", "--mcp", "--max-file-mb", "1"])
    with TestClient(assistants.create_app({}, chosen), base_url="http://127.0.0.1:1") as client:
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        assert client.post("/mcp", content=bytes(size), headers=headers).status_code == status


def test_who_finds_the_queue_full_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(assistants, "_classify", lambda served, image: gate.wait(20) and {"image": image})
    chosen = settings.parse(["--bundle", "a/b", "--mcp", "--concurrency", "1", "--queue", "1"])
    headers = {"accept": "application/json, text/event-stream"}

    def ask(image: str) -> Any:
        parameters = {"name": "classify_chest_xray", "arguments": {"image": image}}
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": parameters}
        return client.post("/mcp", json=call, headers=headers).json()["result"]["structuredContent"]

    with (
        TestClient(assistants.create_app({}, chosen), base_url="http://127.0.0.1:1") as client,
        ThreadPoolExecutor(4) as visitors,
    ):
        asked = [visitors.submit(ask, name) for name in "abcd"]
        refused = [found.result() for found in islice(as_completed(asked), 2)]  # before the others are let in
        gate.set()
        given = [found.result() for found in asked]
    assert [found["error"] for found in refused] == [answers.BUSY] * 2
    assert sum("image" in found for found in given) == 2


def test_another_sites_page_may_not_call_tools(app: App, xray: Path) -> None:
    headers = {"content-type": "application/json", "origin": "https://elsewhere.example"}
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"{app.url}/mcp", data=b"{}", headers=headers))
    assert refused.value.code == 403
    refused.value.close()
