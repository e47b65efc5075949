"""What visitors send: files, archives, archives that lie."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

import pytest

from xray_hf.demo import uploads
from xray_hf.demo.uploads import Upload, unpack
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


def test_what_file_managers_add_is_left_out(xray: Path, tmp_path: Path) -> None:
    members = {"__MACOSX/._a.png": b"x", ".DS_Store": b"x", "._b.png": b"x", "a.png": xray.read_bytes()}
    assert [each.name for each in unpack([archive(tmp_path / "a.zip", members)])] == ["a.png"]


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
    assert problem(empty) == "empty.zip is a ZIP archive without files."
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
    assert len(unpack([archive(tmp_path / "a.zip", {f"{n}.png": b"x" for n in range(9)})])) == 3
