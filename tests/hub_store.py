"""What the Hub of the tests keeps, in memory: repositories as git and git-lfs have them, and Xet storage."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha1, sha256
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from hub_xet import XetFile

MAIN = "main"
USERS = ("owner", "stranger")
LFS_ENDINGS = "7z arrow bin ckpt gz h5 joblib msgpack npy npz onnx parquet pickle pkl pt pth safetensors zip"
GITATTRIBUTES = "".join(f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LFS_ENDINGS.split())


class UnknownError(HTTPException):
    """Something that nobody should ask this Hub."""


@dataclass(frozen=True)
class Blob:
    """A file at one moment; of an LFS file git would have but a pointer."""

    content: bytes = field(repr=False)
    is_lfs: bool = False

    @cached_property
    def oid(self) -> str:
        """SHA-256 of an LFS file, else as `git hash-object` has it; tells the client what changed."""
        if self.is_lfs:
            return sha256(self.content).hexdigest()
        return sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass(frozen=True)
class Commit:
    """All files at one moment."""

    files: Mapping[str, Blob] = field(repr=False)
    title: str
    message: str
    author: str
    oid: str = field(default_factory=lambda: secrets.token_hex(20))

    @cached_property
    def folders(self) -> set[str]:
        """Each folder that has a file in it, or below."""
        return {str(parent) for path in self.files for parent in PurePosixPath(path).parents} - {"."}


@dataclass
class Repo:
    """A repository of one kind: "model", "dataset" or "space". commits: of main, the only branch.

    tags: {name: oid of the commit}.
    """

    kind: str
    id: str
    private: bool = False
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the commit that every new repository of the Hub has."""
        files = {".gitattributes": Blob(GITATTRIBUTES.encode())}
        self.commits.append(Commit(files, "initial commit", "", self.owner))

    @property
    def owner(self) -> str:
        """The namespace."""
        return self.id.split("/")[0]

    @property
    def head(self) -> Commit:
        """The last commit."""
        return self.commits[-1]

    @property
    def url_path(self) -> str:
        """Its place under the Hub's address: constants.REPO_TYPES_URL_PREFIXES."""
        return self.id if self.kind == "model" else f"{self.kind}s/{self.id}"

    def at(self, revision: str) -> Commit:
        """The commit that the branch, a tag or an oid names."""
        oid = self.head.oid if revision == MAIN else self.tags.get(revision, revision)
        found = [commit for commit in self.commits if commit.oid == oid]
        if not found:
            raise HTTPException(404, f"Invalid rev id: {revision}", {"X-Error-Code": "RevisionNotFound"})
        return found[0]

    def commit(
        self, changes: Mapping[str, Blob | None], title: str, message: str = "", author: str | None = None
    ) -> Commit:
        """Put a commit on main; None removes a file."""
        merged = {**self.head.files, **changes}
        files = {path: blob for path, blob in merged.items() if blob is not None}
        self.commits.append(Commit(files, title, message, author or self.owner))
        return self.head


@dataclass
class Store:
    """All that the Hub knows.

    url: its address. cdn_url: where large files lie, for the clients a host of its own, which never may see a
    token of a user. part_size: bytes of a file's part; larger files are uploaded in several.
    tokens: users by token. repos: by kind and id. collections: as the API has them, by slug.
    cdn: what was put there, files of LFS, their parts, and xorbs, under the hash that the uploader claimed;
    files that came by Xet are there, too. xet: what these are made of, by SHA-256. xet_tokens: {token: "read"
    or "write"}.
    """

    url: str
    cdn_url: str
    part_size: int = 16_000_000
    tokens: dict[str, str] = field(default_factory=lambda: {f"hf_{user}": user for user in USERS})
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    collections: dict[str, dict[str, Any]] = field(default_factory=dict)
    cdn: dict[str, bytes] = field(default_factory=dict, repr=False)
    xet: dict[str, XetFile] = field(default_factory=dict, repr=False)
    xet_tokens: dict[str, str] = field(default_factory=dict)

    def repo(self, kind: str, repo_id: str) -> Repo:
        """A repository; KeyError where none is."""
        return self.repos[kind, repo_id]

    def has_lfs(self, oid: str) -> bool:
        """Whether a file lies whole and true in the LFS storage under this SHA-256."""
        return sha256(self.cdn.get(f"lfs/{oid}", b"")).hexdigest() == oid

    def lfs_blob(self, oid: str) -> Blob:
        """The same file."""
        if not self.has_lfs(oid):
            raise HTTPException(404, f"the object {oid} is missing or damaged")
        return Blob(self.cdn[f"lfs/{oid}"], is_lfs=True)


def belongs_in_lfs(path: str, sample: bytes) -> bool:
    """As the Hub has it: by .gitattributes, and nothing binary in git. sample: the first bytes."""
    return PurePosixPath(path).suffix[1:] in LFS_ENDINGS.split() or b"\0" in sample
