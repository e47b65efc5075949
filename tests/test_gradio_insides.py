"""What the demo uses of Gradio without its promise; docs/demo.md has the list, and the reasons by number."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path

import gradio as gr
import pytest
from fastapi import FastAPI
from gradio import queueing
from gradio.route_utils import FnIndexInferError
from gradio.routes import App
from gradio.state_holder import StateHolder
from starlette.routing import Mount
from starlette.testclient import TestClient

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FRONTEND = Path(gr.__file__).parent / "templates" / "frontend"


def create() -> tuple[gr.Blocks, FastAPI]:
    """A page of one function, in an application of its own."""

    def read(file: str) -> str:
        """Read it."""
        return file

    async def mount() -> tuple[gr.Blocks, FastAPI]:  # outside a loop, Gradio leaves loops open
        with gr.Blocks(analytics_enabled=False) as page:
            gr.Button().click(read, gr.File(elem_classes="upload"), gr.JSON(), api_name="read")
        app = FastAPI()
        gr.mount_gradio_app(app, page.queue(), path="/", mcp_server=False, footer_links=[])
        return page, app

    return asyncio.run(mount())


@pytest.fixture
def page() -> gr.Blocks:
    return create()[0]


def test_the_list_has_a_test_for_each_line() -> None:
    listed = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8").partition("internals\n")[2]
    numbers = re.findall(r"^\| (\d+) \|", listed, re.MULTILINE)
    assert sorted(numbers, key=int) == sorted(
        {number for name in globals() for number in re.findall(r"^test_(\d+)_", name)}, key=int
    )


def test_1_the_head_of_its_page_is_built_as_the_shell_takes_it_apart() -> None:
    with TestClient(create()[1]) as client:
        html = client.get("/").text
    head, end, body = html.partition("</head>")
    assert end
    assert body.count("<gradio-app") == 1
    assert len(re.findall(r'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>', head)) == len(
        re.findall("(?:og|twitter):", head)
    )
    assert len(re.findall(r'<link rel="stylesheet"', head)) == 1
    scripts = re.findall(r"<script([^>]*)>", head)
    assert sum("src=" in each for each in scripts) == sum('type="module"' in each for each in scripts) == 1
    assert "window.gradio_config = " in head


def test_2_its_page_has_the_classes_that_our_styles_name() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in FRONTEND.glob("assets/*.js"))
    named = ("gradio-container", "main", "icon-button", "upload-container", "file-preview")
    for name in (*named, "download-link", "form"):
        assert re.search(rf"[\"'`\s]{name}[\"'`\s$]", code), name
    assert "classList.add(`dark`)" in code or 'classList.add("dark")' in code


def test_3_its_app_is_mounted_in_ours_and_raises_its_own_error() -> None:
    (mounted,) = [route for route in create()[1].routes if isinstance(route, Mount)]
    assert isinstance(mounted.app, App)
    assert issubclass(FnIndexInferError, Exception)


def test_4_the_number_of_sessions_kept_can_be_set(page: gr.Blocks) -> None:
    assert page.state_session_capacity == 10_000
    page.state_session_capacity = 1
    sessions = StateHolder()
    sessions.set_blocks(page)
    for name in "ab":
        assert sessions[name]
    assert list(sessions.session_data) == ["b"]


def test_5_a_function_says_what_it_takes(page: gr.Blocks) -> None:
    (function,) = page.fns.values()
    assert (function.api_name, function.api_visibility) == ("read", "public")
    assert inspect.getdoc(function.fn) == "Read it."
    (file,) = function.inputs
    with pytest.raises(ValueError, match="meta"):
        file.data_model.model_validate({"path": "x", "meta": {}}, context={"validate_meta": True})


def test_6_calls_come_to_the_addresses_that_are_checked() -> None:
    with TestClient(create()[1]) as client:
        for place in ("queue/join", "call/read", "call/v2/read", "upload"):
            assert client.post(f"/gradio_api/{place}", content=b"{").status_code in (400, 422), place
        assert client.post("/gradio_api/another", content=b"{").status_code in (404, 405)


def test_7_its_description_of_the_functions_has_the_form_that_the_documentation_reads(
    page: gr.Blocks,
) -> None:
    found = page.get_api_info()["named_endpoints"]
    (parameter,) = found["/read"]["parameters"]
    assert parameter["parameter_name"] == "file"
    assert parameter["parameter_has_default"] is False
    assert parameter["python_type"]["type"] == "filepath"


def test_8_its_queue_keeps_answers_by_session(page: gr.Blocks) -> None:
    queue = page._queue
    assert queue.event_ids_to_events == {}
    assert len(queue.pending_messages_per_session) == 0
    assert queue.pending_event_ids_session == {}
    assert hasattr(queueing.Event, "session_hash") or "session_hash" in inspect.getsource(queueing.Event)


def test_9_its_sessions_and_uploads_can_be_forgotten(page: gr.Blocks) -> None:
    assert page.upload_file_set == set()
    with page.state_holder.lock:
        page.state_holder.session_data.clear()
        page.state_holder.time_last_used.clear()


def test_10_the_table_of_answers_is_limited_by_the_environment() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in Path(gr.__file__).parent.glob("*.py"))
    for variable in ("GRADIO_ANALYTICS_MAX_EVENTS", "GRADIO_ANALYTICS_CACHE_FREQUENCY"):
        assert f'"{variable}"' in source
