"""ImageNet weights come from the Hub as safetensors, by the unmodified client; here from a loopback Hub."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save

pytestmark = pytest.mark.slow

REPO_FILE = "/timm/resnet18.tv_in1k/resolve/main/model.safetensors"
CODE = """
import torch
from xray_hf.models import create_model
network = create_model("xray-resnet18", pretrained=True)
module = network.module
print(network.initial_weights, module.conv1.weight.sum().item(), tuple(module.fc.weight.shape))
"""


class Hub(BaseHTTPRequestHandler):
    """One repository with one file, as huggingface_hub's `get_hf_file_metadata` and `http_get` ask for it."""

    content = b""
    asked: list[str] = []  # noqa: RUF012  # one per server, set by the fixture

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        type(self).asked.append(f"{self.command} {self.path}")
        found = self.path == REPO_FILE
        self.send_response(200 if found else 404)
        if found:
            self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "1" * 40)
            self.send_header("Content-Length", str(len(self.content)))
        else:
            self.send_header("Content-Length", "0")
        self.end_headers()
        if found and with_body:
            self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def hub() -> Iterator[tuple[str, torch.nn.Module]]:
    torch.manual_seed(5)
    model = timm.create_model("resnet18", pretrained=False)
    Hub.content = save(model.state_dict())
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", model
    server.shutdown()
    server.server_close()


def create(endpoint: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    environment["HF_HUB_DISABLE_XET"] = "1"
    return subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, timeout=200
    )


def test_resnet18_starts_from_the_hubs_weights_with_a_new_head(
    hub: tuple[str, torch.nn.Module], tmp_path: Path
) -> None:
    endpoint, model = hub
    run = create(endpoint, tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    origin, total, shape = run.stdout.strip().split(maxsplit=2)
    assert origin == "timm/resnet18.tv_in1k"
    assert float(total) == pytest.approx(model.conv1.weight.sum().item(), rel=1e-6)
    assert shape == "(3, 512)"
    assert f"GET {REPO_FILE}" in Hub.asked
    assert not [asked for asked in Hub.asked if asked.endswith((".bin", ".pt", ".pth"))]  # never a pickle
