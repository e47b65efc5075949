"""Who pushes to the Hub of the tests, what it then holds, and who loads that; each a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from hub_server import Hub
from hub_store import Repo
from warm_python import WarmPython, warm_python

from xray_hf import manifest

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "pretrained" / "xray-cnn"
NAME = "owner/xray-cnn"

Run = subprocess.CompletedProcess[str]
Push = Callable[..., Run]


@contextmanager
def publisher(hub: Hub, *, xet: bool = False) -> Iterator[WarmPython]:
    """A Python that has imported what pushes to the address of this Hub."""
    with TemporaryDirectory() as home:
        environment = {**os.environ, **hub.environment(Path(home), None, xet=xet), "PYTHONPATH": str(ROOT)}
        with warm_python("xray_hf.cli", "xray_hf.hub.publish", "hf_xet", environment=environment) as python:
            yield python


def pusher(python: WarmPython, home: Path, *, timeout: float = 30, patience: float = 60) -> Push:
    """`xray-hf push`, waiting only a moment between tries; the rest as the constants of publish.py."""
    code = "import sys; from xray_hf import cli; from xray_hf.errors import exit_on_error; "
    code += "from xray_hf.hub import publish; publish.PAUSES = (0.01, 0.02); "
    code += f"publish.TIMEOUT = {timeout}; publish.PATIENCE = {patience}; "
    code += "import huggingface_hub.utils._http as http; http.time.sleep = lambda seconds: None; "
    code += "sys.exit(exit_on_error(cli.main))"

    def run(
        *options: str, source: Path | str = BUNDLE, token: str | None = "hf_owner", **environment: str
    ) -> Run:
        own = {"HF_HOME": str(home), "HF_TOKEN": token or "", **environment}
        return python.run(code, "push", str(source), "--repo-id", NAME, *options, environment=own, cwd=ROOT)

    return run


@contextmanager
def downloader(*modules: str) -> Iterator[WarmPython]:
    """A Python that has imported modules which know no Hub."""
    # A download in this process sets it for good: the stranger's own code must choose it.
    inherited = {name: value for name, value in os.environ.items() if name != "HF_XET_CLIENT_READ_TIMEOUT"}
    # Images are few: threads would only wait for each other.
    with warm_python(*modules, environment={**inherited, "OMP_NUM_THREADS": "1"}) as python:
        yield python


def stranger(
    python: WarmPython, hub: Hub, folder: Path, xray: Path, *, xet: bool = False
) -> Callable[..., str]:
    """Run code without a token and with an empty cache, beside the file chest.png; its last printed line."""
    shutil.copy(xray, folder / "chest.png")

    def run(code: str, *, xet: bool = xet, **environment: str) -> str:
        own = {**hub.environment(folder / "home", None, xet=xet), **environment}
        done = python.run(code, environment=own, cwd=folder)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    return run


def repository(hub: Hub, kind: str = "model") -> Repo:
    return hub.repo(kind, NAME)


def held(hub: Hub, kind: str = "model") -> dict[str, str]:
    """{path: SHA-256} of the repository's files."""
    files = repository(hub, kind).head.files.items()
    return {path: sha256(blob.content).hexdigest() for path, blob in files if path != ".gitattributes"}


def listed(output: str) -> dict[str, str]:
    """{path: SHA-256} as the table says."""
    rows = re.findall(r"^([0-9a-f]{64}) +[\d,]+ (\S+)$", output, re.MULTILINE)
    return {path: digest for digest, path in rows}


def changed(folder: Path, number: float) -> Path:
    """A copy of the bundle with another threshold, and another graph, which is not read when it is pushed.

    It has no engine.onnx, which would be stale.
    """
    shutil.copytree(BUNDLE, folder, ignore=shutil.ignore_patterns(manifest.ENGINE))
    calibration = json.loads((folder / manifest.CALIBRATION).read_text())
    (folder / manifest.CALIBRATION).write_text(json.dumps({**calibration, "unsure_below": number}))
    with (folder / manifest.GRAPH).open("ab") as file:
        file.write(str(number).encode())
    return folder
