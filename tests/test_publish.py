"""Pushing: all or nothing, nothing of anybody else's lost, and what the dry run shows is what goes."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from hub_client import BUNDLE, NAME, ROOT, Push, changed, held, listed, publisher, pusher, repository
from hub_server import SILENT, Fault, Hub
from hub_store import Blob, Repo
from test_packaging import HEAVY
from warm_python import WarmPython

from xray_hf import cli, manifest
from xray_hf.errors import ConfigError
from xray_hf.hub import publish

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(hubs: Callable[[], Hub]) -> Iterator[WarmPython]:
    with publisher(hubs()) as python:
        yield python


@pytest.fixture
def push(python: WarmPython, hub: Hub, tmp_path: Path) -> Push:
    """`xray-hf push` of a bundle, whose weights go up in parts."""
    hub.part_size = 200_000
    return pusher(python, tmp_path / "home")


def test_the_dry_run_shows_what_is_then_uploaded_and_asks_no_network(hub: Hub, push: Push) -> None:
    shown = push("--dry-run")
    assert (shown.returncode, hub.requests) == (0, [])
    assert shown.stdout.endswith("nothing was sent.\n")
    sent = push()
    assert sent.returncode == 0, sent.stderr
    assert held(hub) == listed(shown.stdout) == listed(sent.stdout)
    assert len(held(hub)) > 20


def test_pushing_a_model_imports_nothing_heavy(python: WarmPython) -> None:
    code = "import sys; from xray_hf import cli; cli.main(); print(*sys.modules)"
    done = python.run(code, "push", str(BUNDLE), "--repo-id", NAME, "--dry-run", environment={}, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("kind", ["space", "dataset"])
def test_so_it_does_for_a_space_and_a_data_set(hub: Hub, push: Push, kind: str, synthetic: Path) -> None:
    source = synthetic if kind == "dataset" else "owner/model"
    shown = push("--dry-run", "--kind", kind, source=source)
    assert (shown.returncode, hub.requests) == (0, [])
    sent = push("--kind", kind, source=source)
    assert sent.returncode == 0, sent.stderr
    assert held(hub, kind) == listed(shown.stdout) == listed(sent.stdout)
    assert {manifest.CARD, "app.py" if kind == "space" else "grouped/test-00000-of-00001.parquet"} <= set(
        held(hub, kind)
    )


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder like that of `make web`."""
    folder = tmp_path / "web"
    names = ["index.html", "page/main.js", "models/0/engine.onnx"]
    for name in (*names, "sw.js"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "files.json").write_text(json.dumps(["./", *names]))
    (folder / "of-somebody.txt").write_text("not of the page")
    return folder


def test_a_static_space_holds_the_page_and_says_which_headers_it_needs(
    hub: Hub, push: Push, built: Path
) -> None:
    shown = push("owner/model", "--dry-run", "--kind", "static-space", source=built)
    assert (shown.returncode, hub.requests) == (0, [])
    sent = push("owner/model", "--kind", "static-space", source=built)
    assert sent.returncode == 0, sent.stderr
    there = held(hub, "space")
    assert there == listed(shown.stdout) == listed(sent.stdout)
    assert {"index.html", "files.json", "sw.js", "LICENSE", manifest.CARD} <= set(there)
    assert "of-somebody.txt" not in there
    card = yaml.safe_load(repository(hub, "space").head.files[manifest.CARD].content.decode().split("---")[1])
    assert (card["sdk"], card["models"]) == ("static", ["owner/model"])
    assert card["custom_headers"]["cross-origin-embedder-policy"] == "require-corp"
    assert len(card["short_description"]) <= 60


def test_an_incomplete_page_is_not_pushed(hub: Hub, push: Push, built: Path, tmp_path: Path) -> None:
    (built / "page" / "main.js").unlink()
    for source, words in (
        (built, "main.js is missing; run `make web` again."),
        (tmp_path, "is not a page that `make web` wrote; run that first."),
    ):
        refused = push("--kind", "static-space", source=source)
        assert (refused.returncode, hub.requests) == (2, [])
        assert words in refused.stderr


