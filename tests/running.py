"""The demo and other programs as processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import requests

ROOT = Path(__file__).parents[1]
START_SECONDS = 120  # on a busy machine


def in_turn(*programs: str) -> str:
    """One program that runs others without each other's names; prints the last line of each as a JSON list.

    Libraries are imported once: that takes longer than anything that the tests' programs do.
    """
    return f"""
import contextlib, io, json
said = []
for program in {programs!r}:
    with contextlib.redirect_stdout(io.StringIO()) as lines:
        exec(program, {{"__name__": "__main__"}})
    said.append(lines.getvalue().strip().splitlines()[-1])
print(json.dumps(said))
"""


def run_training(*options: object, draws: bool = True) -> None:
    """train.py as from the command line, in this process; without figures, which take as long as training."""
    from accelerate.state import AcceleratorState

    from xray_hf.report import figures
    from xray_hf.training.config import parse
    from xray_hf.training.run import train

    AcceleratorState._reset_state(reset_partial_state=True)  # of other tests' number format
    with pytest.MonkeyPatch.context() as patch:
        if not draws:
            patch.setattr(figures, "draw_all", lambda *_: {})
        train(parse([*map(str, options)]))
    AcceleratorState._reset_state(reset_partial_state=True)


@dataclass(frozen=True)
class App:
    """A running demo."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def running_app(
    bundles: Sequence[Path],
    folder: Path,
    *options: str,
    cwd: Path | None = None,
    app: Path = ROOT / "app.py",
    python: str = sys.executable,
    **environment: str,
) -> Iterator[App]:
    """Start it; when it ends, it must say that all is well and leave none of its files in `folder`.

    Its log is `folder`/app.log, its TMPDIR `folder`/temporary.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    named = [word for bundle in bundles for word in ("--bundle", str(bundle))]
    command = [python, str(app), *named, "--port", port, *options]
    temporary = folder / "temporary"
    temporary.mkdir()
    with (folder / "app.log").open("w") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, "TMPDIR": str(temporary), **environment},
            cwd=cwd,
            stdout=log,
            stderr=log,
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process, Path(log.name))
            yield App(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()
            code = process.wait(timeout=60)
    assert code == 0, f"{code}: {(folder / 'app.log').read_text()}"
    assert not list(temporary.glob("xray_hf-demo-*"))


@contextmanager
def proxy(target: str) -> Iterator[str]:
    """The address at which a server shows `target` below /xray, and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix("/xray")
            if path == self.path:
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with requests.request(
                self.command, target + path, headers=dict(self.headers), data=body
            ) as answer:
                self.send_response(answer.status_code)
                for name in ("content-type", "set-cookie"):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.end_headers()
                self.wfile.write(answer.content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/xray"
        server.shutdown()
        thread.join()


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            with urlopen(address, timeout=5):
                return
        except URLError:
            time.sleep(0.2)
    pytest.fail(f"the app did not start: {log.read_text()}")
