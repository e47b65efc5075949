"""Large files move by Xet, as they do unless it is switched off: equal bytes, and trouble ends in words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hub_client import (
    BUNDLE,
    NAME,
    ROOT,
    Push,
    downloader,
    held,
    listed,
    publisher,
    pusher,
    repository,
    stranger,
)
from hub_server import SILENT, Fault, Hub, running_hub
from hub_store import Blob, Repo
from hub_xet import chunks
from test_loading import BLOCKED, ENGINE, LOGITS, trying
from warm_python import WarmPython

from xray_hf.hub import publish
from xray_hf.inference import Engine

pytestmark = pytest.mark.slow

STEPS = (
    *(("GET", "/xet-write-token/"), ("POST", "/v1/xorb-grants/"), ("PUT", "/cdn/xorbs/")),
    *(("POST", "/v1/xorb-commits/"), ("POST", "/v2/shards")),
)
OF_XET = 1 + publish.XET_RETRIES  # requests of hf_xet in one try of ours

Run = Callable[..., str]


@pytest.fixture(scope="module")
def python(hubs: Callable[[], Hub]) -> Iterator[WarmPython]:
    with publisher(hubs(), xet=True) as python:
        yield python


@pytest.fixture
def hub(hub: Hub) -> Iterator[Hub]:
    """An empty Hub; no token of a user comes to the Xet storage, nor any token to where xorbs lie."""
    yield hub
    for one in hub.requests:
        token = one.headers.get("authorization", "")
        assert "hf_" not in token or not re.match("/v[12]/", one.path)
        assert not token or not one.path.startswith("/cdn/")


@pytest.fixture
def push(python: WarmPython, tmp_path: Path) -> Push:
    """`xray-hf push` of a bundle by Xet, waiting only a moment between tries."""
    return pusher(python, tmp_path / "home")


# Uploading


def test_what_is_pushed_by_xet_is_what_the_dry_run_shows_and_a_second_push_sends_nothing(
    hub: Hub, push: Push
) -> None:
    shown = push("--dry-run")
    assert (shown.returncode, hub.requests) == (0, [])
    sent = push()
    assert sent.returncode == 0, sent.stderr
    assert held(hub) == listed(shown.stdout) == listed(sent.stdout)
    large = {path for path, blob in repository(hub).head.files.items() if blob.is_lfs}
    assert {"model.onnx", "model.safetensors", "predictions.parquet"} <= large
    assert {repository(hub).head.files[path].oid for path in large} == hub.xet.keys()
    assert hub.asked("PUT", "/cdn/lfs/") == hub.asked("POST", "/objects/batch") == []
    sent_before = len(hub.asked("POST", "/v2/shards"))
    second = push()
    assert second.returncode == 0, second.stderr
    assert "already held it" in second.stdout
    assert (len(hub.asked("POST", "/commit/")), len(hub.asked("POST", "/v2/shards"))) == (1, sent_before)


DRAW = np.random.default_rng(0)
FILES = {
    0: DRAW.bytes(300_001),
    1: json.dumps(DRAW.integers(0, 99, 100_000).tolist()).encode() * 2,
    2: DRAW.normal(size=100_000).astype(np.float32).tobytes(),
}


@pytest.mark.parametrize("packing", [0, 1, 2], ids=["noise as it is", "text", "floats with bytes grouped"])
def test_every_packing_of_chunks_is_understood(
    python: WarmPython, hub: Hub, tmp_path: Path, packing: int
) -> None:
    hub.repos["model", NAME] = Repo("model", NAME)
    (tmp_path / "file.bin").write_bytes(FILES[packing])
    code = f"import huggingface_hub as hub; hub.upload_file(repo_id={NAME!r}, "
    code += "path_or_fileobj='file.bin', path_in_repo='file.bin')"
    own = {"HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_owner"}
    own["HF_XET_DEDUPLICATION_GLOBAL_DEDUP_QUERY_ENABLED"] = "0"  # as xray_hf has it
    done = python.run(code, environment=own, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert repository(hub).head.files["file.bin"].content == FILES[packing]
    [xorb] = [content for key, content in hub.cdn.items() if key.startswith("xorbs/")]
    assert packing in {chunk.packing for chunk in chunks(xorb)}


def test_trouble_at_every_step_that_passes_is_waited_for(hub: Hub, push: Push) -> None:
    for method, path in STEPS:
        hub.faults += [Fault(method, path, status=500), Fault(method, path, cut_response=0)]
    done = push()
    assert done.returncode == 0, done.stderr
    assert [fault.times for fault in hub.faults] == [0] * len(hub.faults)
    assert held(hub) == listed(done.stdout)
    assert len(repository(hub).commits) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", "/v1/xorb-grants/", status=404),
        Fault("PUT", "/cdn/xorbs/", cut_request=1000, reset=True, times=99),
    ],
    ids=["no grants", "no room"],
)
def test_where_xorbs_cannot_be_put_they_go_to_the_storage_itself(hub: Hub, push: Push, fault: Fault) -> None:
    hub.faults.append(fault)
    done = push()
    assert done.returncode == 0, done.stderr
    assert [one.status for one in hub.asked("POST", "/v1/xorbs/")] == [200]
    assert held(hub) == listed(done.stdout)


@pytest.mark.parametrize(
    ("fault", "words", "asked"),
    [
        (Fault("POST", "/v1/xorb-grants/", status=503), "the Hub answered 503 .*Push again", 3 * OF_XET),
        (Fault("POST", "/v2/shards", cut_response=0, reset=True), "could not be reached .*Push", 3 * OF_XET),
        (Fault("POST", r"^/v\d/(?!telemetry)", delay=SILENT), "could not be reached .*Push again", OF_XET),
        (Fault("GET", "/xet-write-token/", status=403), "answered 403 .*The token may not write there", 1),
        (Fault("POST", "/v2/shards", status=401), "the Hub answered 401 .*Push again later", 3),
    ],
    ids=["down", "cut", "silent", "forbidden", "expired at the storage"],
)
def test_trouble_that_stays_is_one_error_and_the_repository_holds_what_it_held(
    python: WarmPython, hub: Hub, tmp_path: Path, fault: Fault, words: str, asked: int
) -> None:
    """What is quick is tried three times; a silent server was waited for long enough after the first."""
    push = pusher(python, tmp_path / "home", patience=1 if fault.delay else 60)
    hub.repos["model", NAME] = Repo("model", NAME, private=True)
    repository(hub).commit({"old.txt": Blob(b"old")}, "Old")
    before = held(hub)
    hub.faults.append(replace(fault, times=99))
    given_up = push("--force", HF_XET_CLIENT_READ_TIMEOUT="2s" if fault.delay else "60s")
    assert given_up.returncode == 1
    [error] = re.findall("^error: .*", given_up.stderr, re.MULTILINE)
    assert re.search(words, error)
    assert len(hub.asked(fault.method, fault.path)) == asked
    assert held(hub) == before


def test_trouble_that_ends_a_long_try_is_waited_for_too(python: WarmPython, hub: Hub, tmp_path: Path) -> None:
    hub.faults.append(Fault("POST", "/v2/shards", status=503, times=OF_XET))
    done = pusher(python, tmp_path / "home", patience=0)()
    assert done.returncode == 0, done.stderr
    assert [one.status for one in hub.asked("POST", "/v2/shards")] == [503] * OF_XET + [200]


def test_a_token_of_the_storage_that_expires_on_the_way_is_fetched_again(hub: Hub, push: Push) -> None:
    hub.faults.append(Fault("POST", "/v2/shards", before=hub.xet_tokens.clear))
    done = push()
    assert done.returncode == 0, done.stderr
    assert [one.status for one in hub.asked("POST", "/v2/shards")] == [401, 200]
    assert held(hub) == listed(done.stdout)


def test_a_token_of_the_hub_that_expires_on_the_way_is_named(hub: Hub, push: Push) -> None:
    hub.faults.append(Fault("GET", "/xet-write-token/", before=hub.tokens.clear))
    refused = push()
    assert refused.returncode == 1
    assert "the Hub answered 401" in refused.stderr
    assert "The token is not valid, or no longer; run `hf auth login`, or renew HF_TOKEN." in refused.stderr
    assert held(hub) == {}


# Downloading


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A Hub with xray-cnn, pushed by Xet and public."""
    with running_hub() as running:
        with publisher(running, xet=True) as python:
            done = pusher(python, tmp_path_factory.mktemp("home"))("--public")
        assert done.returncode == 0, done.stderr
        yield running