def test_a_push_is_one_private_tagged_commit_and_a_second_makes_none(hub: Hub, push: Push) -> None:
    first = push("--tag", "v1.0")
    head = repository(hub).head.oid
    version = re.search(r"version (\w{12})", first.stdout)
    assert version is not None
    assert [each.title for each in repository(hub).commits][:-1] == ["initial commit"]
    assert repository(hub).tags == {version[1]: head, "v1.0": head}
    assert repository(hub).private
    assert f"now holds it, commit {head}" in first.stdout
    second = push("--tag", "v1.0")
    assert second.returncode == 0, second.stderr
    assert f"already held it, commit {head}" in second.stdout
    assert len(hub.asked("POST", "/commit/")) == 1


def test_it_is_opened_only_when_all_is_there(hub: Hub, push: Push) -> None:
    assert push("--public", "--collection", "Chest X-rays").returncode == 0
    assert not repository(hub).private
    order = [
        asked.path for asked in hub.requests if re.search(r"/commit/|/settings|/collections", asked.path)
    ]
    assert [re.sub(r".*/(commit|settings|collections).*", r"\1", path) for path in order][:2] == [
        "commit",
        "settings",
    ]
    [collection] = hub.collections.values()
    assert [(item["type"], item["id"]) for item in collection["items"]] == [("model", NAME)]
    assert push("--public", "--collection", "Chest X-rays").returncode == 0  # and once more changes nothing
    assert len(collection["items"]) == 1


def test_files_that_are_gone_here_go_there_too(hub: Hub, push: Push, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(BUNDLE, tmp_path / "bundle"))
    assert push(source=bundle).returncode == 0
    assert "external/nih_figure1.parquet" in held(hub)
    (bundle / "external" / "nih_figure1.parquet").unlink()
    assert push(source=bundle).returncode == 0
    assert "external/nih_figure1.parquet" not in held(hub)


def test_a_public_repository_is_not_touched_unless_public_is_meant(hub: Hub, push: Push) -> None:
    hub.repos["model", NAME] = Repo("model", NAME)
    repository(hub).private = False
    refused = push()
    assert refused.returncode == 1
    assert "is public, so all would be seen at once; pass --public, or another --repo-id." in refused.stderr
    assert held(hub) == {}
    assert push("--public").returncode == 0


@pytest.mark.parametrize("tag", ["main", "a b", "", "-x"])
def test_what_is_no_tag_is_refused_before_anything_is_sent(hub: Hub, push: Push, tag: str) -> None:
    refused = push(f"--tag={tag}")
    assert (refused.returncode, hub.requests) == (2, [])
    assert f"{tag!r} is not a tag" in refused.stderr


def test_nothing_but_a_bundles_own_files_leaves(hub: Hub, push: Push, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(BUNDLE, tmp_path / "bundle"))
    (bundle / "patients.csv").write_text("secret")
    (bundle / ".env").write_text("secret")
    assert push(source=bundle).returncode == 0
    assert {"patients.csv", ".env"} & held(hub).keys() == set()


def test_names_of_files_and_patients_stay_here_if_asked(hub: Hub, push: Push) -> None:
    assert "--no-names leaves them out." in push("--dry-run").stdout
    done = push("--no-names")
    assert done.returncode == 0, done.stderr
    assert held(hub) == listed(done.stdout)
    files = repository(hub).head.files
    named = json.loads((BUNDLE / manifest.SPLITS).read_text())["files"]["test"]
    assert [path for path in files if path.endswith(".parquet") or path == manifest.SPLITS] == []
    everything = b"".join(blob.content for blob in files.values())
    assert [name for name in named if name.encode() in everything] == []
    card = files[manifest.CARD].content.decode()
    assert manifest.PREDICTIONS not in card
    assert "--no-names" not in done.stdout


