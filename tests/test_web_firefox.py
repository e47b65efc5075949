"""The page that needs no server in Firefox, which is asked by WebDriver BiDi."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import build_web
import pytest
from running import ROOT, START_SECONDS
from serve_web import serving
from websockets.sync.client import ClientConnection, connect

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
if "CI" not in os.environ and not (FIREFOX and (ROOT / "web" / "vendor").is_dir()):
    pytest.skip("no Firefox (Debian: firefox-esr), or no web/vendor (`make web`)", allow_module_level=True)

# Loads the models, takes an example, waits for the service worker, asks another host.
VISIT = """
(async () => {
  const until = async (find) => {
    while (!find()) await new Promise((next) => setTimeout(next, 100));
    return find();
  };
  document.querySelector("#welcome button").click();
  await until(() => document.querySelector("#progress").textContent === "");
  document.querySelector("#examples button").click();
  await until(() => document.querySelector("#answers .decision"));
  await navigator.serviceWorker.ready;
  return JSON.stringify({
    decisions: [...document.querySelectorAll("#answers .decision")].map((each) => each.textContent),
    problems: [...document.querySelectorAll("#answers .problem")].length,
    isIsolated: crossOriginIsolated,
    elsewhere: await fetch("ELSEWHERE", { mode: "no-cors" }).then(() => "sent", () => "not sent"),
  });
})()
"""


@contextmanager
def firefox(profile: Path) -> Iterator[ClientConnection]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    options = ["--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", port]
    with subprocess.Popen([str(FIREFOX), *options], stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(int(port))
            with connect(f"ws://127.0.0.1:{port}/session", max_size=None) as browser:
                yield browser
        finally:
            process.terminate()


def wait_for(port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail("Firefox did not start")


def ask(browser: ClientConnection, method: str, **params: Any) -> Any:
    """The result of a command; events are skipped."""
    browser.send(json.dumps({"id": 1, "method": method, "params": params}))
    while True:
        said = json.loads(browser.recv(timeout=START_SECONDS))
        if said.get("id") == 1:
            assert said["type"] == "success", said
            return said["result"]


def test_firefox_answers_keeps_the_page_and_asks_no_other_host(tmp_path: Path) -> None:
    site = tmp_path / "site"
    build_web.build([ROOT / "pretrained" / "xray-cnn-multisource"], site)
    (tmp_path / "profile").mkdir()
    with serving(site) as address, serving(site) as elsewhere, firefox(tmp_path / "profile") as browser:
        ask(browser, "session.new", capabilities={})
        [tab] = ask(browser, "browsingContext.getTree")["contexts"]
        ask(browser, "browsingContext.navigate", context=tab["context"], url=address, wait="complete")
        code = VISIT.replace("ELSEWHERE", elsewhere)
        target = {"context": tab["context"]}
        found = ask(browser, "script.evaluate", expression=code, target=target, awaitPromise=True)
    assert json.loads(found["result"]["value"]) == {
        "decisions": ["Normal"],
        "problems": 0,
        "isIsolated": True,
        "elsewhere": "not sent",
    }
