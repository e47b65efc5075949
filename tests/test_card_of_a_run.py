"""A run of one's own, from training to its card, on synthetic patients."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from running import run_training

from xray_hf import cli, manifest
from xray_hf.hub import cards, publish

pytestmark = pytest.mark.slow

WEIGHTS = Path(__file__).resolve().parents[1] / "pretrained" / "xray-cnn" / manifest.WEIGHTS
RUNS = {  # the latter's graph has no heatmaps
    "xray-cnn": ["--preset", "paper", "--initial-weights", str(WEIGHTS)],
    "timm:efficientvit_b0": ["--preset", "robust"],
}


@pytest.fixture(
    scope="module",
    params=["xray-cnn", pytest.param("timm:efficientvit_b0", marks=pytest.mark.exhaustive)],
)
def trained(
    request: pytest.FixtureRequest, synthetic: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The bundle of a run of one epoch, with all that the documents say to do with it."""
    out = tmp_path_factory.mktemp("runs") / request.param.rpartition(":")[2]
    options = [*RUNS[request.param], "--no-pretrained", "--epochs", "1", "--side", "64"]
    data = ["--data-dir", str(synthetic)]
    run_training("--model", request.param, *data, "--out", out, *options, draws=False)
    bundle = out / "bundle"
    cli.main(["export", str(bundle)])
    cli.main(["report", str(bundle), *data, "--side", "64"])
    return bundle


def test_its_card_claims_no_more_than_the_run_shows(trained: Path) -> None:
    text = cards.render(trained, "owner/name")
    assert text.startswith("---")
    assert "# SYNTHETIC patients: " in text
    is_cnn = trained.parent.name == "xray-cnn"
    assert ("**Its validation numbers mean nothing.**" in text) == is_cnn
    said = " ".join(text.split())
    assert ("copies of training images, so they cannot be used for calibration" in said) == is_cnn
    assert "is not calibrated: its probabilities are a plain softmax" in said
    assert ("class activation maps are exact" in text) == is_cnn
    assert "was tested on no external test set" in text
    assert "64×64 pixels" in text
    assert ("tensors come from model.safetensors (SHA-256" in text) == is_cnn
    assert str(WEIGHTS.parent) not in text
    assert "CoronaHack" not in text
    assert {"synthetic"} == {each.dataset_type for each in ModelCard(text).data.eval_results or []}


def test_all_of_it_may_go(trained: Path) -> None:
    files = publish.of_bundle(trained, "owner/name").files
    assert {manifest.CARD, manifest.GRAPH, manifest.METRICS, "controls/test.parquet"} <= files.keys()
