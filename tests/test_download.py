"""`xray-hf download`: each way in which Kaggle can fail ends in a sentence that says what to do."""

from pathlib import Path

import kagglehub
import pytest
import requests
from kagglehub import exceptions

from xray_hf.data.download import download
from xray_hf.data.sources.coronahack import CSV_NAME
from xray_hf.errors import DataError, OutputError


def failing_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(kagglehub, "dataset_download", fail)


def http_error(status: int) -> exceptions.KaggleApiHTTPError:
    response = requests.Response()
    response.status_code = status
    return exceptions.KaggleApiHTTPError("refused", response=response)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (exceptions.UnauthenticatedError(), "API token"),
        (exceptions.CredentialError(), "API token"),
        (http_error(403), "API token"),
        (http_error(500), "answered 500"),
        (exceptions.DataCorruptionError(), "damaged"),
        (requests.ConnectionError("no route"), "check the network"),
    ],
)
def test_a_failure_says_what_to_do(
    error: Exception, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failing_with(error, monkeypatch)
    with pytest.raises(DataError, match=text) as raised:
        download(tmp_path / "new")
    assert "by hand" in str(raised.value)


def test_a_download_without_the_csv_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kagglehub, "dataset_download", lambda *_, output_dir: output_dir)
    with pytest.raises(DataError, match=CSV_NAME):
        download(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_nothing_is_downloaded_over_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="not an empty folder"):
        download(tmp_path)


def test_the_folder_appears_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def write(*_: object, output_dir: str) -> str:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        (Path(output_dir) / CSV_NAME).write_text("csv")
        return output_dir

    monkeypatch.setattr(kagglehub, "dataset_download", write)
    download(tmp_path / "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", CSV_NAME]