@pytest.fixture(scope="module")
def strangers_python() -> Iterator[WarmPython]:
    with downloader("onnxruntime", "httpx2", "yaml") as python:
        yield python


@pytest.fixture
def run(strangers_python: WarmPython, pushed: Hub, tmp_path: Path, xray: Path) -> Iterator[Run]:
    yield stranger(strangers_python, pushed, tmp_path, xray, xet=True)
    pushed.faults.clear()


SNAPSHOT = f"""
import hashlib, json, pathlib
from huggingface_hub import snapshot_download
where = pathlib.Path(snapshot_download({NAME!r}))
files = [path for path in where.rglob("*") if path.is_file() and path.name != ".gitattributes"]
contents = {{str(path.relative_to(where)): path.read_bytes() for path in files}}
print(json.dumps({{path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}}))
"""


PIECES = {f"HF_XET_RECONSTRUCTION_{end}_RECONSTRUCTION_FETCH_SIZE": "100kb" for end in ("MIN", "MAX")}


@pytest.mark.parametrize(("xet", "pieces"), [(True, {}), (True, PIECES), (False, {})])
def test_what_came_by_xet_goes_by_xet_also_in_pieces_and_without(
    pushed: Hub, run: Run, xet: bool, pieces: dict[str, str]
) -> None:
    before = len(pushed.requests)
    assert json.loads(run(BLOCKED + SNAPSHOT, xet=xet, **pieces)) == held(pushed)
    paths = [one.path for one in pushed.requests[before:]]
    assert {path.split("/")[2] for path in paths if path.startswith("/cdn/")} == {"xorbs" if xet else "lfs"}
    asked = [path for path in paths if "/reconstructions/" in path]
    assert (len(asked) > len(set(asked))) == bool(pieces)


