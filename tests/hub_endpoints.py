"""The HTTP API of the Hub of the tests, as far as the unmodified clients need it.

The docstrings name the functions of huggingface_hub that an answer is made for; where no file is named, they
are of hf_api.py.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import md5
from math import ceil
from typing import Any
from urllib.parse import parse_qs, quote, unquote

import hub_xet
import yaml
from hub_store import Blob, Collection, Commit, HubError, Repo, Store, Upload, front_matter
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

KINDS = ("model", "dataset", "space")
DATASET_TYPE = r"(?:[\w-]+/)?[\w.-]+"  # of a result in model-index
XET_SECONDS = 3600  # for which a token of the Xet storage is good


class _Call:
    """A request, with what most endpoints want of it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.hub: Store = request.app.state.store
        self.params = {name: unquote(value) for name, value in request.path_params.items()}

    async def json(self) -> Any:
        return json.loads(await self.request.body())

    def flag(self, name: str) -> bool:
        return self.request.query_params.get(name) in ("true", "True", "1")

    def user(self) -> str | None:
        """Who asks, None where no token came."""
        scheme, _, token = self.request.headers.get("authorization", "").partition(" ")
        if scheme and token not in self.hub.tokens:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.hub.tokens[token] if scheme else None

    def owner(self, namespace: str | None = None) -> str:
        """Who asks, if it is the owner of the namespace."""
        user = self.user()
        if user is None:
            raise HubError(401, "Invalid username or password.")
        if user != (namespace or user):
            raise HubError(403, f'You don\'t have the rights to write under the namespace "{namespace}"')
        return user

    def repo(self, *, write: bool = False) -> Repo:
        """The repository of the path.

        A private one is to others as if it were not there; without a token the status of both is 401
        (hf_raise_for_status, utils/_http.py).
        """
        kind, repo_id = self.params["kind"], f"{self.params['namespace']}/{self.params['name']}"
        found, user = self.hub.repos.get((kind, repo_id)), self.user()
        if not found or (found.private and user != found.owner):
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        if write:
            self.owner(found.owner)
        return found

    def paged(self, entries: Sequence[object]) -> Response:
        """One page of a listing; the next is in the Link header: _get_next_page (utils/_pagination.py)."""
        start = int(self.request.query_params.get("cursor", 0))
        end = start + self.hub.page_size
        url = self.hub.url + self.request.scope["raw_path"].decode()
        query = self.request.url.include_query_params(cursor=end).query
        link = {"Link": f'<{url}?{query}>; rel="next"'} if end < len(entries) else {}
        return JSONResponse(entries[start:end], headers=link)


# Users and repositories


async def whoami(call: _Call) -> object:
    """HfApi.whoami."""
    user = call.owner()
    token = {"displayName": "tests", "role": "write"}
    auth = {"type": "access_token", "accessToken": token}
    return {"type": "user", "id": user, "name": user, "fullname": user, "orgs": [], "auth": auth}


async def create_repo(call: _Call) -> object:
    """HfApi.create_repo, which with exist_ok reads the url of the refusal too."""
    wanted = await call.json()
    if foreign := wanted.keys() - {"name", "organization", "visibility", "type", "sdk"}:
        raise HubError(400, f"this Hub does not know {', '.join(sorted(foreign))}")
    owner = call.owner(wanted["organization"])
    kind = wanted.get("type", "model")
    repo = Repo(kind, f"{owner}/{wanted['name']}", wanted.get("visibility") == "private", wanted.get("sdk"))
    url = f"{call.hub.url}/{repo.url_path}"
    if (kind, repo.id) in call.hub.repos:
        raise HubError(409, f"You already created this {kind} repo: {repo.id}", url=url)
    call.hub.repos[kind, repo.id] = repo
    return {"url": url, "name": repo.id}


async def delete_repo(call: _Call) -> object:
    """HfApi.delete_repo."""
    wanted = await call.json()
    namespace = wanted["organization"] or call.owner()
    call.params = {"kind": wanted.get("type", "model"), "namespace": namespace, "name": wanted["name"]}
    repo = call.repo(write=True)
    del call.hub.repos[repo.kind, repo.id]
    return {}


