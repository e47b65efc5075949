"""The demo: the page answers in plain words, the app from start to stop."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from PIL import Image

from xray_hf.demo import events
from xray_hf.demo.examples import write_examples
from xray_hf.errors import ConfigError
from xray_hf.images import read_grey
from xray_hf.inference import Engine
from xray_hf.labels import LABELS

ROOT = Path(__file__).parents[1]
START_SECONDS = 120  # importing torch, transformers and Gradio on a busy machine


def test_one_example_of_every_class_marked_as_synthetic(tmp_path: Path) -> None:
    examples = write_examples(tmp_path)
    assert [label for _, label in examples] == list(LABELS)
    assert all(path.name == f"SYNTHETIC-{label}.png" for path, label in examples)
    assert all(read_grey(path).width >= 224 for path, _ in examples)


def test_only_chosen_models_answer(engine: Engine, xray: Path) -> None:
    both = {"one": engine, "two": engine}
    answer = events.answer(both, str(xray), ["two"])
    assert list(answer.predictions) == ["two"]
    assert sum(answer.predictions["two"].probabilities.values()) == pytest.approx(1)
    assert answer.preview is not None
    assert not answer.problem


def test_a_refused_image_shows_words_and_no_probabilities(engine: Engine, tmp_path: Path) -> None:
    Image.new("L", (300, 300), 90).save(tmp_path / "plain.png")
    found = events.answer({"one": engine}, str(tmp_path / "plain.png"), ["one"]).predictions["one"]
    assert events.shares(found) == {}
    assert events.describe(found) == "**Not a frontal chest X-ray**: it is almost uniform."


def test_models_of_one_name_are_told_apart(cnn_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").symlink_to(cnn_bundle)
    assert list(events.load_engines([cnn_bundle, tmp_path / "copy"])) == [
        f"xray-cnn ({cnn_bundle})",
        f"xray-cnn ({tmp_path / 'copy'})",
    ]
    assert list(events.load_engines([cnn_bundle])) == ["xray-cnn"]


def test_no_file_is_no_problem_yet(engine: Engine) -> None:
    assert events.answer({"one": engine}, None, ["one"]) == events.Answer()


def test_an_unreadable_file_leaves_no_answer_but_words(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(b"")
    answer = events.answer({"one": engine}, str(tmp_path / "scan.png"), ["one"])
    assert answer.problem == "scan.png is empty (0 bytes); copy or download it again."
    assert (answer.preview, answer.predictions) == (None, {})


def test_an_upload_that_was_deleted_meanwhile_is_asked_for_again(engine: Engine, tmp_path: Path) -> None:
    answer = events.answer({"one": engine}, str(tmp_path / "scan.png"), ["one"])
    assert answer.problem == "scan.png is too old and was deleted here; upload it again."


def test_no_chosen_model_is_said_and_the_xray_stays(engine: Engine, xray: Path) -> None:
    answer = events.answer({"one": engine}, str(xray), [])
    assert answer.problem == "no model is chosen; tick at least one."
    assert answer.preview is not None


@pytest.mark.parametrize(
    ("path", "chosen", "message"),
    [("x.png", ["other"], "there is no model 'other'"), (None, ["one"], "no X-ray is given")],
)
def test_programs_are_told_what_they_did_wrong(
    engine: Engine, path: str | None, chosen: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        events.classify({"one": engine}, path, chosen)


def run_app(*options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "app.py"), *options]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=START_SECONDS, check=False
    )


def test_app_without_bundles_says_how_to_get_one(tmp_path: Path) -> None:
    done = run_app(cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no model found")
    assert "--bundle DIR" in done.stderr
    assert done.stderr.count("\n") == 1


def test_app_says_that_the_port_is_taken(cnn_bundle: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_app("--bundle", str(cnn_bundle), "--port", port, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port}: Address already in use.")
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def url(cnn_bundle: Path, temporary: Path) -> Iterator[str]:
    """The address of a running app; after it is stopped, none of its files may be left."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    command = [sys.executable, str(ROOT / "app.py"), "--bundle", str(cnn_bundle), "--port", port]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with (temporary.parent / "app.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}", process, log.name)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=30)
    assert not list(temporary.glob("xray_hf-demo-*"))


def wait_for(address: str, process: subprocess.Popen[bytes], log: str) -> None:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            with urlopen(address, timeout=5):
                return
        except URLError:
            time.sleep(0.2)
    pytest.fail(f"the app did not start: {Path(log).read_text()}")


def test_page_carries_the_statement_and_asks_nobody_else(url: str) -> None:
    page = urlopen(url).read().decode()
    assert "Not a medical device." in page
    assert "Trained on synthetic patients" in page
    assert "fonts.googleapis.com" not in page
    assert "cdnjs" not in page


def test_api_gives_what_the_engine_gives(url: str, engine: Engine, xray: Path) -> None:
    # Imported here: importing it takes seconds that the other tests do not need.
    from gradio_client import Client, handle_file

    client = Client(url, verbose=False)
    try:
        answer = client.predict(handle_file(str(xray)), ["xray-cnn"], api_name="/classify")
    finally:
        client.close()
    expected = engine.predict(xray)
    assert answer == {
        "xray-cnn": {"decision": expected.decision, "probabilities": pytest.approx(expected.probabilities)}
    }


def test_api_answers_a_bad_file_in_words(url: str, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    (tmp_path / "scan.png").write_bytes(b"not an image")
    client = Client(url, verbose=False)
    try:
        with pytest.raises(AppError, match=r"scan\.png is not an image that can be read"):
            client.predict(handle_file(str(tmp_path / "scan.png")), ["xray-cnn"], api_name="/classify")
    finally:
        client.close()
