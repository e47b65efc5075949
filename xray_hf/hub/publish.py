"""Publish files in a repository of the Hub: a plan, then one commit, a tag, and only then visibility.

A repository holds either its old files or all the new ones, since the Hub applies a commit as a whole. Our
commits are marked, so that changes by somebody else are noticed and not overwritten.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, TypeVar

from httpx2 import TransportError
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import get_session, validate_repo_id

from xray_hf import __version__, manifest
from xray_hf.errors import BundleError, ConfigError, HubError, first_line, hub_errors
from xray_hf.files import as_json
from xray_hf.hub import cards

Kind = Literal["model", "dataset", "space"]
T = TypeVar("T")
TIMEOUT = 60  # seconds without a byte
PAUSES = (1, 2, 4, 8, 16)  # seconds between tries, if the Hub or the network fails for a while
# hf_xet sends the large files. It waits 300 s for each answer, which a slow line needs for 64 MiB; but for a
# silent server it would wait six times as long, in each of our tries, and again to ask who has which chunks.
XET_RETRIES = 2
PATIENCE = 300 * (1 + XET_RETRIES)  # seconds; if hf_xet gets no answer for longer, we do not try again
_OF_XET = {
    "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": str(XET_RETRIES),
    "HF_XET_DEDUPLICATION_GLOBAL_DEDUP_QUERY_ENABLED": "0",
}
# In the descriptions of commits: this one must never be public, and this one only if its owner wants it.
_RESTRICTED, _NAMED = "Not for the public.", "With names of files and patients."
_OF_THE_HUB = (".gitattributes",)  # files that the Hub itself adds to a repository
_FAILS_FOR_A_WHILE = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
_LATER = "Push again later; the repository is unchanged."
_LATER_TAGS = "Its files are there; push again for tags, visibility and collection."
_ADVICE: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "The token is not valid, or no longer; run `hf auth login`, or renew HF_TOKEN.",
    HTTPStatus.FORBIDDEN: "The token may not write there; choose another --repo-id, or a token that may.",
    HTTPStatus.PRECONDITION_FAILED: "Someone else is changing the repository; look at it, and push again.",
}
_NAMES = (
    "Its splits and predictions name the files and patients that it was trained and tested on; --no-names "
    "leaves them out."
)
# In the text of a ConnectionError, the only place that has them: the status, and who answered.
_XET_ANSWER = re.compile(r"HTTP status \w+ error \((\d{3}).*?\), domain: (\S+)")
_TAG = re.compile(r"[\w.][\w.-]*")
# The files of a bundle; any others in its folder stay here.
_PARTS = (
    *(manifest.CONFIG, manifest.WEIGHTS, manifest.PREPROCESSOR, manifest.GRAPH, manifest.ENGINE),
    *(manifest.CALIBRATION, manifest.LUNGS, manifest.TRAINING, manifest.METRICS, f"{manifest.FIGURES}/*.png"),
    *(manifest.REFERENCE, f"{manifest.REFERENCE_IMAGES}/*.png"),
    *("configuration_xray_cnn.py", "modeling_xray_cnn.py"),
)
# Records that name files and patients.
_RECORDS = (
    *(manifest.SPLITS, manifest.PREDICTIONS),
    *(f"{manifest.CONTROLS}/*.parquet", f"{manifest.EXTERNAL}/*.parquet"),
)


@dataclass(frozen=True)
class Plan:
    """The files that a repository will hold.

    what: a word for the content; a push never overwrites our commits with another word. files:
    {path there: a file here, or its content}. sdk: of a Space. note: what to know before publishing.
    is_restricted: whether only its owner may see it. has_names: whether it names the files and patients that
    a model was trained and tested on.
    """

    kind: Kind
    what: str
    repo_id: str
    files: Mapping[str, Path | bytes]
    sdk: str | None = None
    note: str = ""
    is_restricted: bool = False
    has_names: bool = False

    @cached_property
    def hashes(self) -> dict[str, tuple[int, str]]:
        """{path: (bytes, SHA-256)}, by path."""
        return {path: _hash(self.files[path]) for path in sorted(self.files)}

    @cached_property
    def version(self) -> str:
        """12 hex digits that change with any file; the tag of the commit."""
        text = "\n".join(f"{digest} {path}" for path, (_, digest) in self.hashes.items())
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def as_table(self) -> str:
        """One line a file, SHA-256, bytes, path; then the sum and the note."""
        lines = [f"{digest} {size:>12,} {path}" for path, (size, digest) in self.hashes.items()]
        total = sum(size for size, _ in self.hashes.values())
        lines.append(f"{self.kind} {self.repo_id}, version {self.version}: {total:,} bytes")
        return "\n".join([*lines, *([self.note] if self.note else [])])


@dataclass(frozen=True)
class Pushed:
    """url: the repository's. commit: its head. is_new: whether there was anything to commit."""

    url: str
    commit: str
    is_new: bool