async def update_settings(call: _Call) -> object:
    """HfApi.update_repo_settings."""
    repo, wanted = call.repo(write=True), await call.json()
    if wanted.keys() != {"visibility"}:
        raise HubError(400, f"this Hub knows the setting visibility only, not {', '.join(wanted)}")
    repo.private = wanted["visibility"] == "private"
    return {}


async def repo_info(call: _Call) -> object:
    """HfApi.model_info, dataset_info, space_info: ModelInfo and so on."""
    repo = call.repo()
    commit = repo.at(call.params.get("revision", "main"))
    card = commit.card()
    info = {
        "id": repo.id,
        "author": repo.owner,
        "sha": commit.oid,
        "private": repo.private,
        "gated": False,
        "disabled": False,
        "createdAt": _stamp(list(repo.history(commit))[-1].date),
        "lastModified": _stamp(commit.date),
        "downloads": 0,
        "likes": 0,
        "tags": card.get("tags", []),
        "cardData": card,
        "siblings": [_sibling(path, blob, call.flag("blobs")) for path, blob in commit.files.items()],
    }
    if repo.kind == "model":
        info |= {"library_name": card.get("library_name"), "pipeline_tag": card.get("pipeline_tag")}
    if repo.sdk:
        info["sdk"] = repo.sdk
    expand = call.request.query_params.getlist("expand")
    return {name: info.get(name) for name in ("id", *expand)} if expand else info


def _sibling(path: str, blob: Blob, with_blobs: bool) -> dict[str, object]:
    """RepoSibling (hf_api.py)."""
    if not with_blobs:
        return {"rfilename": path}
    lfs = {"lfs": {"sha256": blob.sha256, **_lfs_sizes(blob)}} if blob.is_lfs else {}
    return {"rfilename": path, "size": len(blob.content), "blobId": blob.oid, **lfs}


def _lfs_sizes(blob: Blob) -> dict[str, int]:
    return {"size": len(blob.content), "pointerSize": len(blob.in_git)}


# Writing


async def validate_yaml(call: _Call) -> object:
    """HfApi._validate_yaml, before README.md is uploaded; of its values only data sets' types are checked."""
    try:
        found = front_matter((await call.json())["content"])
    except yaml.YAMLError as error:
        raise HubError(400, "Invalid metadata", errors=[{"message": str(error)}]) from error
    types = {
        f"model-index[{model}].results[{result}].dataset.type": entry["dataset"]["type"]
        for model, index in enumerate((found or {}).get("model-index", []))
        for result, entry in enumerate(index["results"])
    }
    wrong = [
        {"message": f'"{key}" with value "{value}" fails to match the required pattern: {DATASET_TYPE}'}
        for key, value in types.items()
        if not re.fullmatch(DATASET_TYPE, value, re.ASCII)
    ]
    if wrong:
        raise HubError(400, "Invalid metadata", errors=wrong)
    return {"errors": [], "warnings": [] if found else [{"message": "empty or missing yaml metadata"}]}


async def preupload(call: _Call) -> object:
    """_fetch_upload_modes (_commit_api.py): into LFS or not, and the oid that the file has now."""
    repo, wanted = call.repo(write=True), await call.json()
    if "gitIgnore" in wanted:
        raise HubError(501, "this Hub does not know .gitignore")
    commit = repo.at(call.params["revision"])
    files = []
    for file in wanted["files"]:
        path, now = file["path"], commit.files.get(file["path"])
        mode = repo.upload_mode(commit, path, file["size"], b64decode(file["sample"]))
        oid = {"oid": now.etag} if now else {}
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **oid})
    return {"files": files, "commitOid": commit.oid}


