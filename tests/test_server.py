"""The demo's options, limits, headers, compression and log."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from xray_hf.demo import limits, settings
from xray_hf.demo.access_log import AccessLog
from xray_hf.demo.call_checks import CallChecks, Calls
from xray_hf.demo.headers import FOREVER, Headers
from xray_hf.demo.limits import Allowance, Limits
from xray_hf.demo.settings import MB_PER_REQUEST
from xray_hf.demo.shell import PLACE
from xray_hf.errors import BundleError, ConfigError

pytestmark = pytest.mark.slow


class AnyCall(Calls):
    """Takes whatever is called."""

    def __init__(self) -> None:
        pass

    def problem(self, place: str, body: bytes) -> str:
        return ""


def client(rate: int = 0) -> TestClient:
    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{len(await request.body())} bytes")

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    app.add_middleware(CallChecks, calls=AnyCall())
    app.add_middleware(Limits, rate=rate)
    app.add_middleware(Headers)
    app.add_middleware(AccessLog)
    return TestClient(app)


def test_every_answer_forbids_other_hosts() -> None:
    policy = client().get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    assert "http" not in policy


def test_a_browser_keeps_only_files_whose_address_changes_with_them() -> None:
    assert client().get(f"/{PLACE}/main.js").headers["cache-control"] == FOREVER
    assert client().get("/assets/index-0123.js").headers["cache-control"] == FOREVER
    for address in ("/", "/parts/api", "/gradio_api/file=/tmp/a.png", "/health"):
        assert "cache-control" not in client().get(address).headers


def test_a_call_longer_than_a_megabyte_is_refused_but_an_upload_is_not() -> None:
    content = bytes(limits.MAX_CALL + 1)
    refused = client().post("/gradio_api/queue/join", content=content)
    assert (refused.status_code, refused.json()["error"]) == (
        413,
        "the request has more than 1 MB; send fewer or smaller files.",
    )
    assert client().post("/gradio_api/upload", content=content).status_code == 200


def test_a_request_of_unknown_length_is_refused() -> None:
    answer = client().post("/gradio_api/upload", content=iter([b"a", b"b"]))
    assert answer.status_code == 411


def test_the_page_is_told_in_a_sentence_why_an_upload_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio's page shows a visitor the whole body."""
    monkeypatch.setattr(limits, "MAX_BODY", 2**20)
    visitor, address = client(rate=1), "/gradio_api/upload?upload_id=a"
    large = visitor.post(address, content=bytes(2**20 + 1))
    assert (large.status_code, large.text) == (
        413,
        "the request has more than 1 MB; send fewer or smaller files.",
    )
    assert large.headers["content-type"].startswith("text/plain")
    assert [visitor.post(address).status_code for _ in range(MB_PER_REQUEST)] == [200] * MB_PER_REQUEST
    soon = visitor.post(address)
    assert (soon.status_code, soon.text) == (429, "too many uploads; wait 6 seconds.")
    assert soon.headers["retry-after"] == "6"


def test_uploads_are_no_calls_but_limited_by_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.time, "monotonic", lambda: 0.0)
    visitor, upload, call = client(rate=1), "/gradio_api/upload", "/gradio_api/queue/join"
    assert visitor.post(upload, content=bytes(7 * 2**20)).status_code == 200
    assert visitor.post(upload, content=bytes(4 * 2**20)).status_code == 429
    assert [visitor.post(upload, content=b"x").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert [visitor.post(call).status_code for _ in range(2)] == [200, 429]


def test_who_asks_too_often_is_told_how_long_to_wait() -> None:
    visitor = client(rate=3)
    assert [visitor.post("/gradio_api/queue/join").status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = visitor.post("/gradio_api/queue/join")
    assert refused.json()["error"] == "too many requests; wait 20 seconds."
    assert refused.headers["retry-after"] == "20"
    assert visitor.get("/").status_code == 200


def test_requests_are_saved_up_for_a_minute_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)
    visitors = Allowance(per_minute=2)
    assert [visitors.wait("a") for _ in range(3)] == [0, 0, 30]
    assert visitors.wait("b") == 0
    now = 3600.0
    assert [visitors.wait("a") > 0 for _ in range(3)] == [False, False, True]


def test_more_than_a_minutes_worth_is_let_through_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)
    visitors = Allowance(per_minute=10)
    assert [visitors.wait("a", 500) for _ in range(2)] == [0, 60]
    now = 60.0
    assert visitors.wait("a", 500) == 0


