"""Who pushes to the Hub of the tests, what it then holds, and who loads that; each a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hub_server import Hub
from hub_store import Repo

from xray_hf import manifest

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "pretrained" / "xray-cnn"
NAME = "owner/xray-cnn"

Run = subprocess.CompletedProcess[str]
Push = Callable[..., Run]


def pusher(hub: Hub, home: Path, *, xet: bool = False, timeout: float = 30, patience: float = 60) -> Push:
    """`xray-hf push`, waiting only a moment between tries; the rest as the constants of publish.py."""
    code = "import sys; from xray_hf import cli; from xray_hf.errors import exit_on_error; "
    code += "from xray_hf.hub import publish; publish.PAUSES = (0.01, 0.02); "
    code += f"publish.TIMEOUT = {timeout}; publish.PATIENCE = {patience}; "
    code += "import huggingface_hub.utils._http as http; http.time.sleep = lambda seconds: None; "
    code += "sys.exit(exit_on_error(cli.main))"

    def run(
        *options: str, source: Path | str = BUNDLE, token: str | None = "hf_owner", **environment: str
    ) -> Run:
        return subprocess.run(
            [sys.executable, "-c", code, "push", str(source), "--repo-id", NAME, *options],
            env={**os.environ, **hub.environment(home, token, xet=xet), **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def stranger(hub: Hub, folder: Path, xray: Path, *, xet: bool = False) -> Callable[..., str]:
    """Run code without a token and with an empty cache, beside the file chest.png; its last printed line."""
    shutil.copy(xray, folder / "chest.png")
    # A download in this process sets it for good: the stranger's own code must choose it.
    inherited = {name: value for name, value in os.environ.items() if name != "HF_XET_CLIENT_READ_TIMEOUT"}

    def run(code: str, *, xet: bool = xet, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**inherited, **hub.environment(folder / "home", None, xet=xet), **environment},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    return run


def repository(hub: Hub, kind: str = "model") -> Repo:
    return hub.repo(kind, NAME)


def held(hub: Hub, kind: str = "model") -> dict[str, str]:
    """{path: SHA-256} of the repository's files."""
    files = repository(hub, kind).head.files
    return {
        path: hashlib.sha256(blob.content).hexdigest()
        for path, blob in files.items()
        if path != ".gitattributes"
    }


def listed(output: str) -> dict[str, str]:
    """{path: SHA-256} as the table says."""
    rows = re.findall(r"^([0-9a-f]{64}) +[\d,]+ (\S+)$", output, re.MULTILINE)
    return {path: digest for digest, path in rows}


def changed(folder: Path, number: float) -> Path:
    """A copy of the bundle with another threshold, and another graph, which is not read when it is pushed."""
    shutil.copytree(BUNDLE, folder)
    calibration = json.loads((folder / manifest.CALIBRATION).read_text())
    (folder / manifest.CALIBRATION).write_text(json.dumps({**calibration, "unsure_below": number}))
    with (folder / manifest.GRAPH).open("ab") as file:
        file.write(str(number).encode())
    return folder
