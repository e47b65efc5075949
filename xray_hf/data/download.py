"""Fetch CoronaHack from Kaggle: the one place where data come over the network, and only on request."""

from __future__ import annotations

from pathlib import Path

from xray_hf.data.sources.coronahack import CSV_NAME, KAGGLE_SLUG
from xray_hf.errors import DataError
from xray_hf.files import atomic_folder, require_new_folder


def download(out: Path) -> None:
    """Download and unpack the data set into `out` (about 1.2 GB); it appears when it is whole.

    Raises DataError with what to do if Kaggle cannot be reached, refuses the credentials or sends damaged
    files; OutputError if `out` is not an empty folder.
    """
    require_new_folder(out)
    by_hand = f"or download it by hand from kaggle.com/datasets/{KAGGLE_SLUG} and unpack it into {out}."
    with atomic_folder(out) as temporary:
        _fetch(temporary, by_hand)
        if not (temporary / CSV_NAME).is_file():
            raise DataError(f"the download from Kaggle holds no {CSV_NAME}; try again later, {by_hand}")


def _fetch(folder: Path, by_hand: str) -> None:
    import kagglehub
    from kagglehub import exceptions
    from requests import RequestException

    try:
        kagglehub.dataset_download(KAGGLE_SLUG, output_dir=str(folder))
    except (exceptions.UnauthenticatedError, exceptions.CredentialError) as error:
        raise DataError(_login_help(error, by_hand)) from error
    except exceptions.KaggleApiHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise DataError(_login_help(error, by_hand)) from error
        raise DataError(f"Kaggle answered {status}; try again later, {by_hand}") from error
    except exceptions.DataCorruptionError as error:
        raise DataError(f"the download is damaged ({error}); try again, {by_hand}") from error
    except RequestException as error:
        reason = type(error).__name__
        raise DataError(f"Kaggle cannot be reached ({reason}); check the network, {by_hand}") from error


def _login_help(error: Exception, by_hand: str) -> str:
    return (
        f"Kaggle requires a login ({type(error).__name__}). Create an API token at kaggle.com/settings, put "
        f"it into ~/.kaggle/kaggle.json or KAGGLE_API_TOKEN, and accept the data set's terms; {by_hand}"
    )
