"""The data set on the Hub: both protocols, row for row, without what nobody may share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hub_server import Hub
from huggingface_hub import DatasetCard
from opening import open_coronahack

from xray_hf import cli, manifest
from xray_hf.data.dataset import XrayData, split_data
from xray_hf.data.sample import SourceReport
from xray_hf.data.sources import reader
from xray_hf.errors import ConfigError, DataError
from xray_hf.hub import data_set
from xray_hf.task import PAPER_CLASSES, PROTOCOLS, SPLITS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def data(synthetic: Path) -> XrayData:
    return open_coronahack(synthetic, 32)


@pytest.fixture
def partly(data: XrayData) -> XrayData:
    """The same, but half of the COVID-19 pictures state no licence."""
    kept = 0
    records = []
    for record in data.samples:
        kept += record.label == "COVID-19"
        records.append(replace(record, license="") if record.label == "COVID-19" and kept % 2 else record)
    return replace(data, samples=records)


COLUMNS = ("file_name", "patient_id", "site", "pathogen", "source", "license", "label", "group")
LOAD = """
import json, os, sys
REVISION, *COLUMNS = sys.argv[1:]
sys.modules["xray_hf"] = None
from hashlib import sha256
from datasets import Image, load_dataset
found = {}
# Without a network datasets asks for a name, as soon as it has fetched both.
for name in ("grouped", "paper") if os.environ["HF_HUB_OFFLINE"] == "1" else (None, "grouped", "paper"):
    data = load_dataset("owner/data", name, revision=REVISION).cast_column("image", Image(decode=False))
    found[str(name)] = {
        split: [
            [row[name] for name in COLUMNS] + [sha256(row["image"]["bytes"]).hexdigest()] for row in rows
        ]
        for split, rows in data.items()
    }
found["size"] = data["test"].cast_column("image", Image())[0]["image"].size
found["labels"] = data["train"].features["label"].names
print(json.dumps(found))
"""


def test_load_dataset_gives_both_protocols_row_for_row(
    hub: Hub, data: XrayData, synthetic: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, **hub.environment(tmp_path / "home", "hf_owner")}
    options = ["--kind", "dataset", "--repo-id", "owner/data"]
    subprocess.run(
        [sys.executable, "-m", "xray_hf.cli", "push", str(synthetic), *options],
        env=environment,
        cwd=ROOT,
        check=True,
    )
    [tag] = hub.repo("dataset", "owner/data").tags

    def load(**more: str) -> str:
        command = [sys.executable, "-c", LOAD, tag, *COLUMNS]
        done = subprocess.run(
            command, env={**environment, **more}, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    found = json.loads(load())
    offline = json.loads(load(HF_HUB_OFFLINE="1"))
    assert offline == {name: found[name] for name in offline}
    assert offline.keys() >= set(PROTOCOLS)
    for protocol in PROTOCOLS:
        split = split_data(data, protocol, 0)
        for name in SPLITS:
            expected = Counter(
                (
                    *(getattr(record, column) for column in COLUMNS[:-2]),
                    int(data.labels[row]),
                    int(data.groups[row]),
                    sha256(record.path.read_bytes()).hexdigest(),
                )
                for row in split.rows(name)
                for record in [data.samples[row]]
            )
            assert Counter(map(tuple, found[protocol][name])) == expected
    assert found["None"] == found["grouped"]
    assert found["labels"] == list(PAPER_CLASSES)
    assert {record.license for record in data.samples} == {"CC BY-NC 4.0"}
    assert min(found["size"]) > 32


def test_pictures_without_a_licence_stay_here_and_are_counted(partly: XrayData, tmp_path: Path) -> None:
    plan = data_set.plan(partly, "owner/data", tmp_path)
    without = {record.file_name for record in partly.samples if not record.license}
    assert without
    for path, content in plan.files.items():
        if path != manifest.CARD:
            assert isinstance(content, Path)
            names = pq.read_table(content, columns=["file_name"])["file_name"].to_pylist()
            assert not without & set(names)
    card = bytes(plan.files[manifest.CARD]).decode()  # type: ignore[arg-type]
    words = f"{len(without)} images are left out, because their collection states no licence"
    assert words in card
    assert f"0 Normal, 0 Pneumonia, {len(without)} COVID-19." in card
    assert f"- none stated: {len(without)} images" in card
    assert "xray-hf prepare --source coronahack=DIR --protocol grouped" in card


def test_all_pictures_go_only_where_nobody_else_looks(partly: XrayData, tmp_path: Path) -> None:
    plan = data_set.plan(partly, "owner/data", tmp_path, with_all=True)
    rows = sum(
        pq.read_metadata(content).num_rows
        for path, content in plan.files.items()
        if path.startswith("grouped/")
    )
    assert rows == len(partly.samples)
    options = ["--kind", "dataset", "--repo-id", "a/b", "--all-images", "--public"]
    with pytest.raises(ConfigError, match="--all-images sends images that only their owner may share"):
        cli.main(["push", "data", *options])


# `xray-hf`, where every ninth picture states no licence.
PARTLY = """
import sys
from dataclasses import replace
from xray_hf import cli
from xray_hf.data import dataset
from xray_hf.errors import exit_on_error
whole = dataset.open_data
def partly(*args, **options):
    data = whole(*args, **options)
    records = [replace(each, license="") if n % 9 == 0 else each for n, each in enumerate(data.samples)]
    return replace(data, samples=records)
