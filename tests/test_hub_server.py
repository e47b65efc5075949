"""The Hub of the tests does for the unmodified clients, each a process of its own, what the real one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx2
import pytest
from hub_server import SILENT, Fault, Hub, running_hub
from hub_store import Blob, Repo

pytestmark = pytest.mark.slow

# What every client starts with; what it tells is printed as JSON.
START = """
import json, sys
sys.modules["xray_hf"] = None  # must not be needed
def tell(value): print(json.dumps(value))
from huggingface_hub import *
from huggingface_hub.errors import *
api = HfApi()
def raw(key, **value):  # a commit of one good line and this
    from huggingface_hub.utils import build_hf_headers, get_session
    lines = [{"key": "header", "value": {"summary": "raw", "description": ""}},
             {"key": "file", "value": {"path": "b.txt", "content": "YQ==", "encoding": "base64"}},
             {"key": key, "value": value}]
    body = "\\n".join(json.dumps(line) for line in lines)
    url = api.endpoint + "/api/models/owner/name/commit/main"
    return get_session().post(url, content=body, headers=build_hf_headers()).status_code
"""
NAME = "owner/name"
PART = 100_000  # bytes
LARGE = bytes(range(256)) * 1000  # three parts

Client = Callable[..., Any]


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub of two users; nobody asked it, or any other host, for what it does not know."""
    with running_hub("owner", "stranger", page_size=3, part_size=PART) as running:
        yield running
    assert running.unknown() == []


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    """Run code as the owner in a process of its own; what it tells."""

    def run(code: str, **environment: str) -> Any:
        run = subprocess.run(
            [sys.executable, "-c", START + dedent(code)],
            env={**os.environ, **hub.environment(tmp_path / "home", "hf_owner"), **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    return run


def uploaded(hub: Hub, kind: str = "model") -> dict[str, bytes]:
    """The files of the repository without the first commit's."""
    files = hub.repo(kind, NAME).head.files
    return {path: blob.content for path, blob in files.items() if path != ".gitattributes"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model to upload: two small files and a large one."""
    made = tmp_path / "model"
    (made / "sub").mkdir(parents=True)
    (made / "README.md").write_text("---\ntags: [x-ray]\nlibrary_name: timm\n---\n# Model\n")
    (made / "sub" / "notes.txt").write_text("notes")
    (made / "model.safetensors").write_bytes(LARGE)
    return made


def test_a_folder_goes_up_and_comes_down_and_a_second_time_nothing_is_committed(
    hub: Hub, client: Client, folder: Path
) -> None:
    told = client("""
        url = api.create_repo("owner/name", private=True)
        first = api.upload_folder(repo_id="owner/name", folder_path="model")
        second = api.upload_folder(repo_id="owner/name", folder_path="model")
        down = snapshot_download("owner/name", local_dir="down")
        tell([url.repo_id, first.oid, second.oid])
    """)
    repo = hub.repo("model", NAME)
    assert told == [NAME, repo.head.oid, repo.head.oid]
    assert [one.title for one in repo.history(repo.head)] == [
        "Upload folder using huggingface_hub",
        "initial commit",
    ]
    expected = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}
    assert uploaded(hub) == expected
    assert {name: (folder.parent / "down" / name).read_bytes() for name in expected} == expected
    # Large files go up in parts and come from another host, which sees no token.
    assert len(hub.asked("PUT", "/cdn/uploads/")) == 3
    assert [one.status for one in hub.asked("POST", "complete_multipart")] == [200]
    at_other_host = [one for one in hub.requests if one.path.startswith("/cdn/")]
    assert all("authorization" not in one.headers for one in at_other_host)
    assert hub.asked("GET", "/cdn/objects/")


def test_what_the_hub_says_of_a_repository(hub: Hub, client: Client, folder: Path) -> None:
    told = client("""
        api.create_repo("owner/name")
        api.upload_folder(repo_id="owner/name", folder_path="model")
        first = api.model_info("owner/name").sha
        api.create_tag("owner/name", tag="v1.0", tag_message="first")
        api.create_branch("owner/name", branch="try/other")
        api.upload_file(repo_id="owner/name", path_or_fileobj=b"more", path_in_repo="sub/more.txt")
        api.delete_file("sub/notes.txt", "owner/name")
        try: api.create_tag("owner/name", tag="v1.0")
        except HfHubHTTPError as error: again = error.response.status_code
        info = api.model_info("owner/name", files_metadata=True)
        refs = api.list_repo_refs("owner/name")
        tree = list(api.list_repo_tree("owner/name", recursive=True, expand=True))
        old = api.list_repo_tree("owner/name", revision="try/other", recursive=True)
        tell({
            "again": again,
            "moved on": first != info.sha,
            "tag": [tag.target_commit == first for tag in refs.tags],
            "branches": [branch.name for branch in refs.branches],
            "card": [info.card_data.library_name, info.tags, info.private],
            "siblings": {one.rfilename: [one.size, one.lfs and one.lfs.size] for one in info.siblings},
            "tree": {one.path: one.last_commit.title for one in tree},
            "old": [one.path for one in old],
            "info": [one.path for one in api.get_paths_info("owner/name", ["sub", "none", "README.md"])],
            "by tag": open(hf_hub_download("owner/name", "sub/notes.txt", revision="v1.0")).read(),
            "commits": [one.title for one in api.list_repo_commits("owner/name")],
            "expand": api.model_info("owner/name", expand=["sha"]).sha == info.sha,
            "exists": [api.file_exists("owner/name", "none"), api.revision_exists("owner/name", "none")],
            "untagged": api.delete_tag("owner/name", tag="v1.0"),
        })
    """)
    upload, more = "Upload folder using huggingface_hub", "Upload sub/more.txt with huggingface_hub"
    assert told == {
        "again": 409,
        "moved on": True,
        "tag": [True],
        "branches": ["main", "try/other"],
        "card": ["timm", ["x-ray"], False],
        "siblings": {
            ".gitattributes": [len(hub.repo("model", NAME).head.files[".gitattributes"].content), None],
            "README.md": [len(uploaded(hub)["README.md"]), None],
            "model.safetensors": [len(LARGE), len(LARGE)],
            "sub/more.txt": [4, None],
        },
        "tree": {
            ".gitattributes": "initial commit",
            "README.md": upload,
            "model.safetensors": upload,
            "sub": "Delete sub/notes.txt with huggingface_hub",
            "sub/more.txt": more,
        },
        "old": [".gitattributes", "README.md", "model.safetensors", "sub", "sub/notes.txt"],
        "info": ["sub", "README.md"],
        "by tag": "notes",
        "commits": ["Delete sub/notes.txt with huggingface_hub", more, upload, "initial commit"],
        "expand": True,
        "exists": [False, False],
        "untagged": None,
    }
    assert hub.asked("GET", "/tree/main")[0].status == 200
    assert len(hub.asked("GET", "/tree/main")) == 2  # pages of three


def test_who_may_do_what(hub: Hub, client: Client) -> None:
    code = """
        def statuses(token):
            api = HfApi(token=token)
            def status(call, *words, **options):
                try: call(*words, **options)
                except HfHubHTTPError as error: return f"{error.response.status_code} {type(error).__name__}"
            return [
                status(api.model_info, "owner/name"),
                status(api.create_repo, "owner/name", private=True),
                status(api.create_repo, "owner/name", private=True, exist_ok=True),
                status(api.upload_file, repo_id="owner/name", path_or_fileobj=b"", path_in_repo="a.txt"),
            ]
        tell([statuses(token) for token in (False, "hf_unknown", "hf_stranger", "hf_owner")])
    """
    unauthorised, forbidden = "401 HfHubHTTPError", "403 HfHubHTTPError"
    hidden = ["401 RepositoryNotFoundError", unauthorised, unauthorised, "401 RepositoryNotFoundError"]
    nobody, unknown, stranger, owner = client(code)
    assert nobody == hidden
    assert unknown == [unauthorised] * 4
    assert stranger == ["404 RepositoryNotFoundError", forbidden, forbidden, "404 RepositoryNotFoundError"]
    assert owner == ["404 RepositoryNotFoundError", None, None, None]
    nobody, unknown, stranger, owner = client(code)
    assert nobody == hidden
    assert stranger == ["404 RepositoryNotFoundError", forbidden, forbidden, "404 RepositoryNotFoundError"]
    assert owner == [None, "409 HfHubHTTPError", None, None]
    hub.repo("model", NAME).private = False
    nobody, unknown, stranger, owner = client(code)
    assert nobody == [None, unauthorised, None, unauthorised]
    assert stranger == [None, forbidden, None, forbidden]


def test_a_repository_is_made_public_and_deleted(hub: Hub, client: Client) -> None:
    told = client("""
        api.create_repo("owner/name", private=True)
        seen = [api.repo_exists("owner/name", token=False)]
        api.update_repo_settings("owner/name", private=False)
        seen.append(api.repo_exists("owner/name", token=False))
        api.delete_repo("owner/name")
        tell([*seen, api.repo_exists("owner/name")])
    """)
    assert told == [False, True, False]


def test_a_token_expires_between_two_calls(hub: Hub, client: Client, folder: Path) -> None:
    hub.faults.append(Fault("POST", "/commit/", before=lambda: hub.tokens.clear()))
    told = client("""
        user = api.whoami()["name"]
        api.create_repo("owner/name")
        try: api.upload_folder(repo_id="owner/name", folder_path="model")
        except HfHubHTTPError as error: first = error.response.status_code, error.server_message
        try: api.whoami()
        except HfHubHTTPError as error: tell([user, *first, str(error).split(".")[0]])
    """)
    assert told == ["owner", 401, "Invalid credentials in Authorization header", "Invalid user token"]
    assert uploaded(hub) == {}


def test_spaces_and_collections(hub: Hub, client: Client) -> None:
    told = client("""
        api.create_repo("owner/name", repo_type="space", space_sdk="docker")
        api.add_space_variable("owner/name", "BUNDLES", "owner/model")
        slug = api.create_collection("Chest X-rays", description="all of it").slug
        same = api.create_collection("Chest X-rays", exists_ok=True).slug
        api.add_collection_item(slug, "owner/name", "space", note="the demo")
        again = api.add_collection_item(slug, "owner/name", "space", exists_ok=True)
        tell({
            "sdk": api.space_info("owner/name").sdk,
            "variables": {name: one.value for name, one in api.get_space_variables("owner/name").items()},
            "same": slug == same,
            "items": [[one.item_id, one.item_type, one.note] for one in again.items],
        })
    """)
    assert told == {
        "sdk": "docker",
        "variables": {"BUNDLES": "owner/model"},
        "same": True,
        "items": [[NAME, "space", "the demo"]],
    }
    statuses = [one.status for one in hub.asked("POST", "/api/collections")]
    assert statuses == [200, 409, 200, 409]


def test_a_commit_is_applied_whole_or_not_at_all(hub: Hub, client: Client) -> None:
    told = client("""
        api.create_repo("owner/name")
        head = api.model_info("owner/name").sha
        def status(*operations, **options):
            try: api.create_commit("owner/name", list(operations), commit_message="all", **options)
            except HfHubHTTPError as error: return type(error).__name__, error.response.status_code
        good = CommitOperationAdd("good.txt", b"good")
        tell([
            status(good, CommitOperationDelete("none.txt")),
            raw("lfsFile", path="m.onnx", algo="sha256", oid="0" * 64, size=3),
            raw("file", path="m.onnx", content="AAAA", encoding="base64"),
            raw("copyFile", path="c.txt"),
            status(CommitOperationAdd("good.txt", b"good"), parent_commit=head),
            status(CommitOperationAdd("late.txt", b"late"), parent_commit=head),
            status(CommitOperationAdd("pull.txt", b"pull"), create_pr=True),
            status(CommitOperationAdd(".gitignore", b"*.txt")),
        ])
    """)
    refused = "HfHubHTTPError"
    missing = ["RemoteEntryNotFoundError", 404]
    assert told == [missing, 400, 400, 400, None, [refused, 412], ["BadRequestError", 400], [refused, 501]]
    assert uploaded(hub) == {"good.txt": b"good"}


def test_a_damaged_lfs_file_is_not_committed(hub: Hub, client: Client) -> None:
    told = client("""
        api.create_repo("owner/name")
        wrong = CommitOperationAdd("model.onnx", b"abc")
        wrong.upload_info.sha256 = b"0" * 32  # as if the file changed while it went up
        try: api.create_commit("owner/name", [wrong], commit_message="wrong")
        except RuntimeError as error: verified = error.__cause__.response.status_code
        tell([verified, raw("lfsFile", path="model.onnx", algo="sha256", oid=(b"0" * 32).hex(), size=3)])
    """)
    assert told == [404, 400]
    assert uploaded(hub) == {}


DATA = {"plain": [1, 2, 3], "other": [4, 5]}


UPLOAD = """
    api.create_repo("owner/name", exist_ok=True)
    head = api.model_info("owner/name").sha
    def upload():
        try: api.upload_folder(repo_id="owner/name", folder_path="model", parent_commit=head)
        except Exception as error:
            while error.__cause__: error = error.__cause__
            return [type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)]
    tell([upload(), upload()])
"""


def test_errors_of_the_storage_are_tried_again_by_the_client(hub: Hub, client: Client, folder: Path) -> None:
    statuses = {1: 500, 2: 503, 3: 429}  # by part
    hub.faults += [Fault("PUT", f"/{part}$", status=status) for part, status in statuses.items()]
    assert client(UPLOAD) == [None, None]
    for part, status in statuses.items():
        assert [one.status for one in hub.asked("PUT", f"/{part}$")] == [status, 200]
    assert uploaded(hub)["model.safetensors"] == LARGE


def test_an_error_at_the_commit_is_not_tried_again(hub: Hub, client: Client, folder: Path) -> None:
    hub.faults.append(Fault("POST", "/commit/", status=503))
    assert client(UPLOAD) == [["HTTPStatusError", 503], None]
    assert [one.status for one in hub.asked("POST", "/commit/")] == [503, 200]
    assert len(hub.asked("PUT", "/cdn/")) == 3  # what had come was kept


def test_a_commit_whose_answer_is_lost_was_made(hub: Hub, client: Client, folder: Path) -> None:
    hub.faults.append(Fault("POST", "/commit/", cut_response=0))
    assert client(UPLOAD) == [["RemoteProtocolError", None], None]
    assert [one.status for one in hub.asked("POST", "/commit/")] == [None]  # the second had nothing to do
    assert len(hub.repo("model", NAME).commits) == 2
    assert uploaded(hub)["model.safetensors"] == LARGE


def test_another_commit_sneaks_in(hub: Hub, client: Client, folder: Path) -> None:
    def sneak() -> None:
        hub.repo("model", NAME).commit({"other.txt": Blob(b"other")}, "somebody else's")

    hub.faults.append(Fault("POST", "/commit/", before=sneak))
    assert client(UPLOAD) == [["HTTPStatusError", 412], ["HTTPStatusError", 412]]
    assert uploaded(hub) == {"other.txt": b"other"}


def test_a_large_upload_that_is_cut_or_reset_is_tried_again(hub: Hub, client: Client, folder: Path) -> None:
    hub.faults += [
        Fault("PUT", "/1$", cut_request=PART // 2),
        Fault("PUT", "/2$", cut_request=PART // 2, reset=True),
    ]
    assert client(UPLOAD) == [None, None]
    for part in (1, 2):
        assert [one.status for one in hub.asked("PUT", f"/{part}$")] == [None, 200]
    assert uploaded(hub)["model.safetensors"] == LARGE


DOWNLOAD = """
    import hashlib, httpx2
    def download():
        try: return hashlib.sha256(open(hf_hub_download("owner/name", "model.onnx"), "rb").read()).hexdigest()
        except httpx2.HTTPError as error: return type(error).__name__
    tell(download())
"""


@pytest.fixture
def downloadable(hub: Hub) -> bytes:
    """The content of a large file of the repository."""
    content = os.urandom(12_000_000)
    made = hub.repos["model", NAME] = Repo("model", NAME)
    blob = Blob(content, is_lfs=True)
    made.objects[blob.sha256] = content
    made.commit({"model.onnx": blob}, "upload")
    return content


def test_a_large_download_that_is_cut_goes_on_where_it_was(
    hub: Hub, client: Client, downloadable: bytes
) -> None:
    """The client keeps what it has in steps of DOWNLOAD_CHUNK_SIZE (constants.py), 10 MiB."""
    hub.faults.append(Fault("GET", "/cdn/objects/", cut_response=11_000_000))
    assert client(DOWNLOAD) == sha256(downloadable).hexdigest()
    asked = hub.asked("GET", "/cdn/objects/")
    assert [(one.headers.get("range"), one.status) for one in asked] == [
        (None, 200),
        (f"bytes={10 * 2**20}-", 206),
    ]


def test_a_large_download_that_is_reset_is_given_up(hub: Hub, client: Client, downloadable: bytes) -> None:
    """http_get (file_download.py) goes on after a close, yet not after an RST."""
    hub.faults.append(Fault("GET", "/cdn/objects/", cut_response=11_000_000, reset=True))
    assert client(DOWNLOAD) == "ReadError"


def test_a_silent_storage_is_asked_again(hub: Hub, client: Client, downloadable: bytes) -> None:
    hub.faults.append(Fault("GET", "/cdn/objects/", delay=SILENT))
    assert client(DOWNLOAD, HF_HUB_DOWNLOAD_TIMEOUT="2") == sha256(downloadable).hexdigest()
    assert len(hub.asked("GET", "/cdn/objects/")) == 2


def test_ranges(hub: Hub, downloadable: bytes) -> None:
    url = f"{hub.cdn_url}/cdn/objects/{hub.repo('model', NAME).head.files['model.onnx'].sha256}"
    for wanted, expected in {
        "bytes=10-19": downloadable[10:20],
        "bytes=11999990-": downloadable[-10:],
        "bytes=-5": downloadable[-5:],
        "bytes=11999990-99999999": downloadable[-10:],
    }.items():
        answer = httpx2.get(url, headers={"Range": wanted})
        assert (answer.status_code, answer.content) == (206, expected)
    answer = httpx2.get(url, headers={"Range": "bytes=12000000-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */12000000")


def test_bad_metadata_is_refused(client: Client) -> None:
    told = client("""
        api.create_repo("owner/name")
        readme = CommitOperationAdd("README.md", b"---\\na: [\\n---\\n")
        try: api.create_commit("owner/name", [readme], commit_message="bad")
        except ValueError as error: tell(str(error).splitlines()[0])
    """)
    assert told == "Invalid metadata in README.md."


def test_what_is_unknown_is_recorded_and_other_hosts_are_too() -> None:
    code = """
        import requests, sys
        assert requests.head(sys.argv[1] + "/api/telemetry/any/topic").ok
        assert requests.get(sys.argv[1] + "/api/papers").status_code == 404
        assert requests.get("http://example.org/a").status_code == 404
        try: requests.get("https://example.org/b")
        except requests.ConnectionError: pass
    """
    with running_hub("owner") as hub:
        environment = {**os.environ, **hub.environment(Path("none"), None)}
        subprocess.run([sys.executable, "-c", dedent(code), hub.url], env=environment, check=True)
    assert [one.path for one in hub.unknown()] == ["/api/papers", "http://example.org/a", "example.org:443"]
