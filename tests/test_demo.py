"""The demo as programs see it, from start to stop."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin
from urllib.request import urlopen
from zipfile import ZipFile

import pytest
import requests
from fastapi import FastAPI
from PIL import Image
from running import ROOT, START_SECONDS, proxy, running_app
from starlette.routing import Mount
from starlette.testclient import TestClient

from xray_hf.demo import settings
from xray_hf.demo.examples import OUTCOMES
from xray_hf.demo.models import Model
from xray_hf.demo.uploads import MAX_FILES
from xray_hf.inference import Engine
from xray_hf.task import PAPER_CLASSES

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from gradio_client import Client


def run_app(*options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "app.py"), *options]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=START_SECONDS, check=False
    )


def test_app_without_bundles_says_how_to_get_one(tmp_path: Path) -> None:
    half_written = tmp_path / "pretrained" / ".xray-cnn-x1y2"  # as a stopped release leaves it
    half_written.mkdir(parents=True)
    (half_written / "config.json").write_text("{}")
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


def upload(url: str, path: Path) -> str:
    """Where the app put the file."""
    sent = requests.post(f"{url}/gradio_api/upload", files={"files": (path.name, path.read_bytes())})
    return sent.json()[0]


def as_file(path: str) -> dict[str, object]:
    """A file as calls name it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def test_page_carries_the_statement_and_asks_nobody_else(url: str) -> None:
    page = urlopen(url).read().decode()
    assert "Not a medical device." in page
    assert "Never use it to decide about" in page
    assert "trained and tested on synthetic patients" in page
    assert "is not calibrated: it is never unsure, only rules reject OOD images." in page
    assert "fonts.googleapis.com" not in page
    assert "cdnjs" not in page


def test_health_names_what_answers(url: str) -> None:
    health = json.loads(urlopen(f"{url}/health").read())
    assert health["status"] == "ok"
    assert health["models"]["xray-cnn"]["labels"] == list(PAPER_CLASSES)
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
        "ood_score": None,
        "heat_in_lungs": None,
    }


def test_a_bad_file_is_an_error_in_words(client: Client, tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(b"not an image")
    answer = client.predict(file(tmp_path / "scan.png"), api_name="/read")
    assert answer["error"].startswith("scan.png is not a readable image")
    assert answer["models"] == {}


def answer_to(url: str, function: str, *data: object) -> Any:
    """What a function gives to a program that calls it by plain HTTP."""
    sent = requests.post(f"{url}/gradio_api/call/{function}", json={"data": list(data)})
    assert sent.ok, sent.text
    stream = requests.get(f"{url}/gradio_api/call/{function}/{sent.json()['event_id']}").text
    kind, _, data_line = stream.strip().rpartition("\n")
    assert kind.endswith("event: complete"), stream
    return json.loads(data_line.removeprefix("data: "))[0]


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory, xray: Path) -> Path:
    """An archive with an X-ray that is larger than any picture sent."""
    path = tmp_path_factory.mktemp("scans") / "scans.zip"
    stream = io.BytesIO()
    with Image.open(xray) as image:
        image.convert("L").resize((5000, 4500)).save(stream, "PNG")
    with ZipFile(path, "w") as archive:
        archive.writestr("ward 1/large.png", stream.getvalue())
        archive.write(xray, "small.png")
    return path


def test_a_picture_has_the_files_own_size_up_to_4096_pixels(url: str, xray: Path, scans: Path) -> None:
    alone, archive = as_file(upload(url, xray)), as_file(upload(url, scans))
    with Image.open(xray) as image:
        assert decoded(answer_to(url, "picture", alone, "")["picture"]).size == image.size
    large = decoded(answer_to(url, "picture", archive, "ward 1/large.png")["picture"])
    assert (large.size, large.mode) == ((4096, 3686), "L")
    for function, more in (("picture", []), ("report", [[]])):
        missing = answer_to(url, function, archive, "other.png", *more)
        assert missing["error"] == "other.png is not in scans.zip."
        assert set(map(bool, missing.values())) == {True, False}