def test_the_card_on_disk_can_be_the_one_that_is_pushed(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(BUNDLE, tmp_path / "bundle"))
    cli.main(["card", str(bundle), "--repo-id", NAME, "--no-names"])
    pushed = publish.of_bundle(bundle, NAME, with_names=False).files[manifest.CARD]
    assert (bundle / manifest.CARD).read_bytes() == pushed
    assert "The split and the predictions are not here" in (bundle / manifest.CARD).read_text()


def test_a_history_with_names_is_not_opened_where_names_must_stay_here(hub: Hub, push: Push) -> None:
    assert push().returncode == 0
    before = held(hub)
    refused = push("--no-names", "--public")
    assert refused.returncode == 1
    words = "names files and patients, which --no-names would have kept here; choose another --repo-id."
    assert f"error: the history of {NAME} {words}\n" in refused.stderr
    assert held(hub) == before
    assert push("--no-names").returncode == 0
    assert words in push("--no-names", "--public").stderr  # the head names nobody, but the commit before does
    assert repository(hub).private
    assert push("--public").returncode == 0  # they may be shown


def test_a_gitignore_there_would_leave_files_out(hub: Hub, push: Push) -> None:
    taken = hub.repos["model", NAME] = Repo("model", NAME, private=True)
    taken.commit({".gitignore": Blob(b"*.onnx")}, "Ignore")
    refused = push("--force")
    assert refused.returncode == 1
    assert "holds a .gitignore, which makes the Hub leave files out of a commit; delete it" in refused.stderr
    assert held(hub).keys() == {".gitignore"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--all-images"], "--all-images is for --kind dataset, not model; leave it out."),
        (["--kind", "space", "--no-names"], "--no-names is for --kind model, not space"),
        (["--kind", "dataset", "--data-set", "a/b"], "--data-set is for --kind model, not dataset"),
    ],
)
def test_an_option_of_another_kind_is_refused(hub: Hub, push: Push, options: list[str], words: str) -> None:
    refused = push(*options)
    assert (refused.returncode, hub.requests) == (2, [])
    assert words in refused.stderr


def test_a_private_collection_is_opened_for_what_is_public(hub: Hub, push: Push) -> None:
    assert push("--collection", "Chest X-rays").returncode == 0
    [collection] = hub.collections.values()
    assert collection["private"]
    assert push("--public", "--collection", "Chest X-rays").returncode == 0
    assert not collection["private"]


@pytest.mark.parametrize("is_push", [False, True], ids=["by hand", "by a push of a colleague"])
def test_what_someone_else_changed_is_not_overwritten_without_force(
    hub: Hub, push: Push, tmp_path: Path, is_push: bool
) -> None:
    assert push().returncode == 0
    ours = repository(hub).head
    title = ours.title if is_push else "Better words"
    message = re.sub(r": \w{12}\.", ": 123456789abc.", ours.message) if is_push else ""
    author = "colleague" if is_push else "owner"
    repository(hub).commit({"README.md": Blob(b"better words")}, title, message, author=author)
    bundle = changed(tmp_path / "bundle", 0.5)
    refused = push(source=bundle)
    assert refused.returncode == 1
    assert f"was changed by someone else ({title!r}); look at it, then pass --force" in refused.stderr
    assert repository(hub).head.files["README.md"].content == b"better words"
    assert push("--force", source=bundle).returncode == 0
    assert held(hub) == listed(push("--dry-run", source=bundle).stdout)


def test_a_repository_with_content_of_another_hand_is_not_taken_over(hub: Hub, push: Push) -> None:
    taken = hub.repos["model", NAME] = Repo("model", NAME)
    taken.private = True
    taken.commit({"model.bin": Blob(b"mine")}, "Upload mine")
    refused = push()
    assert "was changed by someone else ('Upload mine')" in refused.stderr
    assert held(hub).keys() == {"model.bin"}


