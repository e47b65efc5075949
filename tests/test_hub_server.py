"""The Hub of the tests does for the unmodified clients, each a process of its own, what the real one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hub_server import SILENT, Fault, Hub, serving_hubs
from hub_store import Blob, Repo
from warm_python import WarmPython, warm_python

pytestmark = pytest.mark.slow

NAME = "owner/name"
PART = 100_000  # bytes
LARGE = bytes(range(256)) * 1000  # three parts
FILES = {"README.md": b"# Model\n", "sub/notes.txt": b"notes", "model.safetensors": LARGE}
# What every client starts with; what it tells is printed as JSON.
START = """
import json
def tell(value): print(json.dumps(value))
from huggingface_hub import *
from huggingface_hub.errors import *
api = HfApi()
def failure(call, *words, **options):
    try: call(*words, **options)
    except Exception as error:
        while error.__cause__ and not hasattr(error, "response"): error = error.__cause__
        return f"{error.response.status_code if hasattr(error, 'response') else ''} {type(error).__name__}"
def upload(): return api.upload_folder(repo_id="owner/name", folder_path="model").oid
"""

Client = Callable[..., Any]


@pytest.fixture(scope="module")
def python(hubs: Callable[[], Hub], tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmPython]:
    environment = {**os.environ, **hubs().environment(tmp_path_factory.mktemp("home"), "hf_owner")}
    environment["HF_HUB_DOWNLOAD_TIMEOUT"] = "2"  # seconds
    with warm_python("huggingface_hub.hf_api", environment=environment) as python:
        yield python


@pytest.fixture
def client(python: WarmPython, hub: Hub, tmp_path: Path) -> Client:
    """Run code as the owner, beside a model to upload, in a process of its own; what it tells."""
    hub.repos["model", NAME] = Repo("model", NAME)
    hub.part_size = PART
    (tmp_path / "model" / "sub").mkdir(parents=True)
    for name, content in FILES.items():
        (tmp_path / "model" / name).write_bytes(content)

    def run(code: str) -> Any:
        done = python.run(START + dedent(code), environment={}, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def uploaded(hub: Hub) -> dict[str, bytes]:
    """The files of the repository without the first commit's."""
    files = hub.repo("model", NAME).head.files
    return {path: blob.content for path, blob in files.items() if path != ".gitattributes"}


def test_a_folder_goes_up_and_comes_down_and_a_second_time_nothing_is_committed(
    hub: Hub, client: Client, tmp_path: Path
) -> None:
    told = client("""
        oids = [upload(), upload()]
        snapshot_download("owner/name", local_dir="down")
        tell(oids)
    """)
    head = hub.repo("model", NAME).head
    assert told == [head.oid, head.oid]
    assert len(hub.repo("model", NAME).commits) == 2
    assert uploaded(hub) == FILES
    assert {name: (tmp_path / "down" / name).read_bytes() for name in FILES} == FILES
    # Large files go up in parts and come from another host, which sees no token.
    assert len(hub.asked("PUT", "/cdn/lfs/")) == 3
    assert [one.status for one in hub.asked("POST", "complete_multipart")] == [200]
    assert [one for one in hub.requests if "/cdn/" in one.path and "authorization" in one.headers] == []
    assert hub.asked("GET", "/cdn/lfs/")


def test_what_the_hub_says_of_a_repository(hub: Hub, client: Client) -> None:
    told = client("""
        upload()
        api.create_tag("owner/name", tag="v/1", tag_message="first")
        api.delete_file("sub/notes.txt", "owner/name")
        tell({
            "tagged": api.model_info("owner/name", revision="v/1").sha,
            "head": api.model_info("owner/name").sha,
            "tree": [one.path for one in api.list_repo_tree("owner/name", recursive=True)],
            "old": [one.path for one in api.list_repo_tree("owner/name", revision="v/1")],
            "inside": [one.path for one in api.list_repo_tree("owner/name", "sub", revision="v/1")],
            "by tag": open(hf_hub_download("owner/name", "sub/notes.txt", revision="v/1")).read(),
            "commits": [one.commit_id for one in api.list_repo_commits("owner/name")],
            "exists": [api.file_exists("owner/name", "none"), api.revision_exists("owner/name", "none")],
        })
    """)
    commits = [commit.oid for commit in reversed(hub.repo("model", NAME).commits)]
    files = [".gitattributes", "README.md", "model.safetensors"]
    assert told == {
        "tagged": commits[1],
        "head": commits[0],
        "tree": files,
        "old": [*files, "sub"],
        "inside": ["sub/notes.txt"],
        "by tag": "notes",
        "commits": commits,
        "exists": [False, False],
    }