def test_a_picture_report_or_view_of_a_deleted_file_says_so(url: str, xray: Path) -> None:
    path = upload(url, xray)
    Path(path).unlink()
    words = f"{xray.name} is too old and was deleted here; upload it again."
    assert answer_to(url, "picture", as_file(path), "") == {"error": words, "picture": None}
    assert answer_to(url, "report", as_file(path), "", None) == {"error": words, "html": None, "json": None}
    assert words in answer_to(url, "view", as_file(path), "", None)["html"]
    assert answer_to(url, "picture", None, None)["error"] == "no file was given; upload one."


@pytest.mark.parametrize("function", ["picture", "report", "view"])
def test_no_other_file_is_shown_than_an_uploaded_one(url: str, function: str) -> None:
    data = [as_file(str(ROOT / "docs" / "demo" / "read_desktop.png")), ""]
    if function != "picture":
        data.append([])
    sent = requests.post(f"{url}/gradio_api/call/{function}", json={"data": data})
    assert (sent.status_code, sent.json()["error"]) == (
        400,
        "a file was not uploaded here; upload it first.",
    )


def test_a_program_gets_a_report_of_a_member_of_an_archive(
    client: Client, engine: Engine, xray: Path, scans: Path
) -> None:
    report = client.predict(file(scans), "small.png", ["xray-cnn"], api_name="/report")
    own = report["json"]["models"]["xray-cnn"]
    assert report["json"]["file"] == "small.png"
    assert own["probabilities"] == pytest.approx(engine.predict(xray).probabilities)
    assert own["version_hash"] in report["html"]
    assert client.predict(file(xray), api_name="/report")["json"]["file"] == xray.name
    unknown = client.predict(file(xray), "", ["xray-cn"], api_name="/report")
    assert unknown == {
        "error": "no model here has the name 'xray-cn'; /health lists them.",
        "html": None,
        "json": None,
    }


def test_a_view_is_the_answer_of_the_page_by_the_models_asked_for(url: str, xray: Path) -> None:
    html = answer_to(url, "view", as_file(upload(url, xray)), "", ["xray-cnn", {"a": 1}])["html"]
    assert html.count('class="answer"') == 1
    assert f">{xray.name}</h2>" in html