def test_a_commit_that_sneaks_in_is_not_overwritten(hub: Hub, push: Push) -> None:
    def sneak() -> None:
        repository(hub).commit({"other.txt": Blob(b"other")}, "Other")

    hub.faults.append(Fault("POST", "/commit/", before=sneak))
    refused = push()
    assert refused.returncode == 1
    assert "Someone else is changing the repository; look at it, and push again." in refused.stderr
    assert held(hub).keys() == {"other.txt"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/repos/create"),
        ("GET", "/api/models/owner/xray-cnn$"),
        ("GET", "/commits/"),
        ("GET", "/tree/"),
        ("POST", "/validate-yaml"),
        ("POST", "/preupload/"),
        ("POST", "/info/lfs/objects/batch"),
        ("PUT", "/cdn/lfs/"),
        ("POST", "/commit/"),
        ("GET", "/refs"),
        ("POST", "/tag/"),
        ("PUT", "/settings"),
        ("POST", "/api/collections"),
    ],
)
def test_trouble_that_passes_is_waited_for(hub: Hub, push: Push, method: str, path: str) -> None:
    hub.faults += [Fault(method, path, status=500), Fault(method, path, cut_response=0)]
    done = push("--public", "--collection", "X")
    assert done.returncode == 0, done.stderr
    assert [fault.times for fault in hub.faults] == [0, 0]
    assert held(hub) == listed(done.stdout)
    assert len(repository(hub).commits) == 2


def test_trouble_that_ends_a_long_try_is_waited_for_too(python: WarmPython, hub: Hub, tmp_path: Path) -> None:
    hub.faults += [Fault("POST", "/commit/", delay=0.5, status=503), Fault("POST", "/commit/", delay=SILENT)]
    done = pusher(python, tmp_path / "home", timeout=3, patience=0.1)()
    assert done.returncode == 0, done.stderr
    assert [one.status for one in hub.asked("POST", "/commit/")] == [503, None, 200]
    assert held(hub) == listed(done.stdout)
    assert len(repository(hub).commits) == 2


RESULT = "model-index: [{name: a, results: [{dataset: {type: 'kaggle:owner/name'}}]}]"


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ("- a list", "the front matter is not a mapping"),
        (RESULT, '"model-index[0].results[0].dataset.type" with value "kaggle:owner/name" fails to match '),
    ],
    ids=["no mapping", "no data set's name"],
)
def test_a_card_that_the_hub_rejects_is_told_with_the_reason(
    python: WarmPython, hub: Hub, metadata: str, words: str
) -> None:
    card = f"---\n{metadata}\n---\n"
    code = (
        "import sys; from xray_hf.errors import exit_on_error; from xray_hf.hub.publish import Plan, push; "
    )
    code += f"plan = Plan('model', 'xray-cnn', {NAME!r}, {{'README.md': {card!r}.encode()}}); "
    code += "sys.exit(exit_on_error(lambda: push(plan)))"
    refused = python.run(code, environment={"HF_TOKEN": "hf_owner"}, cwd=ROOT)
    [error] = refused.stderr.splitlines()
    assert error.startswith(f"error: {NAME} could not be pushed: Invalid metadata in README.md. - {words}")
    assert held(hub) == {}


def test_a_hub_that_does_not_answer_is_given_up_in_words(
    python: WarmPython, hub: Hub, tmp_path: Path
) -> None:
    hub.faults.append(Fault("POST", "/commit/", delay=SILENT, times=9))
    given_up = pusher(python, tmp_path / "home", timeout=2)()
    assert given_up.returncode == 1
    assert re.search(
        rf"^error: the Hub could not be reached for {NAME} \(.*\)\. Push again", given_up.stderr, re.M
    )
    assert held(hub) == {}


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "nobody is logged in to the Hub; run `hf auth login`, or set HF_TOKEN."),
        ("hf_expired", "The token is not valid, or no longer; run `hf auth login`, or renew HF_TOKEN."),
        ("hf_stranger", "The token may not write there; choose another --repo-id"),
    ],
)
def test_who_may_not_push_is_told_so_and_no_token_is_shown(
    hub: Hub, push: Push, token: str | None, words: str
) -> None:
    refused = push(token=token)
    assert refused.returncode == 1
    assert words in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "hf_" not in refused.stdout + refused.stderr
    assert ("model", NAME) not in hub.repos


