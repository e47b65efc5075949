"""A data set repository on the Hub, in Parquet -> samples.

owner/name[@revision]     all splits of its default (else first) configuration
column image              an image with its bytes, as `datasets` writes them
column label              ClassLabel or text
columns file_name, patient_id, site, view, license     optional texts

A split `test` is the official one; all others are its training part. The images' bytes are written to the
cache folder once.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from xray_hf.data.sample import UNKNOWN_PATIENT, Sample, SourceReport
from xray_hf.data.sources import About, ReadOptions
from xray_hf.data.tables import without_repeats
from xray_hf.errors import ConfigError, DataError, HubError, as_sentence, hub_errors
from xray_hf.files import atomic_folder, write_json
from xray_hf.manifest import TIMEOUT

ABOUT = About(
    title="A data set on the Hugging Face Hub",
    url="https://huggingface.co/datasets",
    origin="As the repository's card says.",
    hospital="As the column site says.",
    counts="As found.",
    labels="As the column label says.",
    licence="As the column license or the card says.",
    known_errors=("Nothing is known about it here.", "It may repeat images of the other collections."),
    citation="",
)
CLASS_OF: dict[str, str] = {}
OPTIONAL = ("file_name", "patient_id", "site", "view", "license")
INDEX = "index.json"
_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")
_BATCH = 64  # images in memory at a time


def read(place: str, name: str, options: ReadOptions) -> tuple[list[Sample], SourceReport]:
    """Fetch the Parquet files, or take them from the Hub's cache, and write their images; none is decoded.

    place: "owner/name" or "owner/name@revision", a branch, tag or commit.
    Raises ConfigError for a place of another form, HubError if it cannot be fetched, DataError if it holds no
    Parquet with image and label, and for a name with two different images.
    """
    # Imports scipy and Pillow, which ABOUT does not need.
    from xray_hf.data.cache import default_cache_dir

    found = _HUB_ID.fullmatch(place)
    if not found or Path(place).is_dir():
        raise ConfigError(
            f"{place!r} is not a data set of the Hub; expected owner/name or owner/name@revision. "
            f"A folder on this computer is --source folder={place}."
        )
    snapshot = _fetch(found[1], found[2])
    cache_dir = options.cache_dir or default_cache_dir()
    folder = cache_dir / f"hub-{found[1].replace('/', '--')}-{snapshot.name[:12]}"
    if not folder.is_dir():
        with atomic_folder(folder) as temporary:
            write_json(temporary / INDEX, {"rows": _unpack(snapshot, place, temporary)})
    try:
        rows: list[dict[str, str]] = json.loads((folder / INDEX).read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, LookupError) as error:
        raise DataError(
            f"{folder} is damaged ({error}); delete this folder, and it will be rebuilt."
        ) from error
    has_test = any(row["split"] == "test" for row in rows)
    report = SourceReport(name, place, rows=len(rows))
    if any(row["patient_id"] for row in rows):
        report.patients_from = "the column patient_id"
    samples = []
    for row in without_repeats(rows, "file_name", Path(place), report.duplicate_rows):
        if not row["stored"]:
            report.rows_without_file.append(row["file_name"])
            continue
        samples.append(
            Sample(
                file_name=row["file_name"],
                path=folder / row["stored"],
                source=name,
                findings=(row["label"],) if row["label"] else (),
                patient_id=row["patient_id"] or f"{UNKNOWN_PATIENT}{row['file_name']}",
                site=row["site"],
                official_split=("TEST" if row["split"] == "test" else "TRAIN") if has_test else "",
                view=row["view"],
                license=row["license"],
            )
        )
    return samples, report


def fits(folder: Path) -> bool:
    """Never: a repository is not a folder."""
    return False


def _fetch(repo_id: str, revision: str | None) -> Path:
    """The folder of the repository's Parquet files and card in the Hub's cache, named by the commit."""
    from huggingface_hub import snapshot_download

    # hf_xet reads it at its first download; by default it waits half an hour for a silent server.
    os.environ.setdefault("HF_XET_CLIENT_READ_TIMEOUT", f"{TIMEOUT}s")
    patterns = ["*.parquet", "README.md"]
    try:
        return Path(
            snapshot_download(repo_id, repo_type="dataset", revision=revision, allow_patterns=patterns)
        )
    except hub_errors() as error:
        raise HubError(
            f"the data set {repo_id} cannot be fetched from the Hub: {as_sentence(error)} Check the name and "
            "the network; a private or gated one needs a token, HF_TOKEN or `hf auth login`."
        ) from error


def _unpack(snapshot: Path, place: str, folder: Path) -> list[dict[str, str]]:
    """Write each image under the hash of its bytes, and return the rows.

    A row has split, file_name, label, stored (the file's name in `folder`) and OPTIONAL, all texts.
    """
    from pyarrow import ArrowException

    rows: list[dict[str, str]] = []
    for split, path in _splits(snapshot, place):
        try:
            rows += _rows(path, split, folder)
        except (OSError, ArrowException, LookupError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"the data set {place}: {path.name} has no image and label that can be read: "
                f"{as_sentence(error)} Expected both columns, and patient_id if known."
            ) from error
    names = Counter(name for name, _ in {(row["file_name"], row["split"]) for row in rows})
    if max(names.values(), default=0) > 1:  # numbers restart in each split
        rows = [row | {"file_name": f"{row['split']}/{row['file_name']}"} for row in rows]
    return rows


def _rows(path: Path, split: str, folder: Path) -> Iterator[dict[str, str]]:
    from datasets import Features
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    features = Features.from_arrow_schema(file.schema_arrow)
    if missing := {"image", "label"} - set(features):
        raise ValueError(f"no column {', '.join(sorted(missing))}; found: {', '.join(features)}")
    names = getattr(features["label"], "names", None)
    wanted = [column for column in ("image", "label", *OPTIONAL) if column in features]
    number = 0
    for batch in file.iter_batches(_BATCH, columns=wanted):
        for cells in batch.to_pylist():
            texts = {column: str(cells.get(column) or "").strip() for column in OPTIONAL}
            texts["file_name"] = texts["file_name"] or f"{path.stem}-{number}"
            stored = _store((cells["image"] or {}).get("bytes"), folder)
            yield texts | {"split": split, "label": _label(cells["label"], names), "stored": stored}
            number += 1


def _store(content: bytes | None, folder: Path) -> str:
    """Write bytes once, under their hash; "" for none."""
    if not content:
        return ""
    name = sha256(content).hexdigest()[:32]
    if not (folder / name).exists():
        (folder / name).write_bytes(content)
    return name


def _label(value: Any, names: list[str] | None) -> str:
    """A label's name; None, and -1 of a ClassLabel, say nothing."""
    if value is None or (names and value < 0):
        return ""
    return names[value] if names else str(value).strip()


def _splits(snapshot: Path, place: str) -> list[tuple[str, Path]]:
    """The Parquet files of the default configuration with their splits, as `datasets` finds them."""
    from datasets import get_dataset_config_names, get_dataset_default_config_name, load_dataset_builder
    from datasets.exceptions import DatasetsError

    wanted = f"the data set {place} holds no Parquet files that `datasets` can load"
    if next(snapshot.rglob("*.parquet"), None) is None:
        raise DataError(f"{wanted}; publish it with push_to_hub, or download it as --source folder=DIR.")
    try:
        source = str(snapshot)
        config = get_dataset_default_config_name(source) or get_dataset_config_names(source)[0]
        found = load_dataset_builder(source, config).config.data_files or {}
    except (OSError, ValueError, LookupError, DatasetsError) as error:
        raise DataError(f"{wanted}: {as_sentence(error)}") from error
    return [(str(split), Path(path)) for split, paths in found.items() for path in paths]
