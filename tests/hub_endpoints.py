"""The HTTP API of the Hub of the tests, as far as the unmodified clients need it for what the tests do.

Comments and docstrings name the functions of huggingface_hub that an answer is made for; where no file is
named, they are of hf_api.py.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import md5
from math import ceil
from typing import Any

import hub_xet
import yaml
from hub_store import Blob, Commit, Repo, Store, UnknownError, belongs_in_lfs
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

DATASET_TYPE = r"(?:[\w-]+/)?[\w.-]+"  # of a result in model-index
ERROR_CODE = "X-Error-Code"  # by which hf_raise_for_status (utils/_http.py) chooses the client's exception
XET_SECONDS = 3600  # for which a token of the Xet storage is good
SOME_DAY = "2026-01-01T00:00:00.000Z"  # of whatever has a date


@dataclass
class Call:
    """A request that has come whole. path: its segments, unquoted."""

    hub: Store
    method: str
    path: list[str]
    query: QueryParams
    headers: Headers
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    def user(self) -> str | None:
        """Who asks, None where no token came."""
        if self.token() and self.token() not in self.hub.tokens:
            raise HTTPException(401, "Invalid credentials in Authorization header")
        return self.hub.tokens.get(self.token())

    def owner(self, namespace: str | None = None) -> str:
        """Who asks, if it is the owner of the namespace."""
        user = self.user()
        if user is None:
            raise HTTPException(401, "Invalid username or password.")
        if user != (namespace or user):
            raise HTTPException(403, f'You have no rights to write under the namespace "{namespace}"')
        return user

    def repo(self, kind: str, repo_id: str) -> Repo:
        """A repository; a private one is to others as if it were not there, which is 401 without a token."""
        found, user = self.hub.repos.get((kind, repo_id)), self.user()
        if not found or (found.private and user != found.owner):
            raise HTTPException(404 if user else 401, "Repository not found", {ERROR_CODE: "RepoNotFound"})
        return found


def answer(call: Call) -> object:
    """What is sent as JSON, unless it is a response. Raises HTTPException for a refusal, UnknownError."""
    match call.method, call.path:
        case "GET", ["api", "whoami-v2"]:  # whoami
            return {"type": "user", "name": call.owner()}
        case "POST", ["api", "repos", "create"]:
            return _create_repo(call)
        case "POST", ["api", "validate-yaml"]:
            return _validate_yaml(call.json()["content"])
        case "POST", ["api", "complete_multipart"]:
            return _complete_multipart(call.hub, **call.json())
        case _, ["api", "collections", *slug]:
            return _collection(call, "/".join(slug))
        case "GET", ["api", "agent-harnesses"]:  # _fetch_registry (utils/_detect_agent.py)
            return {"standardEnvVars": [], "harnesses": {}}
        case _, ["cdn", *key]:
            return _cdn(call, "/".join(key))
        case _, ["v1" | "v2", *_]:
            return hub_xet.answer(call)
    return _of_repo(call)


def _of_repo(call: Call) -> object:
    """What is answered of a repository."""
    match call.path:
        case ["api", "models" | "datasets" | "spaces" as kinds, owner, name, *rest]:
            repo = call.repo(kinds.removesuffix("s"), f"{owner}/{name}")
        case ["datasets" | "spaces" as kinds, owner, name, *rest]:
            repo = call.repo(kinds.removesuffix("s"), f"{owner}/{name.removesuffix('.git')}")
        case [owner, name, *rest] if owner != "api":
            repo = call.repo("model", f"{owner}/{name.removesuffix('.git')}")
        case _:
            raise UnknownError(404)
    if call.method != "GET" or rest[:1] == ["xet-write-token"]:
        call.owner(repo.owner)
    match call.method, rest:
        case "GET", [] | ["revision", _]:  # model_info, dataset_info, space_info
            commit = repo.at(rest[1] if rest else "main")
            siblings = [{"rfilename": path} for path in commit.files]
            return {"id": repo.id, "sha": commit.oid, "private": repo.private, "siblings": siblings}
        case "GET", ["commits", "main"]:  # list_repo_commits
            return [_commit_info(commit) for commit in reversed(repo.commits)]
        case "GET", ["refs"]:  # list_repo_refs
            tags = [{"name": tag, "ref": tag, "targetCommit": oid} for tag, oid in repo.tags.items()]
            return {"converts": [], "branches": [], "tags": tags}
        case "GET", ["tree", revision, *folder]:  # list_repo_tree
            return _tree(call, repo.at(revision), "/".join(folder))
        case "GET", ["resolve", revision, *path]:
            return _resolve(call, repo, repo.at(revision), "/".join(path))
        case "PUT", ["settings"]:  # update_repo_settings
            repo.private = call.json()["visibility"] == "private"
            return {}
        case "POST", ["tag", revision]:  # create_tag
            repo.tags[call.json()["tag"]] = repo.at(revision).oid
            return {}
        case "POST", ["preupload", "main"]:  # _fetch_upload_modes (_commit_api.py)
            return {"files": [_upload_mode(repo.head, **file) for file in call.json()["files"]]}
        case "POST", ["info", "lfs", "objects", "batch"]:  # post_lfs_batch_info (lfs.py)
            objects = [{**each, **_lfs_actions(call.hub, repo, **each)} for each in call.json()["objects"]]
            return {"transfer": "multipart", "objects": objects}
        case "POST", ["info", "lfs", "objects", "verify"]:  # lfs_upload (lfs.py)
            return {"size": len(call.hub.lfs_blob(call.json()["oid"]).content)}
        case "POST", ["commit", "main"]:
            return _commit(call, repo)
        case "GET", ["xet-read-token" | "xet-write-token" as token, _]:
            return _xet_token(call.hub, token.split("-")[1])
    raise UnknownError(404)


def _create_repo(call: Call) -> object:
    """create_repo, which with exist_ok reads the url of the refusal too."""
    wanted = call.json()
    kind, name = wanted.get("type", "model"), f"{call.owner(wanted['organization'])}/{wanted['name']}"
    repo = Repo(kind, name, private=wanted["visibility"] == "private")
    url = f"{call.hub.url}/{repo.url_path}"
    if (kind, name) in call.hub.repos:
        return JSONResponse({"error": f"You already created this {kind} repo: {name}", "url": url}, 409)
    call.hub.repos[kind, name] = repo
    return {"url": url, "name": name}


def _validate_yaml(readme: str) -> object:
    """_validate_yaml, before README.md is uploaded; of its values only data sets' types are checked."""
    block = re.match(r"---\n(.*?)\n---", readme, re.DOTALL)
    metadata = yaml.safe_load(block[1]) if block else {}
    wrong = [] if isinstance(metadata, dict) else ["the front matter is not a mapping"]
    wrong += [
        f'"model-index[{model}].results[{result}].dataset.type" with value "{value}" fails to match the '
        f"required pattern: {DATASET_TYPE}"
        for model, index in enumerate([] if wrong else metadata.get("model-index", []))
        for result, entry in enumerate(index["results"])
        if not re.fullmatch(DATASET_TYPE, value := entry["dataset"]["type"], re.ASCII)
    ]
    errors = [{"message": message} for message in wrong]
    return JSONResponse({"errors": errors, "warnings": []}, 400 if wrong else 200)