def of_bundle(bundle: Path, repo_id: str, *, data_set: str | None = None, with_names: bool = True) -> Plan:
    """The files of a bundle's repository, with a freshly rendered card.

    data_set: the id of the data set, if it is on the Hub. with_names: also send splits and predictions, which
    name the files and patients that the bundle was trained and tested on.
    Raises BundleError if the bundle lacks numbers of its card, was trained on a control view, or has an
    engine.onnx of another network, calibration or list of classes.
    """
    for name in (repo_id, *([data_set] if data_set else [])):
        require_repo_id(name)
    card = cards.render(bundle, repo_id, data_set=data_set, with_names=with_names)
    parts = (*_PARTS, *_RECORDS) if with_names else _PARTS
    files: dict[str, Path | bytes] = {
        path.relative_to(bundle).as_posix(): path for part in parts for path in bundle.glob(part)
    }
    if not with_names:
        files |= _without_names(bundle)
    for name in (manifest.WEIGHTS, manifest.GRAPH):
        if name not in files:
            raise BundleError(f"{bundle} holds no {name}; `xray-hf export {bundle}` writes the graph.")
    manifest.require_current_engine(bundle)
    files[manifest.CARD] = card.encode()
    note = _NAMES if with_names else ""
    return Plan("model", manifest.read(bundle).name, repo_id, files, note=note, has_names=with_names)


def _without_names(bundle: Path) -> dict[str, bytes]:
    """metrics.json and training.json without names."""
    measured, training = (manifest.read_json(bundle / name) for name in (manifest.METRICS, manifest.TRAINING))
    measured.pop("label_noise", None)
    # Older bundles have one report, and no sources.
    for described in [training, *training.get("sources", [])]:
        if "report" in described:
            described["report"] = {"rows": described["report"]["rows"]}
    return {manifest.METRICS: as_json(measured).encode(), manifest.TRAINING: as_json(training).encode()}


def require_repo_id(repo_id: str) -> None:
    """Raise ConfigError unless it is owner/name, as the Hub spells names."""
    if repo_id.count("/") != 1:
        raise ConfigError(f"{repo_id!r} is not a repository's id; expected owner/name.")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ConfigError(f"{repo_id!r} is not a repository's id: {first_line(error)}") from error


def push(
    plan: Plan,
    *,
    is_public: bool = False,
    is_forced: bool = False,
    tags: tuple[str, ...] = (),
    collection: str | None = None,
) -> Pushed:
    """Make the repository hold the planned files and no others; tries again if the Hub fails for a while.

    A new repository is private, and a public one is left alone. is_public: change a public repository, or
    make a private one public once it is complete. is_forced: overwrite changes by someone else. tags: for
    the commit, in addition to its version. collection: the title of one to add it to.
    Raises ConfigError for a malformed tag, or a plan that may not be public; HubError.
    """
    if is_public and plan.is_restricted:
        raise ConfigError(
            f"{plan.repo_id} would hold files that only their owner may share; leave --public out."
        )
    for tag in tags:
        if not _TAG.fullmatch(tag) or tag == "main":
            raise ConfigError(
                f"{tag!r} is not a tag; expected letters, digits, dots and dashes, and not main."
            )
    return _Push(plan).run(is_public, is_forced, tags, collection)