def test_old_visitors_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_VISITORS", 2)
    visitors = Allowance(per_minute=1)
    assert [visitors.wait(name) for name in "abc"] == [0, 0, 0]
    assert visitors.wait("a") == 0
    assert visitors.wait("c") > 0


def test_the_log_is_json_and_names_no_file(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="xray_hf.demo"):
        client().get("/gradio_api/file=/tmp/mrs-smith.png")
        client().post("/gradio_api/upload?name=mrs-smith.png", content=b"smith")
    [line] = [json.loads(record.message) for record in caplog.records]
    assert {key: line[key] for key in ("place", "method", "status")} == {
        "place": "/gradio_api/upload",
        "method": "POST",
        "status": 200,
    }
    assert "smith" not in caplog.text


@pytest.mark.parametrize(("variable", "value"), [("XRAY_HF_BACKEND", "x"), ("GRADIO_SERVER_PORT", "0")])
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=f"env var: '{variable}'.*{value}"):
        settings.parse(["--bundle", "a/b"])


def test_options_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XRAY_HF_BUNDLES", "a/b,c/d")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7999")
    monkeypatch.setenv("XRAY_HF_AUTH", "user:a:b")
    chosen = settings.parse(["--rate", "5"])
    assert (chosen.bundles, chosen.port, chosen.rate) == (("a/b", "c/d"), 7999, 5)
    assert chosen.auth == ("user", "a:b")
    assert settings.parse(["--bundle", "e/f"]).bundles == ("e/f",)


@pytest.mark.parametrize(
    ("options", "variable", "words"),
    [
        (["--port", "0"], "", "'--port' .*: 0 is not in the range 1<=x<=65535"),
        (["--concurrency", "0"], "", "'--concurrency' .*: 0 is not in the range x>=1"),
        (["--rate", "-1"], "", "'--rate' .*: -1 is not in the range x>=0"),
        ([], "nobody", "XRAY_HF_AUTH is not of the form user:password"),
    ],
)
def test_wrong_options_end_in_words(
    monkeypatch: pytest.MonkeyPatch, options: list[str], variable: str, words: str
) -> None:
    monkeypatch.setenv("XRAY_HF_AUTH", variable)
    with pytest.raises(ConfigError, match=words):
        settings.parse(["--bundle", "a/b", *options])


def test_help_names_every_variable_and_its_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        settings.parse(["--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "[env var: GRADIO_SERVER_PORT; default: 7860; 1<=x<=65535]" in words
    for variable in ("GRADIO_ROOT_PATH", "XRAY_HF_EXAMPLES", "XRAY_HF_BUNDLES"):  # of no default
        assert f"[env var: {variable}]" in words


def test_mcp_that_is_not_installed_is_not_left_out_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--mcp needs the package mcp; run `pip install 'xray_hf\[mcp\]'`"):
        settings.parse(["--bundle", "a/b", "--mcp"])


@pytest.mark.parametrize(("value", "is_on"), [("1", True), ("0", False), ("", False)])
def test_a_space_may_switch_mcp_on(monkeypatch: pytest.MonkeyPatch, value: str, is_on: bool) -> None:
    monkeypatch.setenv("XRAY_HF_MCP", value)
    assert settings.parse(["--bundle", "a/b"]).has_mcp is is_on


def test_a_switch_that_is_neither_on_nor_off_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XRAY_HF_MCP", "perhaps")
    with pytest.raises(ConfigError, match=r"'XRAY_HF_MCP'.*: 'perhaps' is not a valid boolean"):
        settings.parse(["--bundle", "a/b"])


def test_mcp_and_a_password_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XRAY_HF_AUTH", "user:secret")
    with pytest.raises(ConfigError, match="--mcp asks for no password; leave it or XRAY_HF_AUTH out"):
        settings.parse(["--bundle", "a/b", "--mcp"])


def test_without_a_bundle_the_next_step_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="or name a model with --bundle"):
        settings.parse([])


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ("models: owner/x", "has models 'owner/x'; expected a list of Hub ids"),
        ("models:", "has models None; expected a list"),
        ("models: [1]", "expected a list of Hub ids"),
        ("models: [", "has metadata that cannot be read"),
    ],
)
def test_a_spaces_readme_that_names_no_models_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text(f"---\n{metadata}\n---\n# Space\n")
    with pytest.raises(ConfigError, match=words):
        settings.parse([])


def test_a_spaces_readme_names_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("---\nmodels:\n- owner/x\n- owner/y\n---\n# Space\n")
    assert settings.parse([]).bundles == ("owner/x", "owner/y")