async def lfs_batch(call: _Call) -> object:
    """post_lfs_batch_info (lfs.py): how to upload each file that is not there yet, in one part or many."""
    repo, wanted = call.repo(write=True), await call.json()
    objects = [{**one, **_lfs_actions(call.hub, repo, one["oid"], one["size"])} for one in wanted["objects"]]
    return {"transfer": "multipart", "objects": objects}


def _lfs_actions(hub: Store, repo: Repo, oid: str, size: int) -> dict[str, object]:
    if repo.lfs_blob(oid, size):
        return {}
    key, count = secrets.token_hex(8), ceil(size / hub.part_size)
    hub.uploads[key] = Upload(repo, oid, count)
    parts = {str(number): f"{hub.cdn_url}/cdn/uploads/{key}/{number}" for number in range(1, count + 1)}
    upload: dict[str, object] = {"href": parts["1"]}
    if count > 1:
        # _upload_multi_part: chunk_size says so, and the address is the completion's.
        header = {"chunk_size": str(hub.part_size), **parts}
        upload = {"href": f"{hub.url}/api/complete_multipart/{key}", "header": header}
    verify = {"href": f"{hub.url}/{repo.url_path}.git/info/lfs/objects/verify"}
    return {"actions": {"upload": upload, "verify": verify}}


async def put_part(call: _Call) -> object:
    """_upload_single_part and _upload_parts_iteratively (lfs.py): a part counts when it has come whole."""
    _refuse_token(call)
    upload = call.hub.uploads[call.params["key"]]
    part = await call.request.body()
    upload.parts[int(call.params["number"])] = part
    if upload.count == 1:
        upload.repo.objects[upload.oid] = part
    return Response(headers={"ETag": _s3_etag(part)})


async def complete_multipart(call: _Call) -> object:
    """_upload_multi_part (lfs.py): the parts become the file, if they are those that came."""
    upload = call.hub.uploads[call.params["key"]]
    told = [(part["partNumber"], part["etag"]) for part in (await call.json())["parts"]]
    if told != [(number, _s3_etag(part)) for number, part in sorted(upload.parts.items())]:
        raise HubError(400, "InvalidPart")
    if len(told) != upload.count:
        raise HubError(400, f"{len(told)} of {upload.count} parts were uploaded")
    upload.repo.objects[upload.oid] = b"".join(part for _, part in sorted(upload.parts.items()))
    return {"success": True}


async def verify(call: _Call) -> object:
    """lfs_upload (lfs.py), its last step."""
    repo, wanted = call.repo(write=True), await call.json()
    if not repo.lfs_blob(wanted["oid"], wanted["size"]):
        raise HubError(404, f"the object {wanted['oid']} is missing or damaged")
    return {}


async def commit(call: _Call) -> object:
    """_send_commit (_commit_api.py). All of it is checked before anything is changed."""
    repo, branch = call.repo(write=True), call.params["revision"]
    if call.flag("create_pr"):
        raise HubError(400, "this Hub does not know pull requests")
    lines = [json.loads(line) for line in (await call.request.body()).splitlines()]
    header = lines[0]["value"]
    changes: dict[str, Blob | None] = {}
    for line in lines[1:]:
        changes |= _changes(repo, repo.at(branch), line["key"], line["value"])
    done = repo.commit(
        changes,
        header["summary"],
        header["description"],
        branch=branch,
        author=call.user(),
        parent=header.get("parentCommit"),
    )
    url = f"{call.hub.url}/{repo.url_path}/commit/{done.oid}"
    return {"success": True, "commitOid": done.oid, "commitUrl": url, "hookOutput": ""}


def _changes(repo: Repo, head: Commit, key: str, value: Mapping[str, Any]) -> dict[str, Blob | None]:
    """One line of _prepare_commit_payload (_commit_api.py)."""
    path = value["path"]
    match key:
        case "file":
            return {path: _regular(repo, head, path, b64decode(value["content"]))}
        case "lfsFile":
            if not (blob := repo.lfs_blob(value["oid"], value.get("size"))):
                raise HubError(400, f"an LFS pointer pointed to a file that does not exist: {path}")
            return {path: blob}
        case "deletedFile" if path in head.files:
            return {path: None}
        case "deletedFolder" if inside := [name for name in head.files if name.startswith(path)]:
            return dict.fromkeys(inside)
        case "deletedFile" | "deletedFolder":
            raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        case _:
            raise HubError(400, f"this Hub does not know the operation {key}")


