"""Recipes for several sources are judged on a source that training has not seen, within that source."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import ablate_sources
import numpy as np
import pytest
import torch
import train_variant
from ablate_sources import PROXY, VARIANTS, Job
from running import DRAW_NOTHING, ROOT, training_python

from xray_hf.data.synthetic import sample_images
from xray_hf.errors import ConfigError, XrayHFError
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import write_json
from xray_hf.training.config import parse

pytestmark = pytest.mark.slow

SOURCES = ("--source", "folder:one=a", "--source", "folder:two=b")
FORKED = "reversed source head"  # the variant that is not trained in a process from its start
SMALL = ("--model", "xray-cnn", "--side", "32", "--epochs", "1", "--device", "cpu", "--batch-size", "8")


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "base"])
def test_every_variant_is_understood_and_differs_from_the_proxy(variant: str) -> None:
    base, changed = (parse(Job(name, "two", 0, SOURCES).options) for name in ("base", variant))
    assert changed != base
    assert changed.data == base.data
    assert changed.data.hold_out == ("two",)
    assert base == parse([*PROXY, *SOURCES, "--hold-out", "two"])


def test_several_sources_may_be_held_out_at_a_time() -> None:
    three = (*SOURCES, "--source", "folder:three=c")
    assert parse(Job("base", "one+two", 0, three).options).data.hold_out == ("one", "two")


def table(labels: list[int], logits: list[list[float]]) -> Predictions:
    n = len(labels)
    return Predictions(
        classes=("Normal", "Pneumonia", "COVID-19"),
        file_name=np.asarray([f"{k}.png" for k in range(n)]),
        source=np.full(n, "two"),
        site=np.full(n, ""),
        patient_id=np.asarray([f"p{k}" for k in range(n)]),
        split=np.full(n, "external"),
        official_split=np.full(n, ""),
        label=np.asarray(labels),
        logits=np.asarray(logits, np.float32),
    )


def test_contrasts_are_of_two_classes_alone() -> None:
    """Pneumonia's logit, the highest everywhere, plays no part between Normal and COVID-19."""
    found = ablate_sources.judge(table([0, 0, 2, 2], [[1, 9, 0], [0, 9, 1], [0, 9, 2], [0, 9, 3]]))
    assert found["auroc"] == {"COVID-19 against Normal": 1.0}
    assert found["called"] == {
        name: {"Normal": 0.0, "Pneumonia": 1.0, "COVID-19": 0.0} for name in ("Normal", "COVID-19")
    }


def test_the_table_has_means_over_seeds_and_the_sensitivity_of_a_single_class() -> None:
    results = [
        {"variant": variant, "held_out": held_out, "unseen": unseen}
        for variant, gain in (("base", 0.0), ("mirror", 0.2))
        for auroc in (0.5, 0.7)
        for held_out, unseen in {
            "two": {
                "auroc": {"COVID-19 against Normal": auroc + gain},
                "called": {"Normal": {}, "COVID-19": {}},
            },
            "web": {"auroc": {}, "called": {"COVID-19": {"Normal": 0.25, "COVID-19": 0.75}}},
        }.items()
    ]
    head, _, base, mirror = ablate_sources.as_table(results).splitlines()
    assert head == "|  | seeds | two: COVID-19 against Normal | web: COVID-19 found |"
    assert base == "| base | 2 | 60.0 ± 14.1 | 75.0 ± 0.0 |"
    assert mirror == "| mirror | 2 | 80.0 ± 14.1 | 75.0 ± 0.0 |"


def forked(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
    """What subprocess.run does with a Python program, without the time for its imports."""
    _, script, *arguments = command
    code = f'{DRAW_NOTHING}import runpy; runpy.run_path({script!r}, run_name="__main__")'
    scripts = str(Path(script).parent)
    return training_python().run(code, *arguments, environment={"PYTHONPATH": scripts}, cwd=ROOT)


@pytest.mark.parametrize(
    "variant",
    [
        FORKED,
        *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("base", "flattened")),
    ],
)
def test_a_run_is_judged_on_the_source_that_it_has_not_seen(
    tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variant == FORKED:
        monkeypatch.setattr(ablate_sources.subprocess, "run", forked)
    for name, seed in (("one", 0), ("two", 1)):
        for number, (label, image) in enumerate(sample_images(12, seed=seed)):
            (tmp_path / name / label).mkdir(parents=True, exist_ok=True)
            image.resize((64, 64)).save(tmp_path / name / label / f"{number}.png")
    given = [word for name in ("one", "two") for word in ("--source", f"folder:{name}={tmp_path / name}")]
    job = Job(variant, "two", 0, (*given, *SMALL))
    found = ablate_sources.run(job)
    assert found["unseen"]["auroc"].keys() == {
        "Pneumonia against Normal", "COVID-19 against Normal", "COVID-19 against Pneumonia",
    }  # fmt: skip
    assert found["validation"].keys() == {"one"}
    write_json(job.result(tmp_path), found)
    assert job.is_done(tmp_path)
    with pytest.raises(ConfigError, match="other options"):
        Job(variant, "two", 0, (*given, *SMALL, "--flip")).is_done(tmp_path)


def test_coral_is_the_distance_of_sources_within_a_class() -> None:
    features, labels = torch.randn(64, 5), torch.arange(64) % 2
    apart = features + labels[:, None]  # classes may differ, sources of one class must not
    same = torch.cat([apart, apart])
    group = torch.cat([labels, labels + 2])
    assert train_variant.coral(same, labels.repeat(2), group) == pytest.approx(0, abs=1e-6)
    moved = torch.cat([apart, apart + 3])
    assert train_variant.coral(moved, labels.repeat(2), group) == pytest.approx(9, rel=1e-3)


@pytest.mark.exhaustive
def test_a_training_that_fails_is_an_error() -> None:
    with pytest.raises(XrayHFError, match="ended with exit code 1"):
        ablate_sources.run(Job("base", "two", 0, (*SOURCES, *SMALL)))