def test_many_files_and_archives_are_rows_in_order(client: Client, xray: Path, tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(b"not an image")
    archive = shutil.make_archive(str(tmp_path / "scans"), "zip", xray.parents[1])
    rows = client.predict(
        [file(xray), file(tmp_path / "scan.png"), file(Path(archive))], api_name="/read_many"
    )
    assert [row["file"] for row in rows[:2]] == [xray.name, "scan.png"]
    assert rows[1]["error"].startswith("scan.png is not a readable image")
    members = sorted(path.name for path in xray.parents[1].rglob("*.png"))
    assert len(members) == 2 * len(OUTCOMES)  # each with its preview
    assert sorted(Path(row["file"]).name for row in rows[2:]) == members
    assert len({row["file"] for row in rows}) == len(rows)
    assert all(row["xray-cnn: decision"] for row in rows[2:])


def test_models_are_described(client: Client) -> None:
    assert list(client.predict(api_name="/models")) == ["xray-cnn"]


def test_every_endpoint_is_documented(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {"/read", "/read_many", "/report", "/models"}
    assert all(endpoint["description"] for endpoint in endpoints.values())


def test_uploads_lie_in_the_demos_own_folder_and_no_name_is_in_the_log(
    client: Client, xray: Path, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(xray, tmp_path / "mrs-smith.png")
    client.predict(file(tmp_path / "mrs-smith.png"), api_name="/read")
    assert "smith" not in (folder / "app.log").read_text()
    uploaded = list(folder.rglob("mrs-smith.png"))
    assert uploaded
    assert all("xray_hf-demo-" in str(path) for path in uploaded)


def test_who_finds_the_queue_full_is_told_so(cnn_bundle: Path, xray: Path, tmp_path: Path) -> None:
    with ZipFile(tmp_path / "scans.zip", "w") as archive:
        for number in range(MAX_FILES):
            archive.write(xray, f"{number}.png")
    with running_app([cnn_bundle], tmp_path, "--queue", "1") as app:
        files = [as_file(upload(app.url, tmp_path / "scans.zip"))]
        call = {"url": f"{app.url}/gradio_api/call/read_many", "json": {"data": [files]}}
        answers = [requests.post(**call) for _ in range(4)]
    assert [answers[0].status_code, answers[-1].status_code] == [200, 503]
    assert answers[-1].json()["detail"] == "too many visitors are waiting; try again in a minute."


def test_an_answer_that_has_begun_is_finished_after_sigterm(
    cnn_bundle: Path, xray: Path, tmp_path: Path
) -> None:
    with running_app([cnn_bundle], tmp_path) as app:
        path = upload(app.url, xray)
        functions = requests.get(f"{app.url}/config").json()["dependencies"]
        number = next(each["id"] for each in functions if each["api_name"] == "read_many")
        call = {"fn_index": number, "session_hash": "s", "data": [[as_file(path)] * 50]}
        assert requests.post(f"{app.url}/gradio_api/queue/join", json=call).ok
        said = []
        with requests.get(f"{app.url}/gradio_api/queue/data?session_hash=s", stream=True) as stream:
            for line in stream.iter_lines():
                if line:
                    said.append(json.loads(line.removeprefix(b"data: ")))
                    if said[-1]["msg"] == "process_starts":
                        app.process.terminate()
        assert app.process.wait() == 0
    [done] = [each for each in said if each["msg"] == "process_completed"]
    assert done["success"]
    assert len(done["output"]["data"][0]) == 50


def test_calls_that_wait_go_through_the_network_together(
    engine: Engine, xray: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xray_hf.demo import server  # which imports gradio

    predict, passes, has_begun, may_go_on = Engine.predict_batch, [], Event(), Event()

    def counted(self: Engine, readings: Any) -> Any:
        passes.append(len(readings))
        has_begun.set()
        assert may_go_on.wait(60)
        return predict(self, readings)

    async def create() -> FastAPI:  # outside a loop, Gradio leaves loops open
        return server.create_app({"xray-cnn": Model.of(engine, "xray-cnn")}, [], chosen)

    monkeypatch.setattr(Engine, "predict_batch", counted)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    chosen = settings.parse(["--bundle", "a/b", "--concurrency", "1"])
    app = asyncio.run(create())
    with TestClient(app) as visitor:
        content = {"files": ("scan.png", xray.read_bytes())}
        [path] = visitor.post("/gradio_api/upload", files=content).json()
        call = {"url": "/gradio_api/call/read", "json": {"data": [as_file(path)]}}
        numbers = [visitor.post(**call).json()["event_id"]]
        assert has_begun.wait(60)
        numbers += [visitor.post(**call).json()["event_id"] for _ in range(8)]
        may_go_on.set()
        answers = [visitor.get(f"/gradio_api/call/read/{number}").text for number in numbers]
    assert all('"error": null' in answer for answer in answers)
    assert passes == [1, 8]
    (gradio,) = [each.app for each in app.routes if isinstance(each, Mount) and each.path == ""]
    assert not gradio.state_holder.session_data
    assert not list(tmp_path.rglob("scan.png"))


def words_of(engines: dict[str, Engine]) -> str:
    """What the page of these models says before any answer."""
    from xray_hf.demo import page

    async def build() -> str:  # outside a loop, Gradio leaves loops open
        served = {name: Model.of(engine, name) for name, engine in engines.items()}
        built = page.build(served, [], settings.parse(["--bundle", "a/b"]))
        values = [str(getattr(block, "value", "")) for block in built.blocks.blocks.values()]
        return " ".join([built.header, *values])

    return " ".join(asyncio.run(build()).split())


def test_the_introduction_names_the_classes_of_every_model(cnn_bundle: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(cnn_bundle, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    names = {"0": "Normal", "1": "Pneumonia", "2": "Tuberculosis"}
    (other / "config.json").write_text(json.dumps({**config, "id2label": names}))
    words = words_of({"one": Engine.from_pretrained(cnn_bundle), "other": Engine.from_pretrained(other)})
    assert (
        "one and other classify a frontal chest X-ray as Normal, Pneumonia, COVID-19 or Tuberculosis."
        in words
    )


def test_the_statement_is_of_the_models_that_answer_and_the_lesson_of_those_that_may(tmp_path: Path) -> None:
    shipped = ROOT / "pretrained" / "xray-cnn"
    several = Path(shutil.copytree(shipped, tmp_path / "several"))
    training = json.loads((several / "training.json").read_text())
    names = ("coronahack", "radiography", "thorax_scan", "web_covid")
    sources = [{"kind": "folder", "name": name, "images": 100} for name in names]
    (several / "training.json").write_text(json.dumps({**training, "sources": sources}))
    alone = {"alone": Engine.from_pretrained(shipped)}
    of_children = "In the training data, Normal and Pneumonia images are of children"
    words = words_of(alone)
    assert words.count(of_children) == 2  # in the welcome, too
    assert "For comparison" not in words
    words = words_of({**alone, "several": Engine.from_pretrained(several)})
    assert words.count("In the training data the COVID-19 images come from other hospitals") == 2
    assert of_children not in words
    assert words.count("For comparison: alone, trained on CoronaHack alone") == 2  # on each tab with a choice


def test_behind_a_proxy_everything_is_found_below_its_path(
    cnn_bundle: Path, xray: Path, tmp_path: Path
) -> None:
    from gradio_client import Client

    with (
        running_app([cnn_bundle], tmp_path, "--root-path", "/xray") as app,
        proxy(app.url) as address,
    ):
        assert requests.get(f"{address}/config").json()["root"] == address
        page = requests.get(address).text
        links = re.findall(r'(?:src|href)="([^"#]+)"', page)
        assert links
        replies = {link: requests.get(urljoin(f"{address}/", link)).status_code for link in links}
        assert set(replies.values()) == {200}, replies
        program = Client(address, verbose=False)
        assert program.predict(file(xray), api_name="/read")["error"] is None
        program.close()


def test_with_a_password_nobody_else_gets_in(cnn_bundle: Path, xray: Path, tmp_path: Path) -> None:
    with running_app([cnn_bundle], tmp_path, XRAY_HF_AUTH="reader:secret") as app:
        stranger, reader = requests.Session(), requests.Session()
        login, join = f"{app.url}/login", f"{app.url}/gradio_api/call/read"
        page = stranger.get(app.url).text
        assert '"auth_required":true' in page
        assert "secret" not in page
        for name, password in (("reader", "wrong"), ("other", "secret"), ("reader", "")):
            sent = stranger.post(login, data={"username": name, "password": password})
            assert 400 <= sent.status_code < 500
        for place in (
            "config",
            "gradio_api/info",
            "gradio_api/file=x",
            "gradio_api/queue/data?session_hash=s",
        ):
            assert stranger.get(f"{app.url}/{place}").status_code == 401
        content = {"files": ("scan.png", xray.read_bytes())}
        assert stranger.post(f"{app.url}/gradio_api/upload", files=content).status_code == 401
        assert stranger.post(join, json={"data": [None]}).status_code == 401
        assert reader.post(login, data={"username": "reader", "password": "secret"}).ok
        [path] = reader.post(f"{app.url}/gradio_api/upload", files=content).json()
        number = reader.post(join, json={"data": [as_file(path)]}).json()["event_id"]
        assert stranger.get(f"{join}/{number}").status_code == 401
        assert '"error": null' in reader.get(f"{join}/{number}").text
        assert json.loads(urlopen(f"{app.url}/health").read())["status"] == "ok"