def _collection(call: Call, slug: str) -> object:
    """create_collection, which reads the slug of a refusal; get_, update_, add_collection_item."""
    wanted = call.json() if call.body else {}
    if not slug:
        slug = f"{call.owner(wanted['namespace'])}/{wanted['title'].lower().replace(' ', '-')}"
        if slug in call.hub.collections:
            return JSONResponse({"error": "This collection already exists", "slug": slug}, 409)
        shown = {"lastUpdated": SOME_DAY, "position": 0, "theme": "blue", "upvotes": 0}
        owner = {"name": call.user()}
        call.hub.collections[slug] = {**shown, **wanted, "slug": slug, "owner": owner, "items": []}
    found = call.hub.collections[slug.removesuffix("/items")]
    call.owner(found["owner"]["name"])
    if slug.endswith("/items"):
        item = wanted["item"]
        if item["id"] in [each["id"] for each in found["items"]]:
            raise HTTPException(409, f"{item['id']} is already in the collection")
        found["items"].append({**item, "_id": item["id"], "position": len(found["items"])})
    elif call.method == "PATCH":
        found |= wanted
        return {"data": found}
    return found


# What goes up


def _upload_mode(head: Commit, path: str, sample: str, **_more: object) -> object:
    """Whether a file belongs into LFS, and the oid that it has now."""
    mode = "lfs" if belongs_in_lfs(path, b64decode(sample)) else "regular"
    oid = {"oid": head.files[path].oid} if path in head.files else {}
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, **oid}


def _lfs_actions(hub: Store, repo: Repo, oid: str, size: int) -> dict[str, object]:
    """How to upload a file that is not there yet, in one part or many."""
    if hub.has_lfs(oid):
        return {}
    url = f"{hub.cdn_url}/cdn/lfs/{oid}"
    upload: dict[str, object] = {"href": url}
    if size > hub.part_size:
        # _upload_multi_part (lfs.py): chunk_size says so, and the address is the completion's.
        parts = {str(number): f"{url}/{number}" for number in range(1, ceil(size / hub.part_size) + 1)}
        header = {"chunk_size": str(hub.part_size), **parts}
        upload = {"href": f"{hub.url}/api/complete_multipart", "header": header}
    verify = {"href": f"{hub.url}/{repo.url_path}.git/info/lfs/objects/verify"}
    return {"actions": {"upload": upload, "verify": verify}}


def _complete_multipart(hub: Store, oid: str, parts: list[dict[str, Any]]) -> object:
    """_upload_multi_part (lfs.py): the parts become the file."""
    hub.cdn[f"lfs/{oid}"] = b"".join(hub.cdn[f"lfs/{oid}/{part['partNumber']}"] for part in parts)
    return {"success": True}


