"""What visitors send: files, archives, archives that lie."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from typing import IO

import pytest

from xray_hf.demo import uploads
from xray_hf.demo.uploads import Upload, find, unpack
from xray_hf.errors import ImageError
from xray_hf.reading import Reading


def archive(path: Path, members: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return str(path)


def problem(upload: Upload) -> str:
    found = upload.read()
    assert isinstance(found, ImageError)
    return str(found)


def test_files_and_members_come_in_order_without_their_folders(xray: Path, tmp_path: Path) -> None:
    members = {"scans/": b"", "scans/one.png": xray.read_bytes(), "../../two.png": xray.read_bytes()}
    found = unpack([str(xray), archive(tmp_path / "scans.zip", members)])
    assert [upload.name for upload in found] == [xray.name, "one.png", "two.png"]
    assert all(isinstance(upload.read(), Reading) for upload in found)
    assert [path.name for path in tmp_path.iterdir()] == ["scans.zip"]


def test_a_zip_is_known_by_its_content(xray: Path, tmp_path: Path) -> None:
    assert [each.name for each in unpack([archive(tmp_path / "a.png", {"b.png": xray.read_bytes()})])] == [
        "b.png"
    ]


def test_what_is_no_image_is_left_out_of_an_archive_and_counted(xray: Path, tmp_path: Path) -> None:
    none = (
        "__MACOSX/._a.png",
        "__MACOSX/a.png",
        ".DS_Store",
        "._b.png",
        ".git/c.png",
        "@eaDir/a.png/THUMB.jpg",
    )
    tables = ("labels.csv", "set\\Thumbs.db", "LABELS.CSV")
    members = dict.fromkeys((*none, *tables), b"x") | {"a.png": xray.read_bytes()}
    left_out: Counter[str] = Counter()
    assert [each.name for each in unpack([archive(tmp_path / "a.zip", members)], left_out)] == ["a.png"]
    assert left_out == {"hidden": len(none), ".csv": 2, "thumbs.db": 1}
    [only] = unpack([archive(tmp_path / "b.zip", {"labels.csv": b"x"})])
    assert problem(only) == "b.zip is a ZIP archive without images, only 1 .csv."


def test_a_table_that_is_sent_on_its_own_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"a,b")
    [upload] = unpack([str(tmp_path / "labels.csv")])
    assert problem(upload).startswith("labels.csv is not a readable image")


@pytest.mark.parametrize(
    ("archives", "names"),
    [
        ([["a/x.png", "b/x.png"]], ["a/x.png", "b/x.png"]),
        ([["a\\x.png", "b\\x.png"]], ["a/x.png", "b/x.png"]),
        ([["p/a/x.png", "q/a/x.png", "q/a/y.png"]], ["p/a/x.png", "q/a/x.png", "y.png"]),
        ([["x.png"], ["x.png"]], ["0.zip/x.png", "1.zip/x.png"]),
        ([["x.png", "a/x.png"]], ["0.zip/x.png", "a/x.png"]),
        ([["x.png", "x.png"]], ["0.zip/x.png", "0.zip/x.png (2)"]),
        ([["a/\u00e9.png", "b/e\u0301.png"]], ["a/\u00e9.png", "b/\u00e9.png"]),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_equal_names_are_told_apart(archives: list[list[str]], names: list[str], tmp_path: Path) -> None:
    paths = []
    for number, members in enumerate(archives):
        paths.append(tmp_path / f"{number}.zip")
        with zipfile.ZipFile(paths[-1], "w") as file:
            for name in members:
                file.writestr(name, b"x")
    assert [each.name for each in unpack(map(str, paths))] == names


def test_files_of_one_name_are_numbered_and_differ_from_members(xray: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(xray.read_bytes())
    paths = [str(tmp_path / "one" / "x.png"), str(tmp_path / "two" / "x.png")]
    found = unpack([*paths, archive(tmp_path / "a.zip", {"x.png": xray.read_bytes()})])
    assert [each.name for each in found] == ["x.png", "x.png (2)", "a.zip/x.png"]


def test_a_file_that_was_deleted_meanwhile_is_asked_for_again(tmp_path: Path) -> None:
    [upload] = unpack([str(tmp_path / "scan.png")])
    assert problem(upload) == "scan.png is too old and was deleted here; upload it again."


@pytest.mark.parametrize("content", [b"\x89PNG", b"PK\x03\x04"])
def test_a_file_that_is_deleted_while_it_is_opened_leaves_the_others_alone(
    xray: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    file, opened = tmp_path / "scan.png", Path.open

    def delete_and_open(path: Path, mode: str) -> IO[bytes]:
        if path == file:
            path.unlink()
        return opened(path, "rb")

    file.write_bytes(content)
    monkeypatch.setattr(Path, "open", delete_and_open)
    gone, there = unpack([str(file), str(xray)])
    assert problem(gone) == "scan.png is too old and was deleted here; upload it again."
    assert isinstance(there.read(), Reading)


def test_an_archive_that_is_deleted_before_it_is_unpacked_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_is_zip", lambda path: True)
    [upload] = unpack([str(tmp_path / "scans.zip")])
    assert problem(upload) == "scans.zip is too old and was deleted here; upload it again."


def test_a_name_that_no_disk_takes_is_no_file(tmp_path: Path) -> None:
    [upload] = unpack([str(tmp_path / ("a" * 10_000))])
    assert problem(upload).endswith("is too old and was deleted here; upload it again.")


def test_an_empty_or_damaged_archive_is_one_error(tmp_path: Path) -> None:
    [empty] = unpack([archive(tmp_path / "empty.zip", {"folder/": b""})])
    assert problem(empty) == "empty.zip is a ZIP archive without images."
    (tmp_path / "torn.zip").write_bytes(b"PK\x03\x04 and no more")
    [torn] = unpack([str(tmp_path / "torn.zip")])
    assert problem(torn) == "torn.zip is a damaged ZIP archive; pack it again."


def test_an_archive_in_an_archive_is_no_image(tmp_path: Path) -> None:
    inner = Path(archive(tmp_path / "inner.zip", {"a.png": b"x"}))
    [upload] = unpack([archive(tmp_path / "outer.zip", {"inner.zip": inner.read_bytes()})])
    assert "a ZIP archive" in problem(upload)


def test_a_member_that_would_fill_the_memory_is_refused_unread(tmp_path: Path) -> None:
    [upload] = unpack([archive(tmp_path / "bomb.zip", {"a.png": bytes(2**26)})])
    assert "which no X-ray does" in problem(upload)


def test_a_member_that_is_longer_than_it_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(archive(tmp_path / "lie.zip", {"a.png": bytes(range(256)) * 40}))
    true, claimed = (10240).to_bytes(4, "little"), (100).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(true, claimed))
    [upload] = unpack([str(path)])
    assert problem(upload).startswith("a.png ")


def test_an_encrypted_member_says_so(xray: Path, tmp_path: Path) -> None:
    path = Path(archive(tmp_path / "a.zip", {"a.png": xray.read_bytes()}))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the archive's directory
    path.write_bytes(content)
    [upload] = unpack([str(path)])
    assert problem(upload) == "a.png is encrypted in its archive; pack it without a password."


def test_of_a_huge_directory_only_the_beginning_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_MAX_MEMBERS", 3)
    left_out: Counter[str] = Counter()
    assert len(unpack([archive(tmp_path / "a.zip", {f"{n}.png": b"x" for n in range(9)})], left_out)) == 3
    assert left_out == {"after the first 3": 6}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_every_upload_is_found_again_by_its_path_and_member(xray: Path, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"w\\1/x.png": xray.read_bytes(), "2/x.png": xray.read_bytes()})
    uploads = unpack([str(xray), path])
    assert [(each.path, each.member) for each in uploads] == [
        (str(xray), ""),
        (path, "w\\1/x.png"),
        (path, "2/x.png"),
    ]
    assert all(isinstance(find(each.path, each.member).read(), Reading) for each in uploads)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("2/x.png", b"another")
    assert problem(find(path, "2/x.png")) == "2/x.png occurs more than once in a.zip."
    assert problem(find(path, "")) == "the X-ray is not in a.zip."
    assert problem(find(str(xray), "x.png")) == f"x.png is not in {xray.name}."
    assert "was deleted here" in problem(find(str(tmp_path / "gone.zip"), "x.png"))
