"""The demo and other programs as processes of their own."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import requests
from warm_python import Program, WarmPython, warm_python

ROOT = Path(__file__).parents[1]
START_SECONDS = 120  # on a busy machine


# Where a program trains, but nobody looks at figures, which take as long as training.
DRAW_NOTHING = "from xray_hf.report import figures; "
DRAW_NOTHING += "figures.draw_all = lambda *_: {}; figures.save = lambda *_: None; "


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


@contextmanager
def without_figures() -> Iterator[None]:
    """For tests that do not look at the figures of a bundle."""
    from xray_hf.report import figures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw_all", lambda *_: {})
        patch.setattr(figures, "save", lambda *_: None)
        yield


def run_training(*options: object, draws: bool = True) -> None:
    """train.py as from the command line, in this process; without figures, which take as long as training."""
    from accelerate.state import AcceleratorState

    from xray_hf.training.config import parse
    from xray_hf.training.run import train

    AcceleratorState._reset_state(reset_partial_state=True)  # of other tests' number format
    with nullcontext() if draws else without_figures():
        train(parse([*map(str, options)]))
    AcceleratorState._reset_state(reset_partial_state=True)


@dataclass(frozen=True)
class App:
    """A running demo."""

    url: str
    process: Program | subprocess.Popen[bytes]


@contextmanager
def running_app(
    bundles: Sequence[Path],
    folder: Path,
    *options: str,
    cwd: Path | None = None,
    app: Path = ROOT / "app.py",
    python: str | None = None,
    **environment: str,
) -> Iterator[App]:
    """Start it; when it ends, it must say that all is well and leave none of its files in `folder`.

    Its log is `folder`/app.log, its TMPDIR `folder`/temporary. python: runs it from the start; by default
    the app is a fork that has its imports already, which are most of a start.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    named = [word for bundle in bundles for word in ("--bundle", str(bundle))]
    arguments = [*named, "--port", port, *options]
    temporary, log = folder / "temporary", folder / "app.log"
    temporary.mkdir()
    changed = {**os.environ, "TMPDIR": str(temporary), **environment}
    cwd = cwd or Path.cwd()
    start = (
        _process([python, str(app), *arguments], changed, cwd, log)
        if python
        else _fork(app, arguments, changed, cwd, log)
    )
    with start as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process, log)
            yield App(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()
            code = process.wait()
    assert code == 0, f"{code}: {log.read_text()}"
    assert not list(temporary.glob("xray_hf-demo-*"))


@contextmanager
def _process(
    command: list[str], environment: Mapping[str, str], cwd: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with (
        log.open("w") as file,
        subprocess.Popen(command, env=environment, cwd=cwd, stdout=file, stderr=file) as process,
    ):
        yield process


def _fork(
    app: Path, arguments: list[str], environment: Mapping[str, str], cwd: Path, log: Path
) -> AbstractContextManager[Program]:
    code = f'import runpy; runpy.run_path({str(app)!r}, run_name="__main__")'
    return _with_gradio().start(code, *arguments, environment=environment, cwd=cwd, log=log)


def _with_gradio() -> WarmPython:
    return _until_the_end("xray_hf.cli", "xray_hf.demo.server", "onnxruntime", "matplotlib")


def training_python() -> WarmPython:
    """A Python that has imported what training needs, which takes longer than the tests' training."""
    modules = ("xray_hf.training.run", "xray_hf.cli", "datasets", "evaluate", "kornia", "matplotlib.pyplot")
    return _until_the_end(*modules)


def two_processes(
    python: WarmPython, code: str, *arguments: str, **environment: str
) -> list[subprocess.CompletedProcess[str]]:
    """Run a program in two processes that work together, with the variables that torchrun sets."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    with ExitStack() as both:
        programs = [
            both.enter_context(
                python.start(code, *arguments, environment={**common, **rank, **environment}, cwd=ROOT)
            )
            for rank in ranks
        ]
        return [program.completed() for program in programs]


@cache
def _until_the_end(*modules: str) -> WarmPython:
    """One for all tests of this process."""
    ends = ExitStack()
    atexit.register(ends.close)
    python = ends.enter_context(warm_python(*modules, environment={**os.environ, "PYTHONPATH": str(ROOT)}))
    python.run("", environment={}, cwd=ROOT)  # now the imports are done
    return python


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


def _wait_for(address: str, process: Program | subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            with urlopen(address, timeout=5):
                return
        except URLError:
            time.sleep(0.2)
    pytest.fail(f"the app did not start: {log.read_text()}")
