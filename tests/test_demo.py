"""The demo as programs see it, from start to stop."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen
from zipfile import ZipFile

import pytest
import requests
from running import ROOT, START_SECONDS, running_app

from xray_hf.demo.uploads import MAX_FILES
from xray_hf.inference import Engine
from xray_hf.labels import LABELS

if TYPE_CHECKING:
    from gradio_client import Client


def run_app(*options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "app.py"), *options]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=START_SECONDS, check=False
    )


def test_app_without_bundles_says_how_to_get_one(tmp_path: Path) -> None:
    done = run_app(cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no model found")
    assert done.stderr.count("\n") == 1


def test_app_says_that_the_port_is_taken(cnn_bundle: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_app("--bundle", str(cnn_bundle), "--port", port, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port}: Address already in use.")
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def url(cnn_bundle: Path, folder: Path) -> Iterator[str]:
    with running_app([cnn_bundle], folder) as app:
        yield app.url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    # Imported here: importing it takes seconds that the other tests do not need.
    from gradio_client import Client

    program = Client(url, verbose=False)
    yield program
    program.close()


def file(path: Path) -> Any:
    from gradio_client import handle_file

    return handle_file(str(path))


def test_page_carries_the_statement_and_asks_nobody_else(url: str) -> None:
    page = urlopen(url).read().decode()
    assert "Not a medical device." in page
    assert "COVID-19 mostly adults of other sources" in page
    assert "Trained on synthetic patients" in page
    assert "is not calibrated: nothing is unsure, foreign images are refused by rules only." in page
    assert "fonts.googleapis.com" not in page
    assert "cdnjs" not in page


def test_health_names_what_answers(url: str) -> None:
    health = json.loads(urlopen(f"{url}/health").read())
    assert health["status"] == "ok"
    assert health["models"]["xray-cnn"]["labels"] == list(LABELS)
    assert health["models"]["xray-cnn"]["is_synthetic"]


def test_programs_get_what_the_engine_gives(client: Client, engine: Engine, xray: Path) -> None:
    answer = client.predict(file(xray), api_name="/read")
    expected = engine.predict(xray)
    assert answer["error"] is None
    assert answer["models"]["xray-cnn"] == {
        "decision": expected.decision,
        "reason": expected.reason,
        "label": expected.label,
        "probabilities": pytest.approx(expected.probabilities),
        "foreign_score": None,
    }


def test_a_bad_file_is_an_error_in_words(client: Client, tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(b"not an image")
    answer = client.predict(file(tmp_path / "scan.png"), api_name="/read")
    assert answer["error"].startswith("scan.png is not an image that can be read")
    assert answer["models"] == {}


def test_many_files_and_archives_are_rows_in_order(client: Client, xray: Path, tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(b"not an image")
    archive = shutil.make_archive(str(tmp_path / "scans"), "zip", xray.parents[1])
    rows = client.predict(
        [file(xray), file(tmp_path / "scan.png"), file(Path(archive))], api_name="/read_many"
    )
    assert [row["file"] for row in rows[:2]] == [xray.name, "scan.png"]
    assert rows[1]["error"].startswith("scan.png is not an image")
    members = sorted(path.name for path in xray.parents[1].rglob("*.png"))
    assert len(members) == 2 * len(LABELS)
    assert sorted(row["file"] for row in rows[2:]) == members
    assert all(row["xray-cnn: decision"] for row in rows[2:])


def test_models_are_described(client: Client) -> None:
    assert list(client.predict(api_name="/models")) == ["xray-cnn"]


def test_every_endpoint_is_documented(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {"/read", "/read_many", "/models"}
    assert all(endpoint["description"] for endpoint in endpoints.values())


def test_uploads_lie_in_the_demos_own_folder_and_no_name_is_in_the_log(
    client: Client, xray: Path, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(xray, tmp_path / "mrs-smith.png")
    client.predict(file(tmp_path / "mrs-smith.png"), api_name="/read")
    assert "smith" not in (folder / "app.log").read_text()
    uploaded = list(folder.rglob("mrs-smith.png"))
    assert all("xray_hf-demo-" in str(path) for path in uploaded)


def test_who_finds_the_queue_full_is_told_so(cnn_bundle: Path, xray: Path, tmp_path: Path) -> None:
    with ZipFile(tmp_path / "scans.zip", "w") as archive:
        for number in range(MAX_FILES):
            archive.write(xray, f"{number}.png")
    with running_app([cnn_bundle], tmp_path, "--queue", "1") as app:
        content = (tmp_path / "scans.zip").read_bytes()
        sent = requests.post(f"{app.url}/gradio_api/upload", files={"files": ("scans.zip", content)})
        files = [{"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}]
        call = {"url": f"{app.url}/gradio_api/call/read_many", "json": {"data": [files]}}
        answers = [requests.post(**call) for _ in range(4)]
    assert [answers[0].status_code, answers[-1].status_code] == [200, 503]
    assert answers[-1].json()["detail"] == "too many visitors are waiting; try again in a minute."


def test_behind_a_proxy_and_with_a_password(cnn_bundle: Path, tmp_path: Path) -> None:
    options = ["--root-path", "/xray"]
    with running_app([cnn_bundle], tmp_path, *options, XRAY_HF_AUTH="reader:secret") as app:
        page = urlopen(app.url).read().decode()
        assert '"auth_required":true' in page
        assert "secret" not in page
        assert json.loads(urlopen(f"{app.url}/health").read())["status"] == "ok"