def _regular(repo: Repo, head: Commit, path: str, content: bytes) -> Blob:
    """What may lie in git itself."""
    if repo.upload_mode(head, path, len(content), content[:512]) == "lfs":
        raise HubError(400, f"{path} is binary or large: use LFS")
    return Blob(content)


async def xet_token(call: _Call) -> object:
    """Where the Xet storage is, and a token for it, to read or to write one repository there.

    _fetch_xet_connection_info_with_url (utils/_xet.py) wants it in headers, hf_xet as JSON.
    """
    is_write = call.params["scope"] == "write"
    repo = call.repo(write=is_write)
    repo.at(call.params["revision"])
    token, expires = f"xet_{secrets.token_hex(8)}", int(time.time()) + XET_SECONDS
    call.hub.xet_tokens[token] = repo, is_write
    headers = {
        "X-Xet-Cas-Url": call.hub.cdn_url,
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(expires),
    }
    return JSONResponse({"casUrl": call.hub.cdn_url, "accessToken": token, "exp": expires}, headers=headers)


# Reading


async def tree(call: _Call) -> object:
    """HfApi.list_repo_tree."""
    repo, folder = call.repo(), call.params.get("path", "")
    found = repo.at(call.params["revision"])
    if not (paths := found.paths(folder, call.flag("recursive"))):
        raise HubError(404, f"{folder} does not exist", "EntryNotFound")
    return call.paged([_entry(repo, found, path, call.flag("expand")) for path in paths])


async def paths_info(call: _Call) -> object:
    """HfApi.get_paths_info; what does not exist is left out."""
    repo, form = call.repo(), parse_qs((await call.request.body()).decode())
    found, expand = repo.at(call.params["revision"]), form.get("expand") == ["true"]
    return [_entry(repo, found, path, expand) for path in form.get("paths", []) if found.oid_of(path)]


def _entry(repo: Repo, found: Commit, path: str, expand: bool) -> dict[str, object]:
    """RepoFile or RepoFolder (hf_api.py)."""
    blob = found.files.get(path)
    kind, size = ("file", len(blob.content)) if blob else ("directory", 0)
    entry: dict[str, object] = {"type": kind, "oid": found.oid_of(path), "size": size, "path": path}
    if blob and blob.is_lfs:
        entry["lfs"] = {"oid": blob.sha256, **_lfs_sizes(blob)}
        if file := repo.xet.get(blob.sha256):
            entry["xetHash"] = file.hash
    if expand:
        last = repo.last_change(found, path)
        entry["lastCommit"] = {"id": last.oid, "title": last.title, "date": _stamp(last.date)}
    return entry


async def commits(call: _Call) -> object:
    """HfApi.list_repo_commits."""
    repo = call.repo()
    entries = [
        {
            "id": one.oid,
            "title": one.title,
            "message": one.message,
            "authors": [{"user": one.author}],
            "date": _stamp(one.date),
        }
        for one in repo.history(repo.at(call.params["revision"]))
    ]
    return call.paged(entries)


async def refs(call: _Call) -> object:
    """HfApi.list_repo_refs."""
    repo = call.repo()
    named = {"branches": ("heads", repo.branches), "tags": ("tags", repo.tags)}
    return {"converts": []} | {
        key: [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in all_.items()]
        for key, (kind, all_) in named.items()
    }


async def create_branch(call: _Call) -> object:
    """HfApi.create_branch."""
    repo, wanted = call.repo(write=True), await call.json()
    return _name(repo, repo.branches, call.params["revision"], wanted.get("startingPoint", "main"))


