"""What pretrained/ ships is complete, answers as it claims, and docs/results.md says what it says."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import write_results
from PIL import Image
from safetensors.numpy import load_file
from test_engine_graph import TOLERANCE, WITH_A_JUMP
from warm_python import WarmPython, warm_python

from xray_hf import engine_graph, evidence, manifest
from xray_hf.data.sources import ReadOptions, coronahack
from xray_hf.demo import examples
from xray_hf.evaluation.predictions import Predictions
from xray_hf.hub import cards
from xray_hf.inference import Engine, reference
from xray_hf.task import PAPER_CLASSES, SPLITS

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = [ROOT / "pretrained" / name for name in write_results.SHIPPED]
IMAGENET = "resnet18_imagenet_part.safetensors"
HELD_OUT = ["spain_twitter", "openist", "nih_figure1"]
SHIPPED_CNN = ROOT / "pretrained" / manifest.XRAY_CNN
FILES = (
    manifest.CONFIG,
    manifest.WEIGHTS,
    manifest.GRAPH,
    manifest.ENGINE,
    manifest.REFERENCE,
    manifest.CALIBRATION,
    manifest.TRAINING,
    manifest.SPLITS,
    manifest.PREDICTIONS,
    manifest.METRICS,
)


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two JSON values differ by more than what another number of threads makes of a sum."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [each for key in one for each in differences(one[key], other[key], f"{place}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [each for number, pair in pairs for each in differences(*pair, f"{place}/{number}")]
    are_floats = isinstance(one, float) and isinstance(other, float)
    is_same = math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) if are_floats else one == other
    return [] if is_same else [f"{place}: {one} and {other}"]


def is_of_several(bundle: Path) -> bool:
    """Whether it was trained on several sources."""
    return bundle.name.endswith("-multisource")


of_each = pytest.mark.parametrize("bundle", SHIPPED, ids=lambda path: path.name)


@of_each
def test_it_is_complete_and_trained_on_real_patients(bundle: Path) -> None:
    assert [name for name in FILES if not (bundle / name).is_file()] == []
    assert not manifest.read(bundle).is_synthetic
    weights = load_file(bundle / manifest.WEIGHTS)
    assert all(np.isfinite(value).all() for value in weights.values())


def test_all_of_it_is_small() -> None:
    assert sum(file.stat().st_size for file in (ROOT / "pretrained").rglob("*")) < 60e6


@of_each
def test_its_split_shares_nothing_and_its_start_is_stated(bundle: Path) -> None:
    splits, training = (manifest.read_json(bundle / name) for name in (manifest.SPLITS, manifest.TRAINING))
    assert all(number == 0 for shared in splits["overlap"].values() for number in shared.values())
    recipe = "multisource" if is_of_several(bundle) else "robust"
    assert (training["config"]["preset"], training["config"]["data"]["protocol"]) == (recipe, "grouped")
    is_from_imagenet = bundle.name == "xray-resnet18-multisource"
    assert training["initial_weights"] == (IMAGENET if is_from_imagenet else "random")
    assert sorted(splits.get("hold_out", [])) == (sorted(HELD_OUT) if is_of_several(bundle) else [])


@of_each
def test_no_official_test_image_and_no_patient_of_a_test_row_was_fitted_on(bundle: Path) -> None:
    record = Predictions.read(bundle / manifest.PREDICTIONS)
    files = manifest.read_json(bundle / manifest.SPLITS)["files"]
    for name in SPLITS:
        rows = record.select(name)
        own = files[name] if is_of_several(bundle) else {"coronahack": files[name]}
        assert {source: set(part.file_name) for source, part in rows.by_source().items()} == {
            source: set(part) for source, part in own.items()
        }
    is_test = record.split == "test"
    assert is_test[record.official_split == "TEST"].all()
    assert len(record.select("test_official")) == 624
    assert not set(record.patient_id[is_test]) & set(record.patient_id[~is_test])


@pytest.mark.real
@of_each
def test_its_record_names_the_official_split_and_the_patients_of_the_data_set(
    bundle: Path, real_data: Path
) -> None:
    record = Predictions.read(bundle / manifest.PREDICTIONS).by_source()["coronahack"]
    with (real_data / coronahack.CSV_NAME).open(newline="") as stream:
        official = {row["X_ray_image_name"]: row["Dataset_type"] for row in csv.DictReader(stream)}
    own = dict(zip(record.file_name, record.official_split, strict=True))
    assert own == {name: official[name] for name in own}
    assert is_of_several(bundle) or own.keys() == official.keys()
    patients = {
        found.file_name: found.patient_id
        for found in coronahack.read(str(real_data), "coronahack", ReadOptions())[0]
    }
    own = dict(zip(record.file_name, record.patient_id, strict=True))
    assert own == {name: patients[name] for name in own}


@pytest.mark.exhaustive
@of_each
def test_its_numbers_are_those_of_its_records(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    before = json.loads((bundle / manifest.METRICS).read_text())
    evidence.draw(copy)
    assert differences(json.loads((copy / manifest.METRICS).read_text()), before) == []
    assert {path.name for path in (copy / manifest.FIGURES).iterdir()} == {
        path.name for path in (bundle / manifest.FIGURES).iterdir()
    }


@pytest.mark.slow
@of_each
def test_it_answers_about_a_synthetic_patient_with_all_that_was_fitted(bundle: Path, tmp_path: Path) -> None:
    engine = Engine.from_pretrained(bundle)
    assert engine.calibration.detector is not None
    assert 0 < engine.calibration.abstain_below < 1
    found = engine.predict(examples.find(None, tmp_path)[0].file)
    assert tuple(found.probabilities) == PAPER_CLASSES
    assert found.heatmap is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", examples.OUTCOMES)
def test_an_example_shows_the_outcome_of_its_caption(name: str, tmp_path: Path) -> None:
    """If this fails after a change of models or atlas, run scripts/choose_examples.py."""
    example = examples.find(None, tmp_path)[list(examples.OUTCOMES).index(name)]
    outcome = examples.OUTCOMES[name]
    for bundle in SHIPPED:
        found = Engine.from_pretrained(bundle).predict(example.file)
        expected = outcome.decision if is_of_several(bundle) else outcome.of_coronahack
        assert not expected or found.decision == expected
        assert not outcome.is_turned or "rotate it by 180" in found.reason


@of_each
@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_it_gives_its_reference_predictions(bundle: Path, backend: str) -> None:
    assert reference.check(bundle, backend) < reference.TOLERANCE


@of_each
def test_its_engine_graph_answers_about_the_examples_as_the_engine(
    bundle: Path, patients: list[Path]
) -> None:
    """If this fails after a change of the engine, run `xray-hf export BUNDLE --whole`."""
    manifest.require_current_engine(bundle)
    session = onnxruntime.InferenceSession(bundle / manifest.ENGINE)
    tolerance = WITH_A_JUMP if is_of_several(bundle) else TOLERANCE
    decisions = json.loads(session.get_modelmeta().custom_metadata_map["decisions"])
    for file, expected in zip(patients, Engine.from_pretrained(bundle).predict(patients), strict=True):
        image = {engine_graph.INPUT: np.asarray(Image.open(file).convert("RGB"))}
        decision, probabilities = session.run(["decision", "probabilities"], image)
        assert decisions[decision] == expected.decision
        assert probabilities.tolist() == pytest.approx([*expected.probabilities.values()], abs=tolerance)


@of_each
def test_the_card_is_what_the_numbers_say(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = (bundle / manifest.CARD).read_text(encoding="utf-8")
    assert text == cards.render(bundle.relative_to(ROOT))


def test_the_code_beside_the_weights_is_the_packages_own() -> None:
    for name in ("configuration_xray_cnn.py", "modeling_xray_cnn.py"):
        assert (SHIPPED_CNN / name).read_text() == (ROOT / "xray_hf" / "models" / name).read_text()


def test_the_page_of_results_is_what_record_and_bundles_say() -> None:
    record = json.loads((write_results.DOCS / write_results.RECORD).read_text(encoding="utf-8"))
    page = write_results.page(record, write_results.read_shipped())
    assert (write_results.DOCS / "results.md").read_text(encoding="utf-8") == page


def test_the_readme_tells_the_story_in_the_same_numbers() -> None:
    assert write_results.in_short(write_results.read_shipped()) in (ROOT / "README.md").read_text(
        encoding="utf-8"
    )


@pytest.fixture(scope="module")
def plain_python() -> Iterator[WarmPython]:
    """A Python that has imported what benchmarks/recompute.py needs, and nothing of this package."""
    modules = ("onnxruntime", "pandas", "sklearn.metrics", "timm", "torch", "transformers")
    with warm_python(*modules, environment=os.environ) as python:
        yield python


@pytest.mark.exhaustive
@pytest.mark.real
@of_each
def test_plain_transformers_and_scikit_learn_get_the_same_numbers(
    bundle: Path, real_data: Path, plain_python: WarmPython
) -> None:
    own = ("radiography", "thorax_scan", "web_covid") if is_of_several(bundle) else ()
    sources = [f"--source={name}={real_data.parent / 'sources' / name}" for name in own]
    code = 'import runpy; runpy.run_path("benchmarks/recompute.py", run_name="__main__")'
    run = plain_python.run(
        code, str(bundle), "--data-dir", str(real_data), *sources, environment={}, cwd=ROOT
    )
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    assert "test_official accuracy: recomputed" in run.stdout