def test_a_token_that_expires_on_the_way_leaves_the_repository_as_it_was(hub: Hub, push: Push) -> None:
    hub.faults.append(Fault("POST", "/commit/", before=lambda: hub.tokens.pop("hf_owner")))
    refused = push()
    assert "The token is not valid, or no longer" in refused.stderr
    assert held(hub) == {}


def test_a_tag_of_another_commit_is_not_moved(hub: Hub, push: Push, tmp_path: Path) -> None:
    assert push("--tag", "v1").returncode == 0
    head = repository(hub).head.oid
    refused = push("--tag", "v1", source=changed(tmp_path / "bundle", 0.5))
    assert "has a tag v1 already; choose another --tag." in refused.stderr
    assert (repository(hub).tags["v1"], repository(hub).head.oid) == (head, head)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("xet", "cuts"),
    [
        pytest.param(False, 5, id="LFS"),
        pytest.param(False, 20, id="LFS, more", marks=pytest.mark.exhaustive),
        pytest.param(True, 6, id="Xet"),
    ],
)
def test_cuts_anywhere_never_leave_half_a_model(hub: Hub, tmp_path: Path, xet: bool, cuts: int) -> None:
    """Each next version is cut off at some request: the repository holds the old one or the new, whole."""
    with publisher(hub, xet=xet) as python:
        cut_anywhere(hub, pusher(python, tmp_path / "home"), tmp_path, cuts)


def cut_anywhere(hub: Hub, push: Push, folder: Path, cuts: int) -> None:
    hub.part_size, draw = 200_000, random.Random(0)
    assert push().returncode == 0
    before = len(hub.requests)
    assert push(source=changed(folder / "undisturbed", 0.4)).returncode == 0
    count = len(hub.requests) - before
    for number in range(cuts):
        bundle = changed(folder / str(number), 0.5 + number / 100)
        hashes = publish.of_bundle(bundle, NAME).hashes
        old, new = held(hub), {path: digest for path, (_, digest) in hashes.items()}
        before, nth = len(hub.requests), draw.randrange(count)
        cut = {draw.choice(["cut_request", "cut_response"]): draw.random()}
        hub.faults[:] = [Fault(".*", "", **cut, skip=nth, times=999, reset=draw.random() < 0.5)]
        done = push(source=bundle)
        assert hub.requests[before + nth].is_cut
        assert held(hub) == new if done.returncode == 0 else held(hub) in (old, new)
        hub.faults.clear()
        done = push(source=bundle)
        assert done.returncode == 0, done.stderr
        assert held(hub) == new


@pytest.mark.parametrize("repo_id", ["name", "a/b/c", "/runs/cnn", "owner/na me", "owner/--", ""])
def test_a_name_that_the_hub_does_not_take_is_refused_here(repo_id: str) -> None:
    with pytest.raises(ConfigError, match="is not a repository's id"):
        publish.of_bundle(BUNDLE, repo_id)


def test_a_failure_after_the_commit_says_that_the_files_are_there(hub: Hub, push: Push) -> None:
    hub.faults.append(Fault("PUT", "/settings", status=503, times=99))
    failed = push("--public")
    assert failed.returncode == 1
    assert "Its files are there; push again for tags, visibility and collection." in failed.stderr
    assert repository(hub).private
    hub.faults.clear()
    assert push("--public").returncode == 0
    assert not repository(hub).private