def test_transformers_and_the_engine_load_by_xet(pushed: Hub, run: Run, xray: Path) -> None:
    expected = Engine.from_pretrained(BUNDLE).predict(xray).logits.tolist()
    before = len(pushed.requests)
    by_engine = json.loads(run(ENGINE.format(source=NAME, backend="onnxruntime"), PYTHONPATH=str(ROOT)))
    assert by_engine == pytest.approx(expected, abs=1e-5)
    code = BLOCKED + LOGITS.format(model="xray-cnn", is_cnn=True, revision="main")
    # torch's resizing is not Pillow's to the bit
    assert json.loads(run(code)) == pytest.approx(expected, abs=2e-2)
    places = [one.path for one in pushed.requests[before:]]
    assert len([path for path in places if path.startswith("/cdn/xorbs/")]) == 2
    assert not [path for path in places if path.startswith("/cdn/lfs/")]


def test_trouble_of_a_download_that_passes_is_waited_for(pushed: Hub, run: Run) -> None:
    for path in ("/v2/reconstructions/", "/cdn/xorbs/"):
        cuts = [Fault("GET", path, cut_response=0), Fault("GET", path, cut_response=100, reset=True)]
        pushed.faults += [Fault("GET", path, status=500), *cuts]
    assert run(trying(NAME), PYTHONPATH=str(ROOT)).startswith("[")
    assert [fault.times for fault in pushed.faults] == [0] * 6


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET", "/cdn/xorbs/", status=503),
        Fault("GET", "/cdn/xorbs/", cut_response=300_000, reset=True),
        Fault("GET", "/cdn/xorbs/", delay=SILENT),
        Fault("GET", "/v2/reconstructions/", status=401),
        Fault("GET", "/xet-read-token/", status=401),
    ],
    ids=["down", "cut", "silent", "expired at the storage", "expired at the Hub"],
)
def test_trouble_of_a_download_that_stays_is_one_error_and_leaves_nothing_half(
    pushed: Hub, run: Run, tmp_path: Path, fault: Fault
) -> None:
    pushed.faults.append(replace(fault, times=99))
    code = trying(NAME, before="from xray_hf import manifest\nmanifest.TIMEOUT = 1")
    said = run(code, PYTHONPATH=str(ROOT), HF_XET_CLIENT_RETRY_MAX_ATTEMPTS="1")
    assert re.fullmatch(
        f"error: .*{NAME}, and that repository cannot be fetched .* Check the name and the network.", said
    )
    assert not list((tmp_path / "home").rglob("model.safetensors"))