async def create_tag(call: _Call) -> object:
    """HfApi.create_tag."""
    repo, wanted = call.repo(write=True), await call.json()
    return _name(repo, repo.tags, wanted["tag"], call.params["revision"])


def _name(repo: Repo, names: dict[str, str], name: str, revision: str) -> object:
    found = repo.at(revision)
    if name in names:
        raise HubError(409, f"{name} already exists")
    names[name] = found.oid
    return {}


async def delete_tag(call: _Call) -> object:
    """HfApi.delete_tag."""
    if not call.repo(write=True).tags.pop(call.params["revision"], None):
        raise HubError(404, f"Invalid rev id: {call.params['revision']}", "RevisionNotFound")
    return {}


async def resolve(call: _Call) -> object:
    """get_hf_file_metadata (file_download.py): what a file is, and where its content lies.

    A regular file lies at the same host, and the client goes on there; an LFS file at another, which is not
    asked for more and gets no token: _httpx2_follow_hub_redirects_with_backoff (utils/_http.py). What came by
    Xet may be fetched by Xet: parse_xet_file_data_from_response (utils/_xet.py).
    """
    repo, found, blob = _file(call)
    headers = {"X-Repo-Commit": found.oid}
    if blob.is_lfs:
        headers |= {"X-Linked-ETag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content))}
        if file := repo.xet.get(blob.sha256):
            url = f"{call.hub.url}/api/{repo.kind}s/{repo.id}/xet-read-token/{found.oid}"
            headers |= {"X-Xet-Hash": file.hash, "Link": f'<{url}>; rel="xet-auth"'}
        return RedirectResponse(f"{call.hub.cdn_url}/cdn/objects/{blob.sha256}", 302, headers)
    place = f"/api/resolve-cache/{repo.kind}s/{repo.id}/{found.oid}/{quote(call.params['path'])}"
    return RedirectResponse(place, 307, headers)


async def resolve_cache(call: _Call) -> object:
    """The content of a regular file."""
    _, found, blob = _file(call)
    headers = {"X-Repo-Commit": found.oid, "ETag": f'"{blob.oid}"'}
    return _content(blob.content, call.request.headers.get("range"), headers)


async def cdn_object(call: _Call) -> object:
    """The content of an LFS file."""
    _refuse_token(call)
    found = (repo.lfs_blob(call.params["oid"]) for repo in call.hub.repos.values())
    if not (blob := next(filter(None, found), None)):
        raise HubError(404, "NoSuchKey")
    return _content(blob.content, call.request.headers.get("range"), {"ETag": _s3_etag(blob.content)})


async def cdn_xorb(call: _Call) -> object:
    """RemoteClient::get_file_term_data (remote_client.rs, hf_xet): chunks of a xorb."""
    _refuse_token(call)
    return _content(call.hub.xorbs[call.params["hash"]], call.request.headers.get("range"), {})


def _file(call: _Call) -> tuple[Repo, Commit, Blob]:
    repo, path = call.repo(), call.params["path"]
    found = repo.at(call.params["revision"])
    if path not in found.files:
        # The client remembers this for the commit: _get_metadata_or_catch_error (file_download.py).
        raise HubError(404, f"Entry not found: {path}", "EntryNotFound", sha=found.oid)
    return repo, found, found.files[path]


def _content(content: bytes, wanted: str | None, headers: dict[str, str]) -> Response:
    """All bytes, or those of one range: http_get (file_download.py), HfFileSystemFile._fetch_range."""
    headers = {**headers, "Accept-Ranges": "bytes"}
    if not (match := re.fullmatch(r"bytes=(\d*)-(\d*)", wanted or "")):
        return Response(content, headers=headers)
    size = len(content)
    first, last = match.groups()
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if start >= end:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return Response(content[start:end], 206, headers)


def _refuse_token(call: _Call) -> None:
    """As S3 refuses a signed address with a token; and no token may leave the Hub."""
    if "authorization" in call.request.headers:
        raise HubError(400, "Only one auth mechanism allowed")


def _s3_etag(part: bytes) -> str:
    return f'"{md5(part).hexdigest()}"'


# Collections, variables, and what is asked by the way


async def create_collection(call: _Call) -> object:
    """HfApi.create_collection, which with exists_ok reads the slug of the refusal."""
    wanted = await call.json()
    owner, title = call.owner(wanted["namespace"]), wanted["title"]
    for slug, one in call.hub.collections.items():
        if (one.owner, one.title) == (owner, title):
            raise HubError(409, "This collection already exists", slug=slug)
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    slug = f"{owner}/{words}-{secrets.token_hex(12)}"
    made = Collection(slug, title, wanted.get("description"), wanted["private"])
    call.hub.collections[slug] = made
    return _collection_json(made)


async def get_collection(call: _Call) -> object:
    """HfApi.get_collection."""
    return _collection_json(_collection(call))


async def add_collection_item(call: _Call) -> object:
    """HfApi.add_collection_item."""
    found, wanted = _collection(call), await call.json()
    call.owner(found.owner)
    kind, item = wanted["item"]["type"], wanted["item"]["id"]
    if (kind, item) not in call.hub.repos:
        raise HubError(404, f"{kind} {item} not found")
    if (kind, item) in [known[:2] for known in found.items]:
        raise HubError(409, f"{item} is already in the collection")
    found.items.append((kind, item, wanted.get("note")))
    return _collection_json(found)


async def update_collection(call: _Call) -> object:
    """HfApi.update_collection_metadata."""
    found, wanted = _collection(call), await call.json()
    call.owner(found.owner)
    for name in wanted.keys() & {"title", "description", "private"}:
        setattr(found, name, wanted[name])
    return {"data": _collection_json(found)}


def _collection(call: _Call) -> Collection:
    found = call.hub.collections.get(f"{call.params['namespace']}/{call.params['name']}")
    if not found or (found.private and call.user() != found.owner):
        raise HubError(404, "Collection not found")
    return found


def _collection_json(found: Collection) -> dict[str, object]:
    """Collection and CollectionItem (hf_api.py)."""
    items = [
        {
            "_id": f"{kind}s/{item}",
            "type": kind,
            "id": item,
            "note": note and {"text": note},
            "position": place,
        }
        for place, (kind, item, note) in enumerate(found.items)
    ]
    return {
        "slug": found.slug,
        "title": found.title,
        "description": found.description,
        "owner": {"name": found.owner},
        "items": items,
        "lastUpdated": _stamp(datetime.now(UTC)),
        "position": 0,
        "private": found.private,
        "theme": "blue",
        "upvotes": 0,
    }


async def get_variables(call: _Call) -> object:
    """HfApi.get_space_variables."""
    return {key: {"key": key, "value": value} for key, value in call.repo(write=True).variables.items()}


async def add_variable(call: _Call) -> object:
    """HfApi.add_space_variable."""
    wanted = await call.json()
    call.repo(write=True).variables[wanted["key"]] = wanted["value"]
    return await get_variables(call)


async def telemetry(_call: _Call) -> object:
    """send_telemetry (utils/_telemetry.py)."""
    return {}


async def agent_harnesses(_call: _Call) -> object:
    """_fetch_registry (utils/_detect_agent.py): programs to know by their environment."""
    return {"standardEnvVars": [], "harnesses": {}}


async def dataset_viewer(_call: _Call) -> object:
    """get_exported_dataset_infos (datasets/utils/_dataset_viewer.py), which does without."""
    raise HubError(404, "The server is busier than usual and the response is not ready yet.")


# The routes


def _stamp(date: datetime) -> str:
    """parse_datetime (utils/_datetime.py)."""
    return date.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _refuse(_request: Request, error: Exception) -> Response:
    """hf_raise_for_status and _format (utils/_http.py)."""
    assert isinstance(error, HubError)
    headers = {"X-Error-Message": error.message.encode("ascii", "replace").decode()}
    if error.code:
        headers["X-Error-Code"] = error.code
    if "sha" in error.details:
        headers["X-Repo-Commit"] = str(error.details["sha"])
    return JSONResponse({"error": error.message, **error.details}, error.status, headers)


def _gone(_request: Request, _error: Exception) -> Response:
    """Nobody is there to read it."""
    return Response(status_code=400)


class _Kind(Convertor[str]):
    """A kind of repository as paths of the API have it: "models"."""

    regex = "|".join(f"{kind}s" for kind in KINDS)

    def convert(self, value: str) -> str:
        return value.removesuffix("s")


class _Prefix(_Kind):
    """The same before the name of a repository, where models have nothing: REPO_TYPES_URL_PREFIXES."""

    regex = "datasets/|spaces/|"

    def convert(self, value: str) -> str:
        return value.removesuffix("s/") or "model"


register_url_convertor("kind", _Kind())
register_url_convertor("prefix", _Prefix())


def _route(method: str, path: str, endpoint: Callable[[_Call], Awaitable[object]]) -> Route:
    async def answer(request: Request) -> Response:
        found = await endpoint(_Call(request))
        return found if isinstance(found, Response) else JSONResponse(found)

    return Route(path, answer, methods=[method])


API = "/api/{kind:kind}/{namespace}/{name}"
WEB = "/{kind:prefix}{namespace}/{name}"
ROUTES = [
    _route("GET", "/api/whoami-v2", whoami),
    _route("POST", "/api/repos/create", create_repo),
    _route("DELETE", "/api/repos/delete", delete_repo),
    _route("GET", API, repo_info),
    _route("GET", API + "/revision/{revision}", repo_info),
    _route("PUT", API + "/settings", update_settings),
    _route("POST", "/api/validate-yaml", validate_yaml),
    _route("POST", API + "/preupload/{revision}", preupload),
    _route("POST", WEB + ".git/info/lfs/objects/batch", lfs_batch),
    _route("POST", WEB + ".git/info/lfs/objects/verify", verify),
    _route("PUT", "/cdn/uploads/{key}/{number}", put_part),
    _route("POST", "/api/complete_multipart/{key}", complete_multipart),
    _route("POST", API + "/commit/{revision}", commit),
    _route("GET", API + "/xet-{scope}-token/{revision}", xet_token),
    _route("GET", API + "/tree/{revision}", tree),
    _route("GET", API + "/tree/{revision}/{path:path}", tree),
    _route("POST", API + "/paths-info/{revision}", paths_info),
    _route("GET", API + "/commits/{revision}", commits),
    _route("GET", API + "/refs", refs),
    _route("POST", API + "/branch/{revision}", create_branch),
    _route("POST", API + "/tag/{revision}", create_tag),
    _route("DELETE", API + "/tag/{revision}", delete_tag),
    _route("GET", WEB + "/resolve/{revision}/{path:path}", resolve),
    _route("GET", "/api/resolve-cache/{kind:kind}/{namespace}/{name}/{revision}/{path:path}", resolve_cache),
    _route("GET", "/cdn/objects/{oid}", cdn_object),
    _route("GET", "/cdn/xorbs/{hash}", cdn_xorb),
    _route("POST", "/api/collections", create_collection),
    _route("GET", "/api/collections/{namespace}/{name}", get_collection),
    _route("PATCH", "/api/collections/{namespace}/{name}", update_collection),
    _route("POST", "/api/collections/{namespace}/{name}/items", add_collection_item),
    _route("GET", API + "/variables", get_variables),
    _route("POST", API + "/variables", add_variable),
    _route("HEAD", "/api/telemetry/{topic:path}", telemetry),
    _route("GET", "/api/agent-harnesses", agent_harnesses),
    _route("GET", "/info", dataset_viewer),
    *hub_xet.ROUTES,
]


def application(store: Store) -> Starlette:
    """The endpoints over what is stored."""
    refusals = {HubError: _refuse, ClientDisconnect: _gone}
    made = Starlette(routes=ROUTES, exception_handlers=refusals)
    made.state.store = store
    return made