class _Push:
    """One push. Every step may be repeated: after a failure nobody knows whether it was done."""

    def __init__(self, plan: Plan) -> None:
        self._api, self._plan = HfApi(library_name="xray_hf", library_version=__version__), plan
        self._mark = f"xray_hf {plan.what}: "  # begins the description of each of our commits
        self._has_committed = False
        self._where: dict[str, Any] = {"repo_id": plan.repo_id, "repo_type": plan.kind}

    def run(self, is_public: bool, is_forced: bool, tags: tuple[str, ...], collection: str | None) -> Pushed:
        for name, value in _OF_XET.items():
            os.environ.setdefault(name, value)  # read when the client opens a session of hf_xet
        if get_token() is None:
            raise HubError("nobody is logged in to the Hub; run `hf auth login`, or set HF_TOKEN.")
        url = self._try(self._create)
        before = self._try(lambda: self._head(is_public))
        commit = self._try(lambda: self._commit(before, is_forced, tags))
        self._has_committed = True
        for tag in (self._plan.version, *tags):
            self._try(partial(self._tag, tag, commit))
        if is_public:
            self._try(lambda: self._api.update_repo_settings(**self._where, private=False))
        if collection:
            self._try(lambda: self._collect(collection, is_public))
        return Pushed(url, commit, is_new=commit != before)

    def _try(self, step: Callable[[], T]) -> T:
        """Do a step; repeat it after pauses if the failure may be temporary. Raises HubError."""
        for pause in (*PAUSES, None):
            started = time.monotonic()
            get_session().timeout = TIMEOUT  # by default for ever; set each time, since sessions are replaced
            try:
                return step()
            except hub_errors() as error:
                # The client wraps the error of an upload that breaks off.
                cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
                is_over = _has_no_answer(cause) and time.monotonic() - started > PATIENCE
                if pause is None or is_over or not _may_pass(cause):
                    raise self._explained(cause) from error
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _create(self) -> str:
        made = self._api.create_repo(**self._where, private=True, exist_ok=True, space_sdk=self._plan.sdk)
        return str(made)

    def _head(self, is_public: bool) -> str:
        """The newest commit; raises HubError if files or history would be seen by people who must not."""
        info, name = self._api.repo_info(**self._where), self._plan.repo_id
        if not info.private and (self._plan.is_restricted or not is_public):
            raise HubError(
                f"{name} is public, so all would be seen at once; pass --public, or another --repo-id."
            )
        commits = self._api.list_repo_commits(**self._where) if is_public else []
        if any(_RESTRICTED in commit.message for commit in commits):
            raise HubError(
                f"the history of {name} has files that only you may see; choose another --repo-id."
            )
        if not self._plan.has_names and any(_NAMED in commit.message for commit in commits):
            raise HubError(
                f"the history of {name} names files and patients, which --no-names would have kept here; "
                "choose another --repo-id."
            )
        return str(info.sha)

    def _commit(self, before: str, is_forced: bool, tags: tuple[str, ...]) -> str:
        """Commit the plan, unless the head holds it; returns the commit. before: the head at first."""
        commits = self._api.list_repo_commits(**self._where)
        latest = commits[0]
        mark = f"{self._mark}{self._plan.version}."
        mark += f" {_RESTRICTED}" * self._plan.is_restricted + f" {_NAMED}" * self._plan.has_names
        if latest.message.strip() == mark:  # committed by an earlier try, or by an earlier push
            return latest.commit_id
        held = {file for file in self._api.list_repo_files(**self._where) if file not in _OF_THE_HUB}
        user = str(self._api.whoami(cache=True)["name"])
        is_ours = latest.message.strip().startswith(self._mark) and user in latest.authors
        is_ours |= len(commits) == 1  # the Hub's own first commit
        if not is_forced and not (is_ours and latest.commit_id == before):
            raise HubError(
                f"{self._plan.repo_id} was changed by someone else ({latest.title!r}); look at it, then pass "
                "--force to overwrite that."
            )
        if taken := sorted(self._tags().keys() & set(tags)):
            raise HubError(f"{self._plan.repo_id} has a tag {taken[0]} already; choose another --tag.")
        if ".gitignore" in held:
            raise HubError(
                f"{self._plan.repo_id} holds a .gitignore, which makes the Hub leave files out of a commit; "
                "delete it there, and push again."
            )
        operations: list[Any] = [
            CommitOperationAdd(path, content) for path, content in sorted(self._plan.files.items())
        ]
        operations += [CommitOperationDelete(path) for path in sorted(held - self._plan.files.keys())]
        with warnings.catch_warnings():
            # Predictions are Parquet, and belong to the model.
            warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
            made = self._api.create_commit(
                **self._where,
                operations=operations,
                commit_message=f"Version {self._plan.version}, by xray_hf {__version__}",
                commit_description=mark,
                parent_commit=latest.commit_id,
            )
        return str(made.oid)

    def _tags(self) -> dict[str, str]:
        """{tag: commit}."""
        return {ref.name: ref.target_commit for ref in self._api.list_repo_refs(**self._where).tags}

    def _tag(self, tag: str, commit: str) -> None:
        tagged = self._tags().get(tag)
        if tagged is None:
            self._api.create_tag(**self._where, tag=tag, revision=commit)
        # A version that comes back keeps its tag on its first commit: the files are equal.
        elif tagged != commit and tag != self._plan.version:
            raise HubError(f"{self._plan.repo_id} has a tag {tag} on another commit; choose another --tag.")

    def _collect(self, title: str, is_public: bool) -> None:
        owner = self._plan.repo_id.partition("/")[0]
        found = self._api.create_collection(title, namespace=owner, private=not is_public, exists_ok=True)
        if is_public and found.private:
            self._api.update_collection_metadata(found.slug, private=False)
        self._api.add_collection_item(
            found.slug, item_id=self._plan.repo_id, item_type=self._plan.kind, exists_ok=True
        )

    def _explained(self, error: BaseException) -> HubError:
        name = self._plan.repo_id
        later = _LATER_TAGS if self._has_committed else _LATER
        if status := _status(error):
            said = (getattr(error, "server_message", None) or first_line(error)).rstrip(" .")
            advice = later if _is_of_storage(error) else _ADVICE.get(status, later)
            return HubError(f"the Hub answered {status} for {name}: {said}. {advice}")
        if isinstance(error, TransportError | ConnectionError | TimeoutError):
            return HubError(f"the Hub could not be reached for {name} ({first_line(error)}). {later}")
        # All lines: the last one says why the Hub rejects a card.
        said = " ".join(str(error).split()) or type(error).__name__
        return HubError(f"{name} could not be pushed: {said}")