def test_who_may_do_what(hub: Hub, client: Client) -> None:
    code = """
        def failures(token):
            api = HfApi(token=token)
            return [
                failure(api.model_info, "owner/name"),
                failure(api.create_repo, "owner/name", private=True),
                failure(api.upload_file, repo_id="owner/name", path_or_fileobj=b"", path_in_repo="a.txt"),
            ]
        tell([failures(token) for token in (False, "hf_unknown", "hf_stranger", "hf_owner")])
    """
    unauthorised, forbidden, absent = "401 HfHubHTTPError", "403 HfHubHTTPError", "RepositoryNotFoundError"
    hub.repo("model", NAME).private = True
    assert client(code) == [
        [f"401 {absent}", unauthorised, f"401 {absent}"],
        [unauthorised] * 3,
        [f"404 {absent}", forbidden, f"404 {absent}"],
        [None, "409 HfHubHTTPError", None],
    ]
    hub.repo("model", NAME).private = False
    nobody, _, stranger, _ = client(code)
    assert nobody == [None, unauthorised, unauthorised]
    assert stranger == [None, forbidden, forbidden]


def test_a_commit_is_applied_whole_or_not_at_all(hub: Hub, client: Client) -> None:
    told = client("""
        head = api.model_info("owner/name").sha
        def commit(*operations, **options):
            return failure(api.create_commit, "owner/name", operations, commit_message="all", **options)
        good = CommitOperationAdd("good.txt", b"good")
        damaged = CommitOperationAdd("model.onnx", b"abc")
        damaged.upload_info.sha256 = b"0" * 32  # as if the file changed while it went up
        tell([
            commit(good, damaged),
            commit(CommitOperationAdd("good.txt", b"good"), parent_commit=head),
            commit(CommitOperationAdd("late.txt", b"late"), parent_commit=head),
        ])
    """)
    assert told == ["404 HfHubHTTPError", None, "412 HfHubHTTPError"]
    assert uploaded(hub) == {"good.txt": b"good"}


@pytest.mark.parametrize(
    ("path", "fault", "statuses"),
    [
        ("/1$", {"status": 503}, [503, 200]),
        ("/2$", {"cut_request": PART // 2}, [None, 200]),
        ("/3$", {"cut_request": 0.5, "reset": True}, [None, 200]),
        ("/2$", {"cut_response": 0}, [None, 200]),
    ],
)
def test_trouble_of_the_storage_is_tried_again_by_the_client(
    hub: Hub, client: Client, path: str, fault: dict[str, Any], statuses: list[int | None]
) -> None:
    hub.faults.append(Fault("PUT", path, **fault))
    assert client("tell(upload())") == hub.repo("model", NAME).head.oid
    assert [one.status for one in hub.asked("PUT", path)] == statuses
    assert [one.is_cut for one in hub.asked("PUT", path)] == [statuses[0] is None, False]
    assert uploaded(hub)["model.safetensors"] == LARGE


@pytest.mark.parametrize(
    ("fault", "told", "asked"),
    [
        ({"cut_response": 11_000_000}, None, [(None, 200), (f"bytes={10 * 2**20}-", 206)]),
        ({"cut_response": 11_000_000, "reset": True}, " ConnectionResetError", [(None, 200)]),
        ({"delay": SILENT}, None, [(None, None), (None, 200)]),
    ],
    ids=["cut", "reset", "silent"],
)
def test_a_large_download(
    hub: Hub, client: Client, tmp_path: Path, fault: dict[str, Any], told: str | None, asked: list[object]
) -> None:
    """After a close it goes on, by steps of DOWNLOAD_CHUNK_SIZE (constants.py), but not after an RST."""
    blob = Blob(os.urandom(12_000_000), is_lfs=True)
    hub.cdn[f"lfs/{blob.oid}"] = blob.content
    hub.repo("model", NAME).commit({"model.onnx": blob}, "Upload")
    hub.faults.append(Fault("GET", "/cdn/lfs/", **fault))
    code = "tell(failure(hf_hub_download, 'owner/name', 'model.onnx', local_dir='down'))"
    assert client(code) == told
    assert [(one.headers.get("range"), one.status) for one in hub.asked("GET", "/cdn/lfs/")] == asked
    if told is None:
        assert (tmp_path / "down" / "model.onnx").read_bytes() == blob.content


def test_what_is_unknown_is_recorded_and_other_hosts_are_too() -> None:
    code = """
        import requests, sys
        assert requests.get(sys.argv[1] + "/api/agent-harnesses").ok
        assert requests.get(sys.argv[1] + "/api/papers").status_code == 404
        assert requests.get("http://example.org/a").status_code == 404
        try: requests.get("https://example.org/b")
        except requests.ConnectionError: pass
    """
    with serving_hubs() as new_hub:
        hub = new_hub()
        environment = {**os.environ, **hub.environment(Path("none"), None)}
        subprocess.run([sys.executable, "-c", dedent(code), hub.url], env=environment, check=True)
    assert [one.path for one in hub.unknown()] == ["/api/papers", "http://example.org/a", "example.org:443"]