def _commit(call: Call, repo: Repo) -> object:
    """_send_commit (_commit_api.py). All of it is checked before anything is changed."""
    header, *lines = [json.loads(line) for line in call.body.splitlines()]
    about: Mapping[str, str] = header["value"]
    if about.get("parentCommit") not in (None, repo.head.oid):
        raise HTTPException(412, "A commit has happened since. Please refresh and try again.")
    changes = {line["value"]["path"]: _change(call.hub, **line) for line in lines}
    done = repo.commit(changes, about["summary"], about["description"], call.owner())
    url = f"{call.hub.url}/{repo.url_path}/commit/{done.oid}"
    return {"success": True, "commitOid": done.oid, "commitUrl": url, "hookOutput": ""}


def _change(hub: Store, key: str, value: Mapping[str, Any]) -> Blob | None:
    """One line of _prepare_commit_payload (_commit_api.py)."""
    match key:
        case "file":
            return Blob(b64decode(value["content"]))
        case "lfsFile":
            return hub.lfs_blob(value["oid"])
        case "deletedFile":
            return None
    raise UnknownError(404)


def _xet_token(hub: Store, scope: str) -> object:
    """Where the Xet storage is, and a token for it.

    _fetch_xet_connection_info_with_url (utils/_xet.py) wants it in headers, hf_xet as JSON.
    """
    token, expires = f"xet_{secrets.token_hex(8)}", int(time.time()) + XET_SECONDS
    hub.xet_tokens[token] = scope
    headers = {"Cas-Url": hub.cdn_url, "Access-Token": token, "Token-Expiration": str(expires)}
    return JSONResponse(
        {"casUrl": hub.cdn_url, "accessToken": token, "exp": expires},
        headers={f"X-Xet-{name}": value for name, value in headers.items()},
    )


# What comes down


def _commit_info(commit: Commit) -> object:
    """GitCommitInfo."""
    about = {"id": commit.oid, "title": commit.title, "message": commit.message}
    return {**about, "authors": [{"user": commit.author}], "date": SOME_DAY}


def _tree(call: Call, found: Commit, folder: str) -> object:
    """The files and folders of a folder; the root is ""."""
    start, is_recursive = folder and f"{folder}/", call.query.get("recursive") == "true"
    paths = [path for path in sorted({*found.files, *found.folders}) if path.startswith(start)]
    return [_entry(call.hub, found, path) for path in paths if is_recursive or "/" not in path[len(start) :]]


def _entry(hub: Store, found: Commit, path: str) -> dict[str, object]:
    """RepoFile or RepoFolder."""
    if path in found.folders:
        return {"type": "directory", "path": path, "oid": found.oid}
    blob = found.files[path]
    size = len(blob.content)
    entry = {"type": "file", "path": path, "oid": blob.oid, "size": size}
    lfs = {"lfs": {"oid": blob.oid, "size": size, "pointerSize": 0}} if blob.is_lfs else {}
    xet = {"xetHash": hub.xet[blob.oid].hash} if blob.oid in hub.xet else {}
    return {**entry, **lfs, **xet}


def _resolve(call: Call, repo: Repo, found: Commit, path: str) -> Response:
    """get_hf_file_metadata (file_download.py): what a file is, and its content or where that lies.

    What came by Xet may be fetched by Xet: parse_xet_file_data_from_response (utils/_xet.py).
    """
    headers = {"X-Repo-Commit": found.oid}
    if path not in found.files:
        # The client remembers this for the commit: _get_metadata_or_catch_error (file_download.py).
        raise HTTPException(404, f"Entry not found: {path}", {ERROR_CODE: "EntryNotFound", **headers})
    blob = found.files[path]
    if not blob.is_lfs:
        return _content(call, blob.content, {**headers, "ETag": f'"{blob.oid}"'})
    headers |= {"X-Linked-ETag": f'"{blob.oid}"', "X-Linked-Size": str(len(blob.content))}
    if file := call.hub.xet.get(blob.oid):
        url = f"{call.hub.url}/api/{repo.kind}s/{repo.id}/xet-read-token/{found.oid}"
        headers |= {"X-Xet-Hash": file.hash, "Link": f'<{url}>; rel="xet-auth"'}
    return RedirectResponse(f"{call.hub.cdn_url}/cdn/lfs/{blob.oid}", 302, headers)


def _cdn(call: Call, key: str) -> Response:
    """The other host, with files of LFS and xorbs of Xet; it refuses a token, as S3 does: none may leave."""
    if call.token():
        raise HTTPException(400, "Only one auth mechanism allowed")
    if call.method == "GET":
        return _content(call, call.hub.cdn[key], {})
    call.hub.cdn[key] = call.body
    return Response(headers={"ETag": md5(call.body).hexdigest()})


def _content(call: Call, whole: bytes, headers: Mapping[str, str]) -> Response:
    """All bytes, or those of one range: http_get (file_download.py), HfFileSystemFile._fetch_range."""
    headers = {"Accept-Ranges": "bytes", **headers}
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("range", ""))
    if not wanted:
        return Response(whole, headers=headers)
    start, end = int(wanted[1]), int(wanted[2] or len(whole)) + 1
    part = whole[start:end]
    headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(whole)}"
    return Response(part, 206, headers)