def _may_pass(error: BaseException) -> bool:
    if status := _status(error):
        # Each try gets a new token of the storage.
        is_expired = status == HTTPStatus.UNAUTHORIZED and _is_of_storage(error)
        return is_expired or status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _FAILS_FOR_A_WHILE
    if isinstance(error, OfflineModeIsEnabled):
        return False
    # The client parses every answer to the check of a card as JSON, even one from a failing Hub.
    return isinstance(error, TransportError | ConnectionError | TimeoutError | json.JSONDecodeError)


def _status(error: BaseException) -> int | None:
    """The HTTP status of an answer, if there was one."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code
    found = _xet_answer(error)
    return int(found[1]) if found else None


def _is_of_storage(error: BaseException) -> bool:
    """Whether the Xet storage answered, not the Hub itself."""
    found = _xet_answer(error)
    return found is not None and not found[2].startswith(f"{constants.ENDPOINT}/")


def _has_no_answer(error: BaseException) -> bool:
    """Whether hf_xet was cut off or got no answer in time; its error is the same."""
    return isinstance(error, ConnectionError) and not _xet_answer(error)


def _xet_answer(error: BaseException) -> re.Match[str] | None:
    return _XET_ANSWER.search(str(error)) if isinstance(error, ConnectionError) else None


def _hash(content: Path | bytes) -> tuple[int, str]:
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return content.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