dataset.open_data = partly
sys.exit(exit_on_error(cli.main))
"""


def test_what_was_never_to_be_seen_is_not_opened_later(hub: Hub, synthetic: Path, tmp_path: Path) -> None:
    def push(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PARTLY, "push", str(synthetic), "--kind", "dataset"]
        return subprocess.run(
            [*command, "--repo-id", "owner/data", *options],
            env={**os.environ, **hub.environment(tmp_path / "home", "hf_owner")},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    assert push("--all-images").returncode == 0
    assert push().returncode == 0  # without them, but they are in the history
    refused = push("--public")
    assert refused.returncode == 1
    assert "the history of owner/data has files that only you may see" in refused.stderr
    assert hub.repo("dataset", "owner/data").private


def test_a_set_without_any_licence_is_not_pushed(data: XrayData, tmp_path: Path) -> None:
    bare = replace(data, samples=[replace(record, license="") for record in data.samples])
    with pytest.raises(DataError, match="no picture of grouped/train has a licence"):
        data_set.plan(bare, "owner/data", tmp_path)


def test_the_card_says_synthetic_and_its_metadata_is_read(data: XrayData, tmp_path: Path) -> None:
    card = DatasetCard(bytes(data_set.plan(data, "owner/data", tmp_path).files[manifest.CARD]).decode())  # type: ignore[arg-type]
    assert card.data.pretty_name.startswith("SYNTHETIC patients: ")
    assert "synthetic" in card.data.tags
    assert [each["config_name"] for each in card.data.configs] == list(PROTOCOLS)
    assert "Nothing is left out." in card.text
    assert "{{" not in card.content
    assert "Personal and health information" in card.text


def test_a_real_source_beside_synthetic_patients_keeps_its_label(data: XrayData, tmp_path: Path) -> None:
    samples = [
        replace(each, source="rsna", site="") if k % 2 else each for k, each in enumerate(data.samples)
    ]
    mixed = replace(data, samples=samples, reports=[*data.reports, SourceReport("rsna", "", "rsna")])
    card = DatasetCard(bytes(data_set.plan(mixed, "owner/data", tmp_path).files[manifest.CARD]).decode())  # type: ignore[arg-type]
    about = reader("rsna").ABOUT
    assert card.data.pretty_name.startswith("PARTLY SYNTHETIC patients: ")
    assert card.data.license == "other"
    assert f"[{about.title}]({about.url})." in card.text
    assert card.text.count("Drawn by `xray-hf atlas`") == 1


def test_copies_of_a_picture_take_hardly_any_space(data: XrayData, tmp_path: Path) -> None:
    plan = data_set.plan(data, "owner/data", tmp_path)
    rows = split_data(data, "paper", 0).train.tolist()
    sizes = {row: data.samples[row].path.stat().st_size for row in rows}
    assert sum(sizes[row] for row in rows) > 1.4 * sum(sizes.values())
    assert plan.hashes["paper/train-00000-of-00001.parquet"][0] < 1.1 * sum(sizes.values())


@pytest.mark.exhaustive
@pytest.mark.real
def test_of_the_real_set_46_pictures_stay_here(real_data: Path, tmp_path: Path) -> None:
    data = open_coronahack(real_data, 224)
    card = bytes(data_set.plan(data, "owner/data", tmp_path).files[manifest.CARD]).decode()  # type: ignore[arg-type]
    assert "46 images are left out, because their collection states no licence" in card
