"""What the Hub of the tests keeps, in memory: repositories as git and git-lfs have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import cached_property
from hashlib import sha1, sha256
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import yaml

MAIN = "main"
LARGEST_REGULAR = 10_000_000  # bytes; what is larger belongs into LFS
LFS_ENDINGS = "7z arrow bin ckpt gz h5 joblib msgpack npy npz onnx parquet pickle pkl pt pth safetensors zip"
GITATTRIBUTES = "".join(f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LFS_ENDINGS.split())


class HubError(Exception):
    """A refusal as the Hub words it: `code` goes into X-Error-Code, `details` into the JSON.

    hf_raise_for_status (utils/_http.py) chooses the client's exception by that code.
    """

    def __init__(self, status: int, message: str, code: str | None = None, **details: object) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.details = status, message, code, details


@dataclass(frozen=True)
class Blob:
    """A file at one moment. Of an LFS file git has but a pointer; its content lies in the LFS storage."""

    content: bytes = field(repr=False)
    is_lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        """The name of the content in the LFS storage."""
        return sha256(self.content).hexdigest()

    @cached_property
    def in_git(self) -> bytes:
        """What git stores."""
        if not self.is_lfs:
            return self.content
        size = len(self.content)
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {size}\n".encode()

    @cached_property
    def oid(self) -> str:
        """The name in git, as `git hash-object` has it."""
        return sha1(b"blob %d\0" % len(self.in_git) + self.in_git).hexdigest()

    @property
    def etag(self) -> str:
        """What a change is told by: see CommitOperationAdd._local_oid (_commit_api.py)."""
        return self.sha256 if self.is_lfs else self.oid


@dataclass(frozen=True)
class Commit:
    """All files at one moment. parent: the oid of the commit before, None for the first."""

    files: Mapping[str, Blob] = field(repr=False)
    title: str
    message: str
    author: str
    parent: str | None
    date: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def oid(self) -> str:
        """Its name; made as git's is from all that it holds, yet not equal to git's."""
        return sha1(
            repr((self.title, self.message, self.author, self.parent, self.date, self.oid_of(""))).encode()
        ).hexdigest()

    def oid_of(self, path: str) -> str | None:
        """The oid of a file, or of a folder (which again is not git's), or None where nothing is."""
        if path in self.files:
            return self.files[path].oid
        inside = sorted((name, blob.oid) for name, blob in self.files.items() if is_inside(name, path))
        return sha1(repr(inside).encode()).hexdigest() if inside else None

    def paths(self, folder: str, recursive: bool) -> list[str]:
        """The files and folders in a folder; the root is ""."""
        found = set()
        for name in self.files:
            if is_inside(name, folder):
                found |= {name, *(str(parent) for parent in PurePosixPath(name).parents)}
        depth = len(PurePosixPath(folder).parts) + 1
        return sorted(
            path
            for path in found - {"."}
            if is_inside(path, folder) and (recursive or len(PurePosixPath(path).parts) == depth)
        )

    def card(self) -> dict[str, Any]:
        """The front matter of README.md."""
        readme = self.files.get("README.md", Blob(b"")).content.decode()
        return front_matter(readme) or {}


class Term(NamedTuple):
    """A piece of a file in Xet storage: chunks start to end of a xorb, with so many bytes unpacked."""

    xorb: str
    size: int
    start: int
    end: int


class XetFile(NamedTuple):
    """What a file of the LFS storage is made of in Xet storage, and its name there."""

    hash: str
    terms: list[Term]


@dataclass
class Repo:
    """A repository of one kind: "model", "dataset" or "space".

    objects: its LFS storage, by the sha256 that the uploader claimed. xet: how those that came by Xet did, by
    the same.
    """

    kind: str
    id: str
    private: bool = False
    sdk: str | None = None
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict, repr=False)
    xet: dict[str, XetFile] = field(default_factory=dict, repr=False)
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the commit that every new repository of the Hub has."""
        files = {".gitattributes": Blob(GITATTRIBUTES.encode())}
        if self.sdk:
            files["README.md"] = Blob(f"---\nsdk: {self.sdk}\n---\n".encode())
        self._append(MAIN, Commit(files, "initial commit", "", self.owner, None))

    @property
    def owner(self) -> str:
        """The namespace."""
        return self.id.split("/")[0]

    @property
    def head(self) -> Commit:
        """The last commit of main."""
        return self.commits[self.branches[MAIN]]

    @property
    def url_path(self) -> str:
        """Its place under the Hub's address: constants.REPO_TYPES_URL_PREFIXES."""
        return self.id if self.kind == "model" else f"{self.kind}s/{self.id}"

    def at(self, revision: str) -> Commit:
        """The commit that a branch, a tag or an oid names."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def history(self, commit: Commit) -> Iterator[Commit]:
        """A commit and those before it, the newest first."""
        yield commit
        while commit.parent:
            commit = self.commits[commit.parent]
            yield commit

    def last_change(self, commit: Commit, path: str) -> Commit:
        """The commit that gave a file or folder the state that it has in `commit`."""
        last = commit
        for earlier in self.history(commit):
            if earlier.oid_of(path) != commit.oid_of(path):
                break
            last = earlier
        return last

    def commit(
        self,
        changes: Mapping[str, Blob | None],
        title: str,
        message: str = "",
        *,
        branch: str = MAIN,
        author: str | None = None,
        parent: str | None = None,
    ) -> Commit:
        """Put a commit on a branch; None removes a file. `parent`, if given, must be the last one."""
        head = self.branches.get(branch)
        if head is None:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        if parent not in (None, head):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        merged = {**self.commits[head].files, **changes}
        files = {path: blob for path, blob in merged.items() if blob is not None}
        return self._append(branch, Commit(files, title, message, author or self.owner, head))

    def lfs_blob(self, oid: str, size: int | None = None) -> Blob | None:
        """What lies whole and true in the LFS storage under this sha256."""
        blob = Blob(self.objects.get(oid, b""), is_lfs=True)
        return blob if blob.sha256 == oid and size in (None, len(blob.content)) else None

    def upload_mode(self, commit: Commit, path: str, size: int, sample: bytes) -> str:
        """Where a file belongs: "lfs" or "regular"; what is empty cannot be in LFS.

        As the Hub: by .gitattributes, by size, and nothing binary in git. sample: its first bytes.
        """
        attributes = commit.files.get(".gitattributes", Blob(b"")).content.decode()
        patterns = [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line]
        is_listed = any(fnmatch(PurePosixPath(path).name, pattern) for pattern in patterns)
        is_lfs = size and (is_listed or size > LARGEST_REGULAR or b"\0" in sample)
        return "lfs" if is_lfs else "regular"

    def _append(self, branch: str, commit: Commit) -> Commit:
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit


@dataclass
class Upload:
    """A file on its way into the LFS storage: `parts` of `count`, by number."""

    repo: Repo
    oid: str
    count: int
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class XorbGrant:
    """The room for a xorb of so many bytes, on its way into Xet storage."""

    size: int
    xorb: bytes = b""


@dataclass
class Collection:
    """items: (kind, id, note) in order."""

    slug: str
    title: str
    description: str | None
    private: bool
    items: list[tuple[str, str, str | None]] = field(default_factory=list)

    @property
    def owner(self) -> str:
        """The namespace."""
        return self.slug.split("/")[0]


@dataclass
class Store:
    """All that the Hub knows.

    tokens: users by token. page_size: entries of a listing's page. part_size: bytes of a file's part; larger
    files are uploaded in several. cdn_url: where large files lie, for the clients a host of its own, which
    never may see a token. xorbs: the Xet storage of all repositories, by the hash that the uploader claimed.
    xet_tokens: {token: (the one repository that it is for, whether to write there too)}.
    """

    tokens: dict[str, str]
    page_size: int
    part_size: int
    url: str = ""
    cdn_url: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    collections: dict[str, Collection] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    xorbs: dict[str, bytes] = field(default_factory=dict)
    xorb_grants: dict[str, XorbGrant] = field(default_factory=dict)
    xet_tokens: dict[str, tuple[Repo, bool]] = field(default_factory=dict)

    def repo(self, kind: str, repo_id: str) -> Repo:
        """A repository; KeyError where none is."""
        return self.repos[kind, repo_id]


def is_inside(path: str, folder: str) -> bool:
    """Whether a path lies in a folder of the repository; everything lies in ""."""
    return not folder or path.startswith(folder + "/")


def front_matter(readme: str) -> dict[str, Any] | None:
    """The YAML between the first two lines of ---, None without; raises yaml.YAMLError."""
    if not readme.startswith("---\n") or "\n---" not in readme[3:]:
        return None
    found = yaml.safe_load(readme[4:].split("\n---")[0])
    if not isinstance(found, dict | None):
        raise yaml.YAMLError("the front matter is no mapping")
    return found or {}
